//! From settings to what serves: the stacks of all cores, made anew at each reload, and what goes on from one to the next.

use std::sync::{Arc, Weak};
use std::time::Duration;

use goldleaves_auth::TokenVerifier;
use goldleaves_record::Recorder;
use goldleaves_runtime::descriptor_limit;
use goldleaves_trace::Tracer;
use goldleaves_web::{Buffers, ConnectionLimit, LiveOptions, ServeOptions};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::GatewayConfig;
use crate::core::Core;
use crate::descriptors::{Shares, TooFewDescriptors};
use crate::edge::Edge;
use crate::layers::{Buckets, CorsRules, LimitsOptions};
use crate::limits::HEADER_FIELDS_NAMED;
use crate::metrics::{CoreMetrics, MostShown};
use crate::open_calls::OpenCalls;
use crate::proxy::Proxy;
use crate::route_metrics::RouteRows;
use crate::stack::StackParts;
use crate::upstream::Workshop;
use crate::via::Via;

/// The number of bytes over `HEADER_BYTES_MAX` that a head may have and still be read: hyper answers what it cannot
/// read with a bare 431, the gateway's own says why.
const HEADER_BYTES_NAMED: u32 = 16 << 10;
/// The number of requests of one core that may wait for an answer's head at once.
const WAITING_MAX: usize = 20_000;

/// The parts that no reload changes.
pub(crate) struct Lasting {
    pub(crate) recorder: Recorder,
    pub(crate) tracer: Tracer,
    pub(crate) workshop: Workshop,
    pub(crate) calls: Arc<OpenCalls>,
    pub(crate) rows: RouteRows,
    pub(crate) via: Via,
    pub(crate) cores: Vec<LastingCore>,
}

/// The same of one core.
#[derive(Clone)]
pub(crate) struct LastingCore {
    pub(crate) metrics: Arc<CoreMetrics>,
    pub(crate) buffers: Buffers,
    pub(crate) stopping: CancellationToken,
    pub(crate) tunnels: TaskTracker,
    pub(crate) finishing: TaskTracker,
}

/// The result of one reading of the settings.
pub(crate) struct Snapshot {
    pub(crate) edge: Arc<Edge>,
    parts: StackParts,
    rate_per_second: Option<u32>,
    config: GatewayConfig,
}

/// One core's part of a snapshot.
pub(crate) struct OfCore {
    pub(crate) parts: StackParts,
    pub(crate) core: Arc<Core>,
    pub(crate) proxy: Proxy,
}

impl Lasting {
    /// Builds everything that is new, and keeps what has not changed.
    pub(crate) fn snapshot(
        &self,
        config: &GatewayConfig,
        verifier: TokenVerifier,
        before: Option<&Snapshot>,
    ) -> Snapshot {
        let edge = Arc::new(Edge::build(&config.edge_settings(), &self.workshop, before.map(|before| &*before.edge)));
        let rate_per_second = config.limits.rate_per_second;
        let kept = before.filter(|before| before.rate_per_second == rate_per_second);
        let new = || rate_per_second.map(|limit| Arc::new(Buckets::new(limit)));
        let cors = config.origins.clone();
        let parts = StackParts {
            tracer: self.tracer.clone(),
            cors: cors.map(|origins| Arc::new(CorsRules::new(origins, config.exposed.as_deref()))),
            limits: LimitsOptions {
                header_bytes_max: usize::try_from(config.limits.header_bytes_max).unwrap_or(usize::MAX),
                header_fields_max: config.limits.header_fields_max,
                body_bytes_max: config.body_bytes_max(),
                waiting_max: WAITING_MAX,
            },
            via: self.via.clone(),
            public: Arc::clone(&config.public),
            edge: Arc::clone(&edge),
            verifier,
            websocket_tokens: config.websocket_tokens,
            buckets: kept.map_or_else(new, |kept| kept.parts.buckets.clone()),
            calls: Arc::clone(&self.calls),
        };
        Snapshot { edge, parts, rate_per_second, config: config.clone() }
    }

    /// Returns what one core serves a snapshot with.
    pub(crate) fn of_core(&self, index: usize, snapshot: &Snapshot) -> Option<OfCore> {
        let LastingCore { metrics, buffers, stopping, tunnels, finishing } = self.cores.get(index)?.clone();
        let config = &snapshot.config;
        let core = Arc::new(Core {
            recorder: self.recorder.clone(),
            statuses: Arc::clone(&config.statuses),
            client_info: config.client_info,
            says_skipped: config.says_skipped,
            metrics: Arc::clone(&metrics),
            routes: self.rows.counters(index, &config.billed_patterns()),
            buffers: buffers.clone(),
            stopping,
            tunnels,
            finishing,
        });
        let proxy = Proxy::new(index, config.limits.header_fields_max, metrics, buffers);
        Some(OfCore { parts: snapshot.parts.clone(), core, proxy })
    }
}

