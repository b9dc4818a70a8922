//! HTTP/2 to an upstream: a connection that many calls share, driven by a task of its own, and one call's stream on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::connection::ConnectError;
use super::slots::Slot;
use super::upload::Upload;
use super::wire::Wire;

/// What an upstream may send of one answer before somebody takes it, and of all answers of a connection.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What waits of one request to be written.
const SEND_BUFFER_BYTES: usize = 32 << 10;
const HEAD_BYTES_MAX: u32 = 256 << 10;
/// A connection over which nothing comes is asked whether it is alive, and closed when it does not say so in time.
const PING_AFTER: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// How long a connection without a call is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A connection. Its task ends when nobody can send over it any more and the last stream has ended.
pub(super) struct Shared {
    sender: http2::SendRequest<Upload>,
    load: Arc<Load>,
    scheme: Scheme,
    last_used: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct Load {
    streams: AtomicUsize,
    /// How many the upstream allows.
    streams_max: AtomicUsize,
}

/// One call's stream, or the right to open one.
pub(super) struct Stream {
    sender: http2::SendRequest<Upload>,
    scheme: Scheme,
    shared: Arc<Shared>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.load.streams.fetch_sub(1, Ordering::Relaxed);
        *self.shared.last_used.lock() = Instant::now();
    }
}

impl Shared {
    /// Speaks HTTP/2 over what was connected.
    pub(super) async fn open(wire: Wire, slot: Slot) -> Result<Arc<Self>, ConnectError> {
        let scheme = if wire.is_encrypted() { Scheme::HTTPS } else { Scheme::HTTP };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(DEAD_AFTER);
        let (sender, mut connection) = builder.handshake(TokioIo::new(wire)).await.map_err(ConnectError::Handshake)?;
        let load = Arc::new(Load::default());
        load.streams_max.store(connection.current_max_send_streams(), Ordering::Relaxed);
        let told = Arc::clone(&load);
        tokio::spawn(async move {
            let _slot = slot;
            let ended = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                told.streams_max.store(connection.current_max_send_streams(), Ordering::Relaxed);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Arc::new(Self { sender, load, scheme, last_used: Mutex::new(Instant::now()) }))
    }

    /// A stream, where the upstream allows one more.
    pub(super) fn stream(self: &Arc<Self>) -> Option<Stream> {
        if self.sender.is_closed() {
            return None;
        }
        let max = self.load.streams_max.load(Ordering::Relaxed);
        let more = |streams: usize| (streams < max).then_some(streams + 1);
        self.load.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Stream { sender: self.sender.clone(), scheme: self.scheme.clone(), shared: Arc::clone(self) })
    }

    /// Whether it is of use to nobody.
    pub(super) fn is_spent(&self) -> bool {
        self.sender.is_closed() || (self.is_unused() && self.last_used.lock().elapsed() >= IDLE_MAX)
    }

    /// Whether no call uses it now.
    pub(super) fn is_unused(&self) -> bool {
        self.load.streams.load(Ordering::Relaxed) == 0
    }
}

impl Stream {
    /// Starts sending; what is returned must be polled, and resets the stream when it is dropped.
    pub(super) fn send(&mut self, request: Request<Upload>) -> impl Future<Output = super::connection::Sent> + use<> {
        self.sender.try_send_request(as_stream(request, &self.scheme))
    }
}

/// The request as HTTP/2 writes it: scheme and host are in its target, and nothing speaks of the connection.
fn as_stream(mut request: Request<Upload>, scheme: &Scheme) -> Request<Upload> {
    let host = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if let Some(host) = host {
        let absolute = Uri::builder().scheme(scheme.clone()).authority(host).path_and_query(target).build();
        if let Ok(absolute) = absolute {
            *request.uri_mut() = absolute;
            request.headers_mut().remove(HOST);
        }
    }
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(TRANSFER_ENCODING);
    *request.version_mut() = http::Version::HTTP_2;
    request
}

/// Whether the upstream says that it did not look at the request (RFC 9113, 8.7): it refused the stream, or went away
/// before it.
pub(super) fn was_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_remote() && (error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away())
    })
}
