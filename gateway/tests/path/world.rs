//! A gateway, its spool, a fake upstream and whoever takes the events.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use goldleaves_domain::wire::{self, Message};
use goldleaves_domain::{Delivery, Outcome, PublishError, PublishFuture, Publisher, UsageEvent};
use goldleaves_gateway::{Deployment, Gateway, GatewayConfig, GatewayParts, StartError};
use goldleaves_record::{Durability, RecordOptions};
use goldleaves_runtime::Metrics;
use goldleaves_runtime::settings::{Common, Values};
use goldleaves_spool::{RealFileSystem, Spool, SpoolOptions};
use goldleaves_testkit::client::{Connection, Request, Response};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use goldleaves_trace::{Exporting, TraceSettings};
use tokio_util::sync::CancellationToken;

use crate::recording::Disk;

pub(crate) const SECRET: &str = "a secret of the tests, long enough for anyone";
pub(crate) const BILLABLE: &str = "/api/v1/documents";

/// Takes events as a ledger would.
#[derive(Debug)]
struct Taker {
    events: Mutex<Vec<UsageEvent>>,
    confirms: bool,
}

impl Publisher for Taker {
    fn publish(&self, batch: Vec<Delivery>) -> PublishFuture<'_> {
        if !self.confirms {
            let reason = "as the test wants it".to_owned();
            return Box::pin(std::future::ready(Err(PublishError::Unconfirmed { reason })));
        }
        for delivery in batch {
            if let Ok(Message::Event(event)) = wire::parse(&delivery.payload) {
                self.events.lock().unwrap().push(*event);
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The changes that a test makes before the start.
pub(crate) struct Plan {
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) cores: usize,
    pub(crate) durability: Durability,
    pub(crate) spool_bytes_max: u64,
    /// True if whoever takes events ever says so.
    pub(crate) confirms: bool,
    pub(crate) disk: Disk,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            cores: 1,
            durability: Durability::Available,
            spool_bytes_max: 64 << 20,
            confirms: true,
            disk: Disk::default(),
        }
    }
}

impl Plan {
    pub(crate) fn with(name: &'static str, value: impl ToString) -> Self {
        Self::default().and(name, value)
    }

    pub(crate) fn strict() -> Self {
        Self { durability: Durability::Strict, ..Self::default() }
    }

    pub(crate) fn cores(cores: usize) -> Self {
        Self { cores, ..Self::default() }
    }
}

impl Plan {
    pub(crate) fn and(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// Starts everything in front of this upstream.
    pub(crate) async fn start(self, upstream: Upstream) -> World {
        let url = upstream.url();
        World { upstream: Some(upstream), ..self.start_before(&url).await }
    }

    /// Starts everything in front of whatever listens there.
    pub(crate) async fn start_before(self, url: &str) -> World {
        self.try_start_before(url).await.unwrap()
    }

    pub(crate) async fn try_start_before(self, url: &str) -> Result<World, StartError> {
        let billing = Upstream::start(|received| Answer::ok(format!("billing {}", received.target()))).await.unwrap();
        let mut settings = vec![("UPSTREAM_URL", url.to_owned()), ("GATEWAY_ADDR", "127.0.0.1:0".to_owned())];
        settings.push(("BILLING_URL", billing.url()));
        settings.extend(self.settings);
        let mut values = Values::load(settings, None);
        let common = Common::read(&mut values);
        let traces = TraceSettings::read(&mut values).unwrap();
        let config = GatewayConfig::read(&mut values, common.as_ref(), Deployment::Distributed);
        let mut config = values.finish(config).unwrap();
        config.cores = NonZeroUsize::new(self.cores).unwrap();

        let scratch = Scratch::new("gateway").unwrap();
        let metrics = Metrics::new();
        let spool = spool_options(scratch.join("spool"), self.spool_bytes_max);
        let side =
            goldleaves_record::open(RecordOptions::new(spool, self.durability), self.disk, &metrics).await.unwrap();
        let (tracer, exporting) = traces.start("gateway", &metrics).unwrap();
        let taker = Arc::new(Taker { events: Mutex::default(), confirms: self.confirms });
        let relay_stop = CancellationToken::new();
        let publisher: Arc<dyn Publisher> = Arc::clone(&taker) as _;
        let relay = tokio::spawn(side.relay.run(publisher, relay_stop.clone(), Duration::from_secs(30)));
        let verifier = TokenVerifier::new(TokenOptions::new(SECRET), WallClock::system());
        let parts =
            GatewayParts { verifier, recorder: side.recorder, metrics: metrics.clone(), tracer, sockets: Arc::new([]) };
        let gateway = Gateway::start(&config, &parts)?;
        Ok(World { gateway, upstream: None, billing, metrics, taker, relay, relay_stop, exporting, scratch })
    }
}

fn spool_options(directory: PathBuf, bytes_max: u64) -> SpoolOptions {
    SpoolOptions {
        segment_bytes: (bytes_max / 4).min(1 << 20),
        bytes_max,
        sync_pause: Duration::ZERO,
        ..SpoolOptions::new(directory)
    }
}

/// Everything, running.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) billing: Upstream,
    pub(crate) metrics: Metrics,
    upstream: Option<Upstream>,
    taker: Arc<Taker>,
    relay: tokio::task::JoinHandle<u64>,
    relay_stop: CancellationToken,
    exporting: Exporting,
    scratch: Scratch,
}