/// Gives one core what it serves from now on.
pub(crate) type Swap = Box<dyn Fn(OfCore) + Send + Sync>;

/// Where settings are put in: one of each for every core, and what all cores share.
pub(crate) struct Entrances {
    pub(crate) swaps: Vec<Swap>,
    pub(crate) doors: Vec<LiveOptions>,
    pub(crate) connections: ConnectionLimit,
    pub(crate) most: MostShown,
}

/// Takes settings while calls are served. Each call keeps what it began with.
pub(crate) struct Reloader {
    lasting: Lasting,
    entrances: Entrances,
    current: Mutex<Arc<Snapshot>>,
    /// Every one that somebody may still use.
    marks: Mutex<Vec<Weak<()>>>,
}

impl Reloader {
    pub(crate) fn new(lasting: Lasting, entrances: Entrances, first: Arc<Snapshot>) -> Arc<Self> {
        let marks = Mutex::new(vec![first.edge.mark()]);
        Arc::new(Self { lasting, entrances, current: Mutex::new(first), marks })
    }

    /// Serves by other settings from now on. Everything new is built first, names are looked up, and then each core is given
    /// its part; it may take seconds, and wants a thread that may wait.
    ///
    /// # Errors
    /// Connections are to be more than there are descriptors for; nothing has changed then.
    pub(crate) fn reload(&self, config: &GatewayConfig, verifier: TokenVerifier) -> Result<(), TooFewDescriptors> {
        let shares = Shares::of(descriptor_limit(), &config.limits)?;
        let before = Arc::clone(&self.current.lock());
        let next = Arc::new(self.lasting.snapshot(config, verifier, Some(&before)));
        next.edge.start(Some(&before.edge));
        self.share_out(config, shares);
        for (index, swap) in self.entrances.swaps.iter().enumerate() {
            if let Some(of_core) = self.lasting.of_core(index, &next) {
                swap(of_core);
            }
        }
        let mut marks = self.marks.lock();
        marks.retain(|mark| mark.strong_count() > 0);
        marks.push(next.edge.mark());
        drop(marks);
        *self.current.lock() = next;
        Ok(())
    }

    /// Sets what is no call's own: it holds for what comes from now on.
    fn share_out(&self, config: &GatewayConfig, shares: Shares) {
        self.entrances.connections.set(shares.clients);
        self.entrances.most.set(shares.clients, &config.limits);
        self.lasting.workshop.plumbing.slots.set_max(shares.upstreams);
        self.lasting.calls.set_max(shares.calls_per_caller.min(self.lasting.recorder.calls_max()));
        for (door, core) in self.entrances.doors.iter().zip(&self.lasting.cores) {
            let options = serve_options(config, &door.get(), &core.buffers);
            door.set(options);
        }
    }

    /// Returns the time for which a call is still accepted, and then may go on, once a stop was asked for.
    pub(crate) fn stop_times(&self) -> (Duration, Duration) {
        let current = self.current.lock();
        (current.config.drain_delay, current.config.shutdown_grace)
    }

    pub(crate) fn verifier(&self) -> TokenVerifier {
        self.current.lock().parts.verifier.clone()
    }

    /// Returns the number of snapshots that calls are served by, the current one included.
    pub(crate) fn snapshots(&self) -> usize {
        self.marks.lock().iter().filter(|mark| mark.strong_count() > 0).count()
    }

    pub(crate) fn edge(&self) -> Arc<Edge> {
        Arc::clone(&self.current.lock().edge)
    }

    /// The addresses of all upstreams and what is known of each, as JSON.
    pub(crate) fn upstreams(&self) -> String {
        let shown: Vec<_> = self.edge().upstreams().iter().map(|upstream| upstream.shown()).collect();
        format!("{:#}\n", serde_json::Value::Array(shown))
    }
}

/// Returns the limits of a core's connections; `serve` has what all cores and all readings of the settings share.
pub(crate) fn serve_options(config: &GatewayConfig, serve: &ServeOptions, buffers: &Buffers) -> ServeOptions {
    ServeOptions {
        first_byte_timeout: config.limits.first_byte_timeout,
        headers_timeout: config.limits.headers_timeout,
        write_timeout: config.limits.body_idle_timeout,
        header_bytes_max: config.limits.header_bytes_max + HEADER_BYTES_NAMED,
        header_fields_max: config.limits.header_fields_max + HEADER_FIELDS_NAMED,
        grace: config.shutdown_grace,
        buffers: buffers.clone(),
        ..serve.clone()
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reloader").finish_non_exhaustive()
    }
}
