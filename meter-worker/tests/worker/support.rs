//! The parts that the tests share: a stream, a migrated ledger, events, and workers in this process.

use std::time::Duration;

use goldleaves_billing::Billing;
use goldleaves_domain::wire::EventBatch;
use goldleaves_domain::{
    Delivery, Epoch, Period, PublishError, Publisher, Source, TenantId, Timestamp, UsageEvent, wire,
};
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_meter_worker::{Meter, UnrecordedBatch, Worker, WorkerHealth};
use goldleaves_pricing::TimeZone;
use goldleaves_runtime::Metrics;
use goldleaves_stream::{ConnectSettings, Connection, Lag, PublisherOptions, StreamPublisher, Topology};
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::usage;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TOPOLOGY: Topology = Topology {
    replicas: 1,
    bytes_max: 256 * 1024 * 1024,
    bytes_min: 256 * 1024 * 1024,
    history: Duration::from_secs(45 * 86_400),
};

/// Fails the test instead of hanging it.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(90), future).await.expect("done within 90 seconds")
}

pub(crate) async fn connect(server: &NatsServer) -> Connection {
    let settings = ConnectSettings {
        servers: server.url().parse().unwrap(),
        credentials_file: None,
        ca_file: None,
        name: "test".to_owned(),
    };
    let connection = Connection::connect(&settings).await.unwrap();
    within(connection.connected()).await;
    connection
}

/// A server with stream and consumer.
pub(crate) async fn stream() -> (NatsServer, Connection) {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server).await;
    declare(&connection).await;
    (server, connection)
}

pub(crate) async fn declare(connection: &Connection) {
    within(async {
        while let Err(error) = TOPOLOGY.declare(connection).await {
            assert!(error.is_transient(), "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// A migrated database with a rate, and a ledger on it.
pub(crate) async fn ledger(postgres: &Postgres) -> (Ledger, String) {
    let url = postgres.database().await.unwrap();
    let options = StoreOptions { acquire_timeout: Duration::from_secs(2), ..StoreOptions::default() };
    let ledger = Ledger::connect(&url, options).await.unwrap();
    ledger.set_rate("25".parse().unwrap(), Timestamp::from_unix_micros(0).unwrap()).await.unwrap();
    (ledger, url)
}

/// One gateway's events: each with a request of its own.
pub(crate) struct Gateway {
    source: Source,
    epoch: Epoch,
    seq: u64,
    /// When its calls arrive.
    pub(crate) now: Timestamp,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        let now = "2026-11-24T05:00:00Z".parse().unwrap();
        Self { source: Source::new(Uuid::now_v7()), epoch: Epoch::new(Uuid::now_v7()), seq: 0, now }
    }

    pub(crate) fn events(&mut self, count: usize) -> Vec<Delivery> {
        (0..count).map(|_| self.event()).collect()
    }

    pub(crate) fn event(&mut self) -> Delivery {
        let event = self.usage();
        Delivery {
            subject: wire::event_subject(&event.tenant_id),
            message_id: event.event_id.to_string(),
            payload: wire::encode_event(&event),
            traceparent: None,
        }
    }

    /// The same many to a message, as a busy gateway sends them.
    pub(crate) fn packed(&mut self, count: usize) -> Vec<Delivery> {
        let mut batches: Vec<EventBatch> = Vec::new();
        for _ in 0..count {
            let event = self.usage();
            if !batches.last_mut().is_some_and(|batch| batch.add(&event, usize::MAX)) {
                batches.push(EventBatch::of(&event));
            }
        }
        batches.into_iter().map(EventBatch::finish).collect()
    }

    pub(crate) fn usage(&mut self) -> UsageEvent {
        self.seq += 1;
        UsageEvent {
            source: self.source,
            tenant_id: tenant(),
            ts: self.now,
            epoch: self.epoch,
            seq: self.seq,
            ..usage::event()
        }
    }
}

pub(crate) fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

/// Events billed.
pub(crate) async fn billed(ledger: &Ledger) -> i64 {
    let day = Period::new("2026-11-24".parse().unwrap(), "2026-11-25".parse().unwrap()).unwrap();
    let billing = Billing::new(ledger.store().clone(), TimeZone::UTC);
    billing.summary(&tenant(), &day).await.map_or(-1, |summary| summary.total_events)
}

pub(crate) fn publisher(connection: &Connection) -> StreamPublisher {
    StreamPublisher::new(connection.clone(), TOPOLOGY, PublisherOptions::default())
}

/// Publishes as the relay does: the same batch until it is confirmed.
pub(crate) async fn publish(publisher: &StreamPublisher, batch: Vec<Delivery>) {
    within(async {
        while let Err(error) = publisher.publish(batch.clone()).await {
            assert!(matches!(error, PublishError::Unconfirmed { .. }), "{error}");
        }
    })
    .await;
}

/// Everything is recorded and acknowledged.
pub(crate) async fn wait_until_done(connection: &Connection) {
    within(async {
        loop {
            if let Ok(Some(Lag { pending: 0, ack_pending: 0, .. })) = Lag::read(connection).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// A worker in this process.
pub(crate) struct Running {
    pub(crate) health: WorkerHealth,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), UnrecordedBatch>>,
}

pub(crate) fn start_worker(connection: Connection, ledger: &Ledger) -> Running {
    let metrics = Metrics::new();
    let worker = Worker::new(connection, Meter::new(ledger.clone(), &metrics), &metrics);
    let (health, stop) = (worker.health(), CancellationToken::new());
    let task = tokio::spawn(worker.run(stop.clone()));
    Running { health, metrics, stop, task }
}

impl Running {
    pub(crate) async fn stop(self) -> Result<(), UnrecordedBatch> {
        self.stop.cancel();
        within(self.task).await.unwrap()
    }

    /// The value of a metric without labels, or of all its labels together.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.text();
        let lines = text.lines().filter(|line| {
            line.strip_prefix("goldleaves_")
                .and_then(|line| line.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}
