//! Equipment that the tests share: a connection, deliveries with ids, and a look at the stream that does not use the code under test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt;
use goldleaves_domain::{Delivery, PublishError, Publisher};
use goldleaves_stream::{ConnectSettings, Connection, PublisherOptions, STREAM, StreamPublisher, Topology};
use tokio::task::JoinHandle;

pub(crate) const TOPOLOGY: Topology = Topology {
    replicas: 1,
    bytes_max: 256 * 1024 * 1024,
    bytes_min: 256 * 1024 * 1024,
    history: Duration::from_secs(45 * 86_400),
};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) fn settings(url: &str) -> ConnectSettings {
    ConnectSettings { servers: url.parse().unwrap(), credentials_file: None, ca_file: None, name: "test".to_owned() }
}

pub(crate) async fn connect(url: &str) -> Connection {
    // `RUST_LOG=goldleaves_stream=debug` shows what publisher and consumer saw; a second test finds it set up already.
    let logs = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env());
    let _ = logs.with_test_writer().try_init();
    let connection = Connection::connect(&settings(url)).await.unwrap();
    within(connection.connected()).await;
    connection
}

/// Fails the test instead of hanging it.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("done within a minute")
}

/// Declares stream and consumer, waiting for a server that is still starting.
pub(crate) async fn declare(connection: &Connection, topology: Topology) {
    within(async {
        while let Err(error) = topology.declare(connection).await {
            assert!(error.is_transient(), "{error}: {:?}", std::error::Error::source(&error));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Batches that are published one after the other, each until it is confirmed.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Delivery>>,
}

impl Load {
    /// Publishes so many deliveries at a time until it is stopped.
    pub(crate) fn start(publisher: &Arc<StreamPublisher>, batch: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (publisher, asked) = (Arc::clone(publisher), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut sent = Vec::new();
            while !asked.load(Ordering::Relaxed) {
                let batch = deliveries(batch);
                publish_until_confirmed(&publisher, &batch).await;
                sent.extend(batch);
            }
            sent
        });
        Self { stop, task }
    }

    /// Returns everything that was confirmed.
    pub(crate) async fn stop(self) -> Vec<Delivery> {
        self.stop.store(true, Ordering::Relaxed);
        within(self.task).await.unwrap()
    }
}

pub(crate) fn deliveries(count: usize) -> Vec<Delivery> {
    (0..count).map(|_| delivery("acme")).collect()
}

pub(crate) fn delivery(tenant: &str) -> Delivery {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    Delivery {
        subject: format!("usage.v1.{tenant}"),
        message_id: format!("id-{id}"),
        payload: format!("{{\"id\":\"id-{id}\",\"filler\":\"{}\"}}", "x".repeat(300)).into(),
        traceparent: Some(format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{id:016x}-01")),
    }
}

pub(crate) fn quick() -> PublisherOptions {
    PublisherOptions {
        ack_timeout: Duration::from_secs(1),
        patience: Duration::from_secs(2),
        missing_grace: Duration::from_secs(2),
        loss_grace: Duration::from_millis(1_500),
        ..PublisherOptions::default()
    }
}

pub(crate) fn publisher(connection: &Connection) -> StreamPublisher {
    StreamPublisher::new(connection.clone(), TOPOLOGY, quick())
}

/// Publishes as the relay does: the same batch until it is confirmed.
pub(crate) async fn publish_until_confirmed(publisher: &StreamPublisher, batch: &[Delivery]) {
    within(async {
        while let Err(error) = publisher.publish(batch.to_vec()).await {
            assert!(matches!(error, PublishError::Unconfirmed { .. }), "{error}");
        }
    })
    .await;
}

/// JetStream by way of the plain client.
pub(crate) async fn plain(url: &str) -> jetstream::Context {
    let servers: Vec<&str> = url.split(',').collect();
    jetstream::new(async_nats::connect(servers).await.unwrap())
}

/// Returns how often each message id lies in the stream.
pub(crate) async fn stored(url: &str) -> BTreeMap<String, usize> {
    let mut stream = plain(url).await.get_stream(STREAM).await.unwrap();
    let count = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
    let config = consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() };
    let reader = stream.create_consumer(config).await.unwrap();
    let mut messages = reader.messages().await.unwrap();
    let mut ids = BTreeMap::new();
    for _ in 0..count {
        let message = within(messages.next()).await.unwrap().unwrap();
        let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().as_str().to_owned();
        *ids.entry(id).or_default() += 1;
    }
    ids
}

/// Each of these once, and nothing else.
pub(crate) async fn assert_stored_once(url: &str, wanted: &[Delivery]) {
    let stored = stored(url).await;
    let missing = wanted.iter().filter(|delivery| !stored.contains_key(&delivery.message_id)).count();
    let twice = stored.values().filter(|count| **count > 1).count();
    assert_eq!(missing, 0);
    assert_eq!(twice, 0);
    assert_eq!(stored.len(), wanted.len());
}

pub(crate) async fn stream_config(url: &str) -> stream::Config {
    plain(url).await.get_stream(STREAM).await.unwrap().cached_info().config.clone()
}
