//! The last hop of the gateway as a program of its own: JetStream. The only file of this crate that names the stream.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use goldleaves_domain::Publisher;
use goldleaves_runtime::Metrics;
use goldleaves_runtime::settings::{Values, parse, table};
use goldleaves_stream::{
    ConnectError, ConnectSettings, Connection, MESSAGE_BYTES_MAX, PublisherOptions, Servers, StreamPublisher, Topology,
};
use prometheus_client::metrics::counter::Counter;

/// The least that a stream of the default size may have become.
const DEFAULT_BYTES_MIN: u64 = 1 << 30;

/// `NATS_URL` and all that belongs to it.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    servers: Servers,
    credentials_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    topology: Topology,
}

impl StreamSettings {
    /// Reads them; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let servers = values.required(table::NATS_URL, parse::from_str::<Servers>);
        let credentials_file = values.optional(table::NATS_CREDENTIALS_FILE, goldleaves_stream::credentials_file);
        let ca_file = values.optional(table::NATS_CA_FILE, goldleaves_stream::ca_file);
        let replicas = values.required(table::STREAM_REPLICAS, replicas);
        let bytes_max = values.required(table::STREAM_BYTES_MAX, stream_bytes);
        let history = values.required(table::STREAM_HISTORY_DAYS, parse::days);
        // A size that somebody chose is made or refused; the default gives way to a smaller disk.
        let bytes_min = if values.is_set(table::STREAM_BYTES_MAX) { bytes_max } else { Some(DEFAULT_BYTES_MIN) };
        let topology =
            Topology { replicas: replicas?, bytes_max: bytes_max?, bytes_min: bytes_min?, history: history? };
        Some(Self { servers: servers?, credentials_file: credentials_file?, ca_file: ca_file?, topology })
    }

    /// Returns what is declared.
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Connects, or goes on trying in the background.
    ///
    /// # Errors
    /// What is wrong rather than away: credentials, files.
    pub async fn connect(&self, name: &str) -> Result<Connection, ConnectError> {
        let settings = ConnectSettings {
            servers: self.servers.clone(),
            credentials_file: self.credentials_file.clone(),
            ca_file: self.ca_file.clone(),
            name: name.to_owned(),
        };
        Connection::connect(&settings).await
    }

    /// Publishes over a connection, and shows what it counts.
    pub fn publisher(&self, connection: Connection, metrics: &Metrics) -> Arc<dyn Publisher> {
        let publisher = Arc::new(StreamPublisher::new(connection, self.topology, PublisherOptions::default()));
        show(Arc::clone(&publisher), metrics);
        publisher
    }
}

/// A stream that has no room for one message takes none, however long it is waited for.
fn stream_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse::byte_size(text).map_err(|wrong| wrong.to_string())?;
    if bytes < u64::from(MESSAGE_BYTES_MAX) {
        return Err(
            "has no room for a message: it takes 128KiB or more, in bytes or with a unit such as 64GiB".to_owned()
        );
    }
    Ok(bytes)
}

fn show(publisher: Arc<StreamPublisher>, metrics: &Metrics) {
    let counter = |name, help| metrics.register(name, help, Counter::<u64, AtomicU64>::default());
    let confirmed = counter("published_messages", "Messages that JetStream confirmed, repeats included");
    let repeated = counter("published_repeats", "Messages that JetStream confirmed and had already");
    let unconfirmed =
        counter("publish_unconfirmed", "Messages that were refused or never answered, which are sent again");
    let troubles = counter("publish_troubles", "Times that publishing stopped because of trouble");
    let rewinds = counter("publish_rewinds", "Times that the stream had lost what it confirmed, which is sent again");
    metrics.before_reading(move || {
        let stats = publisher.stats();
        confirmed.inner().store(stats.confirmed, Ordering::Relaxed);
        repeated.inner().store(stats.duplicates, Ordering::Relaxed);
        unconfirmed.inner().store(stats.without_receipt, Ordering::Relaxed);
        troubles.inner().store(stats.troubles, Ordering::Relaxed);
        rewinds.inner().store(stats.rewinds, Ordering::Relaxed);
    });
}

fn replicas(text: &str) -> Result<u8, &'static str> {
    match text.trim() {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("is none of 1, 3 and 5"),
    }
}
