//! HTTP/2 to an upstream: a connection that many calls share, driven by a task of its own, and one call's stream on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::connection::ConnectError;
use super::slots::Slot;
use super::target::Target;
use super::upload::Upload;
use super::wire::Wire;

/// The bytes that an upstream may send of one answer before somebody takes it: with what is on its way to the client, no
/// more than 96 KiB.
const STREAM_WINDOW: u32 = 32 << 10;
/// The most calls that share a connection, however many the upstream allows.
const STREAMS_MAX: usize = 128;
/// Room for what all of them may send, so that clients who take nothing of theirs hold nobody else's answer up.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// The bytes of one request that may wait to be written.
const SEND_BUFFER_BYTES: usize = 32 << 10;
const HEAD_BYTES_MAX: u32 = 256 << 10;
/// A connection over which nothing comes is asked whether it is alive, also while nobody uses it, and closed when it does not
/// say so in time.
const PINGS: Pings = Pings { after: Duration::from_secs(20), dead_after: Duration::from_secs(10) };
/// The interval at which it is looked whether the upstream's settings came.
const GREETING_LOOK: Duration = Duration::from_millis(1);
/// The time for which a connection without a call is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// When a quiet connection is asked, and how long it has for its answer.
#[derive(Debug, Clone, Copy)]
struct Pings {
    after: Duration,
    dead_after: Duration,
}

/// A connection. Its task ends when nobody can send over it any more: after a GOAWAY that may be long before the last stream
/// ends, so that its place is kept here, where each stream holds it, and given back with the last of them.
pub(super) struct TwoConnection {
    _slot: Slot,
    sender: http2::SendRequest<Upload>,
    load: Arc<TwoLoad>,
    scheme: Scheme,
    /// For requests without a `Host` that could be one.
    authority: Authority,
    last_used: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct TwoLoad {
    streams: AtomicUsize,
    /// The number that the upstream allows.
    streams_max: AtomicUsize,
}

/// One call's stream, or the right to open one.
pub(super) struct Stream {
    sender: http2::SendRequest<Upload>,
    shared: Arc<TwoConnection>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.load.streams.fetch_sub(1, Ordering::Relaxed);
        *self.shared.last_used.lock() = Instant::now();
    }
}

impl TwoConnection {
    /// Speaks HTTP/2 over what was connected.
    pub(super) async fn open(wire: Wire, slot: Slot, target: &Target) -> Result<Arc<Self>, ConnectError> {
        Self::open_asked(wire, slot, target, PINGS).await
    }

    async fn open_asked(wire: Wire, slot: Slot, target: &Target, pings: Pings) -> Result<Arc<Self>, ConnectError> {
        let authority = match target {
            Target::Tcp(address) => Authority::try_from(address.to_string()).ok(),
            Target::Unix(_) => None,
        };
        let authority = authority.unwrap_or(Authority::from_static("localhost"));
        let scheme = if wire.is_encrypted() { Scheme::HTTPS } else { Scheme::HTTP };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .initial_max_send_streams(0)
            .keep_alive_interval(pings.after)
            .keep_alive_timeout(pings.dead_after)
            .keep_alive_while_idle(true);
        let (sender, mut connection) = builder.handshake(TokioIo::new(wire)).await.map_err(ConnectError::Handshake)?;
        greeted(&mut connection).await?;
        let load = Arc::new(TwoLoad::default());
        load.streams_max.store(connection.current_max_send_streams(), Ordering::Relaxed);
        let told = Arc::clone(&load);
        tokio::spawn(async move {
            let ended = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                told.streams_max.store(connection.current_max_send_streams(), Ordering::Relaxed);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Arc::new(Self { _slot: slot, sender, load, scheme, authority, last_used: Mutex::new(Instant::now()) }))
    }

    /// A stream, where the upstream allows one more.
    pub(super) fn stream(self: &Arc<Self>) -> Option<Stream> {
        if self.sender.is_closed() {
            return None;
        }
        let max = self.load.streams_max.load(Ordering::Relaxed).min(STREAMS_MAX);
        let more = |streams: usize| (streams < max).then_some(streams + 1);
        self.load.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Stream { sender: self.sender.clone(), shared: Arc::clone(self) })
    }

    /// Returns whether it is of use to nobody.
    pub(super) fn is_spent(&self) -> bool {
        self.sender.is_closed() || (self.is_unused() && self.last_used.lock().elapsed() >= IDLE_MAX)
    }

    /// Returns whether no call uses it now.
    pub(super) fn is_unused(&self) -> bool {
        self.load.streams.load(Ordering::Relaxed) == 0
    }
}

