//! The serve loop: accepts connections, holds each to its limits, and stops in order.
//!
//! It runs on the runtime it is called on, a current-thread one per core or a multi-thread one.

mod buffers;
mod connection;

mod fold;
mod h2_streams;
mod h2_trailers;
mod half_closed;
mod head_timer;
mod hpack;
mod inherited;
mod io;
mod limit;
mod linger;
mod listener;
mod service;
mod short;
mod sniff;
mod target;
mod watched;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::WebBody;
pub use buffers::{Buffers, Flow};
use connection::ServedConnection;
pub use fold::{Folded, Folds};
pub use inherited::{Inherited, InheritedError};
pub use io::{poll_read_some, poll_write_some};
pub use limit::ConnectionLimit;
use limit::Permit;
pub use listener::{ListenerOptions, bind};

/// The longest time dropped connections may take to let go, after the deadline.
const DROP_MAX: Duration = Duration::from_secs(1);
/// The longest time a client may take to take an answer that the server made itself: it is short, and nobody pays for
/// it.
const OWN_ANSWER_MAX: Duration = Duration::from_secs(5);
/// The bytes that a connection of HTTP/1 reads at a time, and may have waiting to be written. The next piece is read when less
/// than half of that is on its way, so that a stream holds one and a half of these, each way.
pub const BUFFER_BYTES: usize = 64 << 10;
/// The bytes that a connection of HTTP/2 may have waiting to be written for one stream.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// The bytes that a client of h2 may send of one request's body before somebody takes it: what it may send before it
/// has seen any settings (RFC 9113, 6.9.2).
const STREAM_WINDOW: u32 = 65_535;
/// The same for all requests of a connection; where the budget of buffers does not lend it, it is that of one.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// The time for which the port stays open for handshakes that had begun when the server was asked to stop.
const HANDSHAKE_MAX: Duration = Duration::from_millis(100);
/// The time for which a connection may wait for room when the server was asked to stop: those that are idle make some.
const ROOM_MAX: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Limits of the connections served. Clones share the connection limit and the counts, one for all cores.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The number of connections that may be open at once, over everything that shares it.
    pub connections: ConnectionLimit,
    /// From the accepted connection to bytes that tell the version of HTTP.
    pub first_byte_timeout: Duration,
    /// For a whole request head; also how long a connection may idle without a request.
    pub headers_timeout: Duration,
    /// The time for which a client may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// The most bytes a request head may have: 431 above. At least 8 KiB.
    pub header_bytes_max: u32,
    /// HTTP/1: the most fields a request head may have: 431 a little above.
    pub header_fields_max: usize,
    /// h2: streams open at once in one connection.
    pub streams_max: u32,
    /// The time for which requests in flight may go on once a stop was asked for.
    pub grace: Duration,
    /// True if the listening socket goes on with another process, or waits for it: whom this one does not serve, the next does.
    pub handed_over: bool,
    /// The room that bodies have together on their way; one for each core.
    pub buffers: Buffers,
    /// The counters.
    pub stats: ServeStats,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: ConnectionLimit::new(10_000),
            first_byte_timeout: Duration::from_secs(10),
            headers_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            header_bytes_max: 32 << 10,
            header_fields_max: 100,
            streams_max: 128,
            grace: Duration::from_secs(30),
            handed_over: false,
            buffers: Buffers::default(),
            stats: ServeStats::default(),
        }
    }
}

/// Options that may be others for connections that come later. Clones share them.
#[derive(Debug, Clone)]
pub struct LiveOptions(Arc<Mutex<ServeOptions>>);

impl From<ServeOptions> for LiveOptions {
    fn from(options: ServeOptions) -> Self {
        Self(Arc::new(Mutex::new(options)))
    }
}

impl LiveOptions {
    /// Holds connections that come from now on to these.
    pub fn set(&self, options: ServeOptions) {
        *self.0.lock() = options;
    }

    /// Returns those that hold now.
    pub fn get(&self) -> ServeOptions {
        self.0.lock().clone()
    }
}

/// The counters of serving. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ServeStats(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    closed: AtomicU64,
    at_limit: AtomicU64,
    accept_errors: AtomicU64,
    first_byte_timeouts: AtomicU64,
    streams_reset: AtomicU64,
}

impl ServeStats {
    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.accepted().saturating_sub(self.0.closed.load(Ordering::Relaxed))
    }

    /// Connections that had to wait because the limit was reached.
    pub fn at_limit(&self) -> u64 {
        self.0.at_limit.load(Ordering::Relaxed)
    }

    /// Accepting failed (no file descriptors left, mostly).
    pub fn accept_errors(&self) -> u64 {
        self.0.accept_errors.load(Ordering::Relaxed)
    }

    /// Streams of h2 reset because their client took nothing of its answer.
    pub fn streams_reset(&self) -> u64 {
        self.0.streams_reset.load(Ordering::Relaxed)
    }

    /// Connections closed because their first bytes did not come.
    pub fn first_byte_timeouts(&self) -> u64 {
        self.0.first_byte_timeouts.load(Ordering::Relaxed)
    }
}

/// The wishes to stop. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Go on as ever, but let no HTTP/1 client come back over its connection.
    pub draining: CancellationToken,
    /// Accept nothing more; finish what is in flight.
    pub graceful: CancellationToken,
    /// Drop what is in flight. [`serve`] cancels it at its deadline, *before* it drops a connection: a guard that is
    /// dropped can see by it that the server stopped and not the client.
    pub hard: CancellationToken,
}

impl Stop {
    /// Stops gracefully with this token.
    pub fn on(graceful: CancellationToken) -> Self {
        Self { graceful, ..Self::default() }
    }
}

