//! One connection to NATS that never gives up: several servers, every way to log in, TLS, and what is known of its state.
//!
//! A server that can't be reached is no error, neither at the start nor later: the connection goes on trying in the
//! background. Refused credentials at the start are one, and so is a file that can't be read.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use goldleaves_runtime::{Backoff, NAMED_FILE_BYTES_MAX, read_file};
use tokio::sync::{mpsc, watch};

use crate::address::{Login, Servers};
use crate::api::Api;

/// The time for which the start waits for a first answer before it goes on in the background.
const FIRST_ANSWER_SECS: u64 = 5;
/// A server that answers no ping for three of these is given up, and another one tried.
const PING_SECS: u64 = 5;

/// The NATS servers of a program, and how it logs in.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// `NATS_URL`.
    pub servers: Servers,
    /// `NATS_CREDENTIALS_FILE`: a user's JWT and seed, as `nsc` writes them.
    pub credentials_file: Option<PathBuf>,
    /// `NATS_CA_FILE`: PEM certificates; set means that TLS is required and only these are trusted.
    pub ca_file: Option<PathBuf>,
    /// The name that the server shows in its list of connections: the program's.
    pub name: String,
}

/// The reason a program can't start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of `NATS_CREDENTIALS_FILE`.
    #[error("NATS_CREDENTIALS_FILE {} can't be used", path.display())]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file of `NATS_CA_FILE`.
    #[error("NATS_CA_FILE {} can't be used", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The server answered and refused the login.
    #[error("NATS at {servers} refuses the credentials")]
    Refused {
        /// Hosts and ports.
        servers: String,
    },
    /// The client did not start. It is never about a server that is away.
    #[error("the NATS client did not start")]
    Client(#[source] async_nats::ConnectError),
}

/// A connection that reconnects for ever. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    link: watch::Receiver<Link>,
    servers: Servers,
}

/// The last word of the client's events.
#[derive(Debug, Clone, Default)]
struct Link {
    /// Counts changes, so that a waiter wakes on each.
    changes: u64,
    /// The last complaint of server or client.
    complaint: Option<String>,
}

impl Connection {
    /// Connects, or goes on trying in the background when no server can be reached.
    ///
    /// Boxed, so that the client is compiled here and not once more in every program.
    ///
    /// # Errors
    /// Credentials that a server refused, files that can't be read.
    pub fn connect(
        settings: &ConnectSettings,
    ) -> Pin<Box<dyn Future<Output = Result<Self, ConnectError>> + Send + '_>> {
        Box::pin(Self::connect_client(settings))
    }

    async fn connect_client(settings: &ConnectSettings) -> Result<Self, ConnectError> {
        let (events, received) = mpsc::unbounded_channel();
        let options = options(settings, events)?;
        let addresses = settings.servers.addresses().to_vec();
        let first =
            tokio::time::timeout(Duration::from_secs(FIRST_ANSWER_SECS), options.clone().connect(addresses.as_slice()));
        let client = match first.await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) if is_refusal(error.kind()) => {
                return Err(ConnectError::Refused { servers: settings.servers.to_string() });
            }
            outcome => {
                let cause = outcome.map_or_else(|_| "no answer".to_owned(), |result| complaint_of(result.err()));
                tracing::warn!(servers = %settings.servers, cause, "cannot reach NATS; retrying in the background");
                let background = options.retry_on_initial_connect();
                background.connect(addresses.as_slice()).await.map_err(ConnectError::Client)?
            }
        };
        let (state, link) = watch::channel(Link::default());
        tokio::spawn(follow_events(client.clone(), received, state));
        Ok(Self { client, link, servers: settings.servers.clone() })
    }

    /// Returns whether a server is connected as far as the client knows. A hung server counts as connected for a while.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The last thing server or client complained of, such as a permission violation.
    pub fn complaint(&self) -> Option<String> {
        self.link.borrow().complaint.clone()
    }

    /// The name of the server that is connected, or was last.
    pub fn server_name(&self) -> String {
        self.client.server_info().server_name
    }

    /// Messages handed to the socket since the start, requests and acknowledgements included.
    pub fn messages_sent(&self) -> u64 {
        self.client.statistics().out_messages.load(Ordering::Relaxed)
    }

    /// Hosts and ports, without login.
    pub fn servers(&self) -> String {
        self.servers.to_string()
    }

    /// Resolves once a server is connected.
    pub async fn connected(&self) {
        self.wait_for(true).await;
    }

    /// Resolves once no server is connected.
    pub async fn disconnected(&self) {
        self.wait_for(false).await;
    }

    async fn wait_for(&self, connected: bool) {
        // The client changes its state a moment before it tells of the event, and may drop events: so look again.
        const LOOK_MILLIS: u64 = 100;
        let mut link = self.link.clone();
        while self.is_connected() != connected {
            let changed = tokio::time::timeout(Duration::from_millis(LOOK_MILLIS), link.changed());
            if let Ok(Err(_)) = changed.await {
                tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            }
        }
    }

    /// Writes out what was queued. Waits at most `patience`: the client has no bound of its own.
    pub async fn flush(&self, patience: Duration) -> bool {
        matches!(tokio::time::timeout(patience, self.client.flush()).await, Ok(Ok(())))
    }

    /// Returns the number of times the client has connected to a server.
    pub fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(self.client.clone())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection").field("servers", &self.servers).field("connected", &self.is_connected()).finish()
    }
}

