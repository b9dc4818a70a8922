//! A connection's socket: gives the sniffed bytes back first, reads targets leniently, breaks off when the client takes
//! nothing for too long, and knows what it means that a client's sending half ended.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::buffers::Buffers;
use super::exchange::Exchange;
use super::half_closed::{HalfClosed, Told};
use super::linger::{Linger, poll_close};
use super::target::Target;
use super::{Held, OWN_ANSWER_MAX};

/// The socket of one connection. What the connection holds is let go with it, so also after an upgrade.
pub(super) struct Socket {
    read_already: BytesMut,
    stream: TcpStream,
    stall: Stall,
    exchange: Exchange,
    /// The target of a request in HTTP/1.
    target: Option<Target>,
    half_closed: Option<Box<HalfClosed>>,
    linger: Option<Linger>,
    buffers: Buffers,
    _held: Held,
}

/// Runs only while a write waits for the client: a client that reads costs no timer.
struct Stall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(
        (read_already, stream): (BytesMut, TcpStream),
        exchange: Exchange,
        write_timeout: Duration,
        held: Held,
    ) -> Self {
        let stall = Stall { limit: write_timeout, timer: None };
        Self {
            read_already,
            stream,
            stall,
            exchange,
            target: None,
            half_closed: None,
            linger: None,
            buffers: Buffers::default(),
            _held: held,
        }
    }

    /// How much is read at a time depends on this budget.
    pub(super) fn within(mut self, buffers: Buffers) -> Self {
        self.buffers = buffers;
        self
    }

    /// The client speaks HTTP/1.
    pub(super) fn with_targets(mut self) -> Self {
        let mut target = Target::default();
        if let Some(encoded) = target.encode(&self.read_already) {
            self.read_already = encoded;
        }
        self.target = Some(target);
        self
    }

    /// Encodes what was just read of a target; what outgrows the room for it is read next.
    fn encode_target(&mut self, into: &mut ReadBuf<'_>, before: usize) {
        let Some(target) = &mut self.target else { return };
        let Some(mut encoded) = into.filled().get(before..).and_then(|read| target.encode(read)) else { return };
        into.set_filled(before);
        let rest = encoded.split_off(encoded.len().min(into.remaining()));
        into.put_slice(&encoded);
        self.read_already = rest;
    }

    /// The client sends nothing more: hyper is told when it needs to know.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_switched() {
            return Poll::Ready(Ok(()));
        }
        let half_closed = self.half_closed.get_or_insert_with(|| Box::new(HalfClosed::new()));
        let blocked = self.stall.timer.is_some();
        match ready!(half_closed.poll_read((&self.stream, &self.exchange), blocked, cx)) {
            Told::End => Poll::Ready(Ok(())),
            Told::Left => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// How much of what hyper writes now was sent ahead of it.
    fn ahead(&mut self, next: &[u8]) -> usize {
        self.half_closed.as_mut().map_or(0, |half_closed| half_closed.ahead(next))
    }

    fn wrote<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let was_blocked = self.stall.timer.is_some();
        let own = self.exchange.is_own();
        let written = self.stall.watch(cx, written, own);
        if let (Some(half_closed), true) = (&mut self.half_closed, written.is_ready()) {
            half_closed.wrote();
            if was_blocked {
                // The reader waited for this.
                cx.waker().wake_by_ref();
            }
        }
        written
    }
}

impl Stall {
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>, own: bool) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let limit = if own { self.limit.min(OWN_ANSWER_MAX) } else { self.limit };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_already.is_empty() {
            let count = self.read_already.len().min(into.remaining());
            into.put_slice(&self.read_already.split_to(count));
            if !self.read_already.has_remaining() {
                self.read_already = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if self.half_closed.is_none() {
            let before = into.filled().len();
            let most = self.buffers.read_max();
            ready!(poll_read_some(&mut self.stream, (into, most), cx))?;
            if self.exchange.begins() {
                self.target.iter_mut().for_each(Target::begin);
            }
            self.encode_target(into, before);
            if into.filled().len() > before || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_end(cx)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.ahead(bytes) {
            0 => {
                let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
                self.wrote(cx, written)
            }
            ahead => Poll::Ready(Ok(ahead)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let next = slices.iter().find(|slice| !slice.is_empty());
        match next.map_or(0, |next| self.ahead(next)) {
            0 => {
                let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
                self.wrote(cx, written)
            }
            ahead => Poll::Ready(Ok(ahead)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_switched() || self.half_closed.is_some() {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        let unread = self.exchange.owes_body();
        let Self { stream, linger, .. } = &mut *self;
        poll_close(stream, linger, unread, cx)
    }
}

/// Reads at most so many bytes.
pub fn poll_read_some<R: AsyncRead + Unpin>(
    from: &mut R,
    (into, most): (&mut ReadBuf<'_>, usize),
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if into.remaining() <= most {
        return Pin::new(from).poll_read(cx, into);
    }
    let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
    ready!(Pin::new(from).poll_read(cx, &mut part))?;
    let count = part.filled().len();
    into.advance(count);
    Poll::Ready(Ok(()))
}