/// The end of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Connections that had not finished at the deadline and were dropped.
    pub left: usize,
}

/// The parts that an open connection holds until its socket is dropped: also through an upgrade.
#[derive(Debug)]
struct Held {
    _permit: Permit,
    _token: tokio_util::task::task_tracker::TaskTrackerToken,
    stats: ServeStats,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stats.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves a listener until stopped: HTTP/1.1 and h2 with prior knowledge.
///
/// Never fails: what goes wrong with one connection ends that connection, and errors of the listener are waited out.
pub async fn serve<S, B>(listener: TcpListener, service: S, options: ServeOptions, stop: Stop) -> Served
where
    S: Service<Request<WebBody>, Response = Response<B>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_peers(listener, |_| service.clone(), options, stop).await
}

/// Works like [`serve`], with a service of its own for each connection, made from who is at its other end.
pub async fn serve_peers<S, B>(
    listener: TcpListener,
    service_for: impl Fn(SocketAddr) -> S,
    options: impl Into<LiveOptions>,
    stop: Stop,
) -> Served
where
    S: Service<Request<WebBody>, Response = Response<B>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let door =
        Door { service_for, options: options.into(), stop, closing: Closing::default(), open: TaskTracker::new() };
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.stop.graceful.cancelled() => break,
            () = door.stop.draining.cancelled(), if !door.closing.is_set() => {
                door.closing.set();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE_MIN;
                let Some(permit) = permit(&door.options.get(), &door.stop).await else { break };
                door.let_in(stream, peer, permit);
            }
            Err(error) => wait_out(&error, &mut pause, &door.options.get().stats).await,
        }
    }
    door.closing.set();
    // Who waits in the queue of such a socket is not turned away by this process: it is not its own.
    let door = if door.options.get().handed_over { door } else { last_ones(listener, door).await };
    let Door { options, stop, open, .. } = door;
    finish(open, options.get().grace, &stop).await
}

/// Where connections come in.
struct Door<F> {
    service_for: F,
    options: LiveOptions,
    stop: Stop,
    closing: Closing,
    open: TaskTracker,
}

impl<F> Door<F> {
    fn let_in<S, B>(&self, stream: TcpStream, peer: SocketAddr, permit: Permit)
    where
        F: Fn(SocketAddr) -> S,
        S: Service<Request<WebBody>, Response = Response<B>, Error = std::convert::Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let options = self.options.get();
        let held = Held { _permit: permit, _token: self.open.token(), stats: options.stats.clone() };
        options.stats.0.accepted.fetch_add(1, Ordering::Relaxed);
        let (stop, closing) = (self.stop.clone(), self.closing.clone());
        let connection = ServedConnection { peer, options, stop, closing };
        tokio::spawn(connection.run(stream, (self.service_for)(peer), held));
    }
}

/// Lets in whom the kernel took in before the port closes: they have sent their requests already, or are about to.
async fn last_ones<F, S, B>(listener: TcpListener, door: Door<F>) -> Door<F>
where
    F: Fn(SocketAddr) -> S,
    S: Service<Request<WebBody>, Response = Response<B>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    listener::refuse_newcomers(&listener);
    let end = tokio::time::Instant::now() + HANDSHAKE_MAX;
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.stop.hard.cancelled() => break,
            accepted = listener.accept() => accepted,
            // Whoever was in the middle of the handshake is through by then.
            () = tokio::time::sleep_until(end) => break,
        };
        // Those that are served leave, and make room.
        let Ok((stream, peer)) = accepted else { break };
        let Some(permit) = permit(&door.options.get(), &door.stop).await else { break };
        door.let_in(stream, peer, permit);
        if tokio::time::Instant::now() > end + ROOM_MAX {
            break;
        }
    }
    // A closed port tells clients and balancers at once.
    drop(listener);
    door
}

/// Says whether connections are to be used no longer than for what is in flight. A flag of its own, since every answer looks at
/// it: a token would cost a lock.
#[derive(Debug, Clone, Default)]
struct Closing(Arc<AtomicBool>);

impl Closing {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Room for one more connection; `None` = there was none for a while after the server was asked to stop.
async fn permit(options: &ServeOptions, stop: &Stop) -> Option<Permit> {
    if let Some(permit) = options.connections.try_take() {
        return Some(permit);
    }
    options.stats.0.at_limit.fetch_add(1, Ordering::Relaxed);
    tokio::select! {
        permit = options.connections.take() => Some(permit),
        () = async {
            stop.graceful.cancelled().await;
            tokio::time::sleep(ROOM_MAX).await;
        } => None,
        () = stop.hard.cancelled() => None,
    }
}

/// A connection that is already gone costs nothing; a lack of descriptors or memory is waited out, ever longer.
async fn wait_out(error: &std::io::Error, pause: &mut Duration, stats: &ServeStats) {
    use std::io::ErrorKind;

    stats.0.accept_errors.fetch_add(1, Ordering::Relaxed);
    if matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    ) {
        return;
    }
    tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(ACCEPT_PAUSE_MAX);
}

async fn finish(open: TaskTracker, grace: Duration, stop: &Stop) -> Served {
    open.close();
    let in_time = tokio::select! {
        biased;
        () = open.wait() => true,
        () = tokio::time::sleep(grace) => false,
        () = stop.hard.cancelled() => false,
    };
    if in_time {
        return Served { left: 0 };
    }
    let left = open.len();
    stop.hard.cancel();
    // What still holds on is an upgraded connection whose owner does not listen.
    let _ = tokio::time::timeout(DROP_MAX, open.wait()).await;
    Served { left }
}

/// Sets what every connection wants; a socket that is already dead says so when it is read.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}
