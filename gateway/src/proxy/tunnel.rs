//! A connection after 101: bytes go both ways until one side is done.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use goldleaves_domain::Outcome;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::Instant;

use super::answer::Held;
use crate::core::Core;
use crate::open_calls::OpenCall;
use crate::transport::Connection;

/// Both ends of a tunnel that is about to open.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
    pub(crate) connection: Connection,
    /// The part of its upstream that it holds.
    pub(crate) held: Held,
    /// The longest time for which nothing may move.
    pub(crate) idle: Duration,
    /// When the gateway ends it.
    pub(crate) latest: Instant,
    /// Its place among the tenant's open calls.
    pub(crate) place: Option<OpenCall>,
}

/// The end of a tunnel, in the ledger's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TunnelEnd {
    pub(crate) outcome: Outcome,
    pub(crate) bytes_to_client: u64,
}

/// The traffic of a tunnel so far.
#[derive(Debug, Default)]
struct Traffic {
    moved: AtomicU64,
    to_client: AtomicU64,
}

impl Tunnel {
    /// Moves bytes until one side is done, nothing moves any more, its time is up, or the gateway stops.
    pub(crate) async fn run(self, core: &Core) -> TunnelEnd {
        let traffic = Arc::new(Traffic::default());
        let latest = self.latest;
        let outcome = tokio::select! {
            outcome = self.pump(&traffic) => outcome,
            () = core.stopping.cancelled() => Outcome::GatewayStopped,
            () = tokio::time::sleep_until(latest) => Outcome::GatewayStopped,
        };
        TunnelEnd { outcome, bytes_to_client: traffic.to_client.load(Ordering::Relaxed) }
    }

    async fn pump(self, traffic: &Arc<Traffic>) -> Outcome {
        let Self { client, upstream, connection, held: _held, idle, latest: _, place: _place } = self;
        connection.finish().await;
        let Ok(upstream) = upstream.await else { return Outcome::UpstreamAborted };
        let Ok(client) = client.await else { return Outcome::ClientAborted };
        let mut client = Side::new(client, Arc::clone(traffic), End::Client);
        let mut upstream = Side::new(upstream, Arc::clone(traffic), End::Upstream);
        let copied = tokio::select! {
            copied = copy_bidirectional(&mut client, &mut upstream) => copied,
            () = quiet(idle, traffic) => return Outcome::Completed,
        };
        match copied {
            Ok(_) => Outcome::Completed,
            Err(_) if client.broke => Outcome::ClientAborted,
            Err(_) => Outcome::UpstreamAborted,
        }
    }
}

/// Resolves when nothing moved for `idle`.
async fn quiet(idle: Duration, traffic: &Traffic) {
    let mut seen = traffic.moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(idle).await;
        let moved = traffic.moved.load(Ordering::Relaxed);
        if moved == seen {
            return;
        }
        seen = moved;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Upstream,
}

/// One end, which counts what goes through it and remembers whether it broke.
struct Side {
    io: TokioIo<Upgraded>,
    traffic: Arc<Traffic>,
    end: End,
    broke: bool,
}

impl Side {
    fn new(io: Upgraded, traffic: Arc<Traffic>, end: End) -> Self {
        Self { io: TokioIo::new(io), traffic, end, broke: false }
    }

    fn note<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.broke |= matches!(polled, Poll::Ready(Err(_)));
        polled
    }
}

impl AsyncRead for Side {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.note(polled)
    }
}

impl AsyncWrite for Side {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.traffic.moved.fetch_add(*written as u64, Ordering::Relaxed);
            if self.end == End::Client {
                self.traffic.to_client.fetch_add(*written as u64, Ordering::Relaxed);
            }
        }
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.note(polled)
    }
}