/// Waits for the upstream's settings, which it sends first: only then it is known to speak HTTP/2, and how many streams it
/// allows.
async fn greeted<B>(connection: &mut http2::Connection<TokioIo<Wire>, B, TokioExecutor>) -> Result<(), ConnectError>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // hyper wakes nobody for settings.
    while connection.current_max_send_streams() == 0 {
        tokio::select! {
            ended = &mut *connection => return Err(ended.map_or_else(ConnectError::Handshake, |()| ConnectError::Ended)),
            () = tokio::time::sleep(GREETING_LOOK) => {}
        }
    }
    Ok(())
}

impl Stream {
    /// Starts sending; what is returned must be polled, and resets the stream when it is dropped.
    pub(super) fn send(&mut self, request: Request<Upload>) -> impl Future<Output = super::connection::Sent> + use<> {
        self.sender.try_send_request(as_stream(request, &self.shared))
    }
}

/// The request as HTTP/2 writes it: scheme and host are in its target, and nothing speaks of the connection.
fn as_stream(mut request: Request<Upload>, over: &TwoConnection) -> Request<Upload> {
    let host = request.headers_mut().remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let host = host.unwrap_or_else(|| over.authority.clone());
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let absolute = Uri::builder().scheme(over.scheme.clone()).authority(host).path_and_query(target).build();
    // All of its parts are whole, so that it is one.
    *request.uri_mut() = absolute.unwrap_or_default();
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(TRANSFER_ENCODING);
    *request.version_mut() = http::Version::HTTP_2;
    request
}

/// Returns whether a stream ended by itself, on a connection that goes on.
pub(crate) fn was_reset(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(h2::Error::is_reset)
}

/// Returns whether the upstream says that it did not look at the request (RFC 9113, 8.7): it refused the stream, or
/// went away before it.
pub(crate) fn was_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_remote() && (error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away())
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::slots::Slots;
    use super::*;

    /// However busy the machine is, it takes no longer.
    const PATIENCE: Duration = Duration::from_secs(60);
    const PREFACE_BYTES: usize = 24;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const ACK: u8 = 1;

    /// The other side of a connection, frame by frame.
    struct Upstream(UnixStream);

    impl Upstream {
        async fn write(&mut self, kind: u8, flags: u8, content: &[u8]) {
            let length = u8::try_from(content.len()).unwrap();
            let head = [0, 0, length, kind, flags, 0, 0, 0, 0];
            self.0.write_all(&[&head[..], content].concat()).await.unwrap();
        }

        /// Returns the content of the next ping; none when the connection is closed first.
        async fn ping(&mut self) -> Option<Vec<u8>> {
            tokio::time::timeout(PATIENCE, self.next_ping()).await.expect("a ping, or the end")
        }

        async fn next_ping(&mut self) -> Option<Vec<u8>> {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.ok()?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut content = vec![0; length as usize];
                self.0.read_exact(&mut content).await.ok()?;
                if head[3] == PING && head[4] & ACK == 0 {
                    return Some(content);
                }
            }
        }
    }

    /// A connection whose other side may take so long to answer a ping.
    async fn idle(dead_after: Duration) -> (Arc<TwoConnection>, Upstream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut upstream = Upstream(theirs);
        let greeting = async {
            upstream.0.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
            upstream.write(SETTINGS, 0, &[]).await;
            upstream.write(SETTINGS, ACK, &[]).await;
        };
        let pings = Pings { after: Duration::from_millis(50), dead_after };
        let target = Target::Unix("/run/nobody.sock".into());
        let opening = TwoConnection::open_asked(Wire::Unix(ours), Slots::new(1).take().unwrap(), &target, pings);
        let (shared, ()) = tokio::join!(opening, greeting);
        (shared.unwrap(), upstream)
    }

    #[tokio::test]
    async fn a_connection_that_nobody_uses_is_asked_whether_it_is_alive() {
        let (shared, mut upstream) = idle(PATIENCE).await;
        for _ in 0..3 {
            let asked = upstream.ping().await.expect("it is asked");
            assert!(!shared.is_spent() && shared.is_unused());
            upstream.write(PING, ACK, &asked).await;
        }
        let (shared, mut upstream) = idle(Duration::from_millis(50)).await;
        // Nobody answers.
        upstream.ping().await.expect("it is asked");
        assert_eq!(upstream.ping().await, None, "it is closed, and not asked again");
        assert!(shared.is_spent() && shared.stream().is_none());
    }
}