fn options(settings: &ConnectSettings, events: mpsc::UnboundedSender<Event>) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .name(&settings.name)
        .max_reconnects(None)
        .ping_interval(Duration::from_secs(PING_SECS))
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            // No receiver is left once the connection is dropped; then nobody wants to know.
            let _ = events.send(event);
            std::future::ready(())
        });
    options = match settings.servers.login() {
        Some(Login::User { user, password }) => options.user_and_password(user.clone(), password.clone()),
        Some(Login::Token(token)) => options.token(token.clone()),
        None => options,
    };
    if let Some(path) = &settings.credentials_file {
        options = log_in_with(options, path)
            .map_err(|source| ConnectError::CredentialsFile { path: path.clone(), source })?;
    }
    if let Some(path) = &settings.ca_file {
        check_ca_file(path).map_err(|source| ConnectError::CaFile { path: path.clone(), source })?;
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    Ok(options)
}

/// The path of a file that holds a user's JWT and its seed now, so that a wrong one is a mistake like that of any setting.
///
/// # Errors
/// It can't be read, or holds something else. The error quotes nothing of it.
pub fn credentials_file(text: &str) -> io::Result<PathBuf> {
    let path = PathBuf::from(text.trim());
    log_in_with(ConnectOptions::new(), &path).map(|_| path)
}

/// The path of a file that holds a certificate now.
///
/// # Errors
/// It can't be read, or holds none.
pub fn ca_file(text: &str) -> io::Result<PathBuf> {
    let path = PathBuf::from(text.trim());
    check_ca_file(&path).map(|()| path)
}

fn log_in_with(options: ConnectOptions, path: &Path) -> io::Result<ConnectOptions> {
    // The client's own error is not passed on: it may quote the file.
    options
        .credentials(&text(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it does not hold a user's JWT and its seed"))
}

fn check_ca_file(path: &Path) -> io::Result<()> {
    if text(path)?.contains("-----BEGIN CERTIFICATE-----") {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no PEM certificate"))
}

/// Returns the text of a file; a pipe or a device is none.
fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_file(path, NAMED_FILE_BYTES_MAX)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it does not hold UTF-8"))
}

const fn is_refusal(kind: ConnectErrorKind) -> bool {
    matches!(kind, ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication)
}

fn complaint_of(error: Option<async_nats::ConnectError>) -> String {
    error.map_or_else(String::new, |error| error.to_string())
}

/// Keeps the link's state, and leaves a server in lame duck mode at once instead of when it hangs up.
async fn follow_events(client: Client, mut events: mpsc::UnboundedReceiver<Event>, link: watch::Sender<Link>) {
    // The client lives as long as one clone of it does, and this is one: it goes when nobody watches the link any more.
    while let Some(event) = tokio::select! { event = events.recv() => event, () = link.closed() => None } {
        let complaint = match &event {
            Event::ServerError(error) => Some(error.to_string()),
            Event::ClientError(error) => Some(error.to_string()),
            _ => None,
        };
        match &event {
            Event::LameDuckMode => {
                tracing::info!("the NATS server is in lame duck mode, moving to another one");
                if client.force_reconnect().await.is_err() {
                    break;
                }
            }
            Event::Connected => tracing::info!(server = client.server_info().server_name, "connected to NATS"),
            Event::Disconnected => tracing::warn!("the connection to NATS is lost, trying again"),
            Event::ServerError(error) => tracing::warn!(%error, "NATS server error"),
            // It comes with every attempt: once is enough until something changes.
            Event::ClientError(error) if complaint != link.borrow().complaint => {
                tracing::warn!(%error, "NATS can't be reached, trying again");
            }
            _ => {}
        }
        let connected = matches!(event, Event::Connected);
        link.send_modify(|link| {
            link.changes += 1;
            if connected {
                link.complaint = None;
            } else if complaint.is_some() {
                link.complaint = complaint;
            }
        });
    }
}

/// The delay before the client's attempt number `attempt` (from 1) to reach a server again.
fn reconnect_delay(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let failures = u32::try_from(attempt - 2).unwrap_or(u32::MAX);
    Backoff::after(Duration::from_millis(50), Duration::from_secs(2), failures).pause()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reconnect_is_immediate_and_no_attempt_overflows() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        assert!(reconnect_delay(usize::MAX) <= Duration::from_secs(2));
    }
}