impl World {
    /// In front of an upstream that answers like this.
    pub(crate) async fn answering(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Plan::default().start(Upstream::start(handler).await.unwrap()).await
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        self.upstream.as_ref().unwrap()
    }

    /// Sends with the default token.
    pub(crate) async fn send(&self, request: Request) -> Response {
        request.token(&token()).send(self.gateway.address()).await.unwrap()
    }

    /// Sends as it is.
    pub(crate) async fn send_bare(&self, request: Request) -> Response {
        request.send(self.gateway.address()).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.gateway.address()).await.unwrap()
    }

    /// The only request the upstream saw.
    pub(crate) fn only_received(&self) -> Received {
        let mut served = self.upstream().served();
        assert_eq!(served.len(), 1, "the upstream served {served:?}");
        served.remove(0)
    }

    /// Waits until so many events came.
    pub(crate) async fn events(&self, count: usize) -> Vec<UsageEvent> {
        for _ in 0..1_000 {
            let events = self.taker.events.lock().unwrap().clone();
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} events did not come, only {:?}", self.taker.events.lock().unwrap());
    }

    /// The value of a metric, 0 when it was never shown.
    pub(crate) fn metric(&self, line_start: &str) -> f64 {
        let text = self.metrics.text();
        let values = text.lines().filter_map(|line| line.strip_prefix(line_start));
        values.filter_map(|rest| rest.trim().parse::<f64>().ok()).sum()
    }

    /// Stops everything; every event, in their order. No announced call may be left unsettled.
    pub(crate) async fn finish(self) -> Vec<UsageEvent> {
        self.gateway.stop();
        self.gateway.stopped().await;
        self.relay_stop.cancel();
        assert_eq!(self.relay.await.unwrap(), 0, "everything was relayed");
        self.exporting.finish(std::future::pending()).await;
        // Its gauges read the spool, which is free again only then.
        drop(self.metrics);
        let (_, recovered) = Spool::open(spool_options(self.scratch.join("spool"), 64 << 20), RealFileSystem).unwrap();
        assert_eq!(recovered.orphans.len(), 0, "every announced call was settled");
        let events = self.taker.events.lock().unwrap().clone();
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "no event twice, none missing");
        events
    }

    /// Stops everything; how each call ended: outcome, status, units.
    pub(crate) async fn outcomes(self) -> Vec<(Outcome, u16, String)> {
        let told = |event: &UsageEvent| (event.outcome, event.metadata.status_code, event.units.to_string());
        self.finish().await.iter().map(told).collect()
    }
}

/// A token of tenant `acme` and user `anna`.
pub(crate) fn token() -> String {
    token_of(&Claims::new("acme", "anna"))
}

pub(crate) fn token_of(claims: &Claims) -> String {
    claims.sign(SECRET).unwrap()
}
