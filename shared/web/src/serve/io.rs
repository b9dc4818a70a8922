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
use super::fold::Folds;
use super::h2_trailers::Trailers;
use super::half_closed::{HalfClosed, ReaderWord};
use super::linger::{Linger, poll_close};
use super::target::TargetReader;
use super::{Held, OWN_ANSWER_MAX};
use crate::exchange::Exchange;

/// The socket of one connection. What the connection holds is let go with it, so also after an upgrade.
pub(super) struct Socket {
    read_already: BytesMut,
    stream: TcpStream,
    stall: WriteStall,
    exchange: Exchange,
    /// The target of a request in HTTP/1.
    target: Option<TargetReader>,
    /// The fields of its head.
    folds: Option<Folds>,
    /// The trailers of requests in HTTP/2.
    trailers: Option<Box<Trailers>>,
    /// The client once sent more than a request before it was answered. From then on nobody but hyper knows where a head begins.
    is_pipelined: bool,
    half_closed: Option<Box<HalfClosed>>,
    linger: Option<Linger>,
    buffers: Buffers,
    _held: Held,
}

/// Runs only while a write waits for the client: a client that reads costs no timer.
pub(super) struct WriteStall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(
        read_already: BytesMut,
        stream: TcpStream,
        exchange: Exchange,
        write_timeout: Duration,
        held: Held,
    ) -> Self {
        let stall = WriteStall::new(write_timeout);
        Self {
            read_already,
            stream,
            stall,
            exchange,
            target: None,
            folds: None,
            trailers: None,
            is_pipelined: false,
            half_closed: None,
            linger: None,
            buffers: Buffers::default(),
            _held: held,
        }
    }

    /// Reads at a time as much as this budget allows.
    pub(super) fn within(mut self, buffers: Buffers) -> Self {
        self.buffers = buffers;
        self
    }

    /// The client speaks HTTP/1.
    pub(super) fn with_heads(mut self, folds: Folds) -> Self {
        (self.target, self.folds) = (Some(TargetReader::default()), Some(folds));
        let read = std::mem::take(&mut self.read_already);
        self.read_already = self.head(&read).unwrap_or(read);
        self
    }

    /// The client speaks HTTP/2.
    pub(super) fn with_trailers(mut self, trailers: Trailers) -> Self {
        let trailers = self.trailers.insert(Box::new(trailers));
        if let Some(read) = trailers.read(&self.read_already) {
            self.read_already = read;
        }
        self
    }

    /// The bytes that hyper is to read in place of these, if others.
    fn head(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        if let Some(trailers) = &mut self.trailers {
            return trailers.read(bytes);
        }
        let encoded = self.target.as_mut().and_then(|target| target.encode(bytes));
        let folded = self.folds.as_mut().and_then(|folds| folds.read(encoded.as_deref().unwrap_or(bytes)));
        folded.or(encoded)
    }

    /// Makes of what was just read what hyper is to read; what outgrows the room for it is read next.
    fn read_head(&mut self, into: &mut ReadBuf<'_>, before: usize) {
        if let Some(body) = self.exchange.is_over() {
            // Where more came than this request took, hyper has the beginning of the next one: what is read now may be anything.
            self.is_pipelined |= !self.folds.as_ref().is_some_and(|folds| folds.ended_with(body));
            if !self.is_pipelined {
                self.target.iter_mut().for_each(TargetReader::begin);
                self.folds.iter_mut().for_each(Folds::begin);
            }
        }
        let Some(mut head) = into.filled().get(before..).and_then(|read| self.head(read)) else { return };
        into.set_filled(before);
        let rest = head.split_off(head.len().min(into.remaining()));
        into.put_slice(&head);
        self.read_already = rest;
    }

    /// The client sends nothing more: hyper is told when it needs to know.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_switched() {
            return Poll::Ready(Ok(()));
        }
        let half_closed = self.half_closed.get_or_insert_with(|| Box::new(HalfClosed::new()));
        let blocked = self.stall.timer.is_some();
        match ready!(half_closed.poll_read(&self.stream, &self.exchange, blocked, cx)) {
            ReaderWord::End => Poll::Ready(Ok(())),
            ReaderWord::Left => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Returns the number of bytes of what hyper writes now that were sent ahead of it.
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

impl WriteStall {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    pub(super) fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        own: bool,
    ) -> Poll<io::Result<T>> {
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
        while self.half_closed.is_none() {
            let before = into.filled().len();
            let most = self.buffers.read_max();
            ready!(poll_read_some(&mut self.stream, into, most, cx))?;
            let is_end = into.filled().len() == before;
            self.read_head(into, before);
            if into.filled().len() > before || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // What came is the beginning of a line, whose rest is waited for.
            if is_end {
                break;
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
                let written = poll_write_some(&mut self.stream, slices, cx);
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
        self.exchange.closes();
        if self.exchange.is_switched() || self.half_closed.is_some() {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        let unread = self.exchange.owes_body();
        let Self { stream, linger, .. } = &mut *self;
        poll_close(stream, linger, unread, cx)
    }
}

impl Drop for Socket {
    /// Without this, the client of HTTP/1.0 would take an answer that is cut off for a whole one.
    fn drop(&mut self) {
        if self.exchange.is_cut_by_dropping() {
            // A socket that can't be told has no client anymore.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Messages up to this length are written from one place: the kernel takes longer to look at a list of places than they take to copy.
const GATHERED_BYTES: usize = 1 << 10;

/// Writes what lies in several places.
pub fn poll_write_some<W: AsyncWrite + Unpin>(
    into: &mut W,
    slices: &[IoSlice<'_>],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if let [only] = slices {
        return Pin::new(into).poll_write(cx, only);
    }
    let mut gathered = [0; GATHERED_BYTES];
    let mut left = &mut gathered[..];
    for slice in slices {
        let Some((place, rest)) = left.split_at_mut_checked(slice.len()) else {
            return Pin::new(into).poll_write_vectored(cx, slices);
        };
        place.copy_from_slice(slice);
        left = rest;
    }
    let length = GATHERED_BYTES - left.len();
    Pin::new(into).poll_write(cx, gathered.get(..length).unwrap_or_default())
}

/// Reads at most so many bytes.
pub fn poll_read_some<R: AsyncRead + Unpin>(
    from: &mut R,
    into: &mut ReadBuf<'_>,
    most: usize,
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn written(parts: &[&[u8]]) -> (usize, Vec<u8>) {
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut into = Vec::new();
        match poll_write_some(&mut into, &slices, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(count)) => (count, into),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_short_is_written_in_one_piece_and_what_is_long_as_it_lies() {
        assert_eq!(written(&[b"head", b"", b"body"]), (8, b"headbody".to_vec()));
        assert_eq!(written(&[b"only"]), (4, b"only".to_vec()));
        let long = [b'x'; GATHERED_BYTES];
        assert_eq!(written(&[&long[1..], b"y"]).0, GATHERED_BYTES);
        assert_eq!(written(&[b"head", &long]).1, [&b"head"[..], &long].concat());
    }
}
