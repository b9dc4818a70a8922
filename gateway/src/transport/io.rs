//! The socket to the upstream: remembers whether anything was read of an answer, reads an early one to its end, and bounds
//! what is read of it before its head ends: an upstream may send interim responses (1xx) without end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::BytesMut;
use goldleaves_web::{Buffers, Folds, poll_read_some, poll_write_some};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::slots::Slot;
use super::wire::Wire;

/// How much is read in one poll, so that other calls of the core get their turn.
const POLL_BYTES_MAX: usize = 64 << 10;
/// How much is read before an answer's head ends, interim responses included.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// The counts of what was read since the last request. One task uses it at a time; the atomics are only there to share
/// it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    any: AtomicBool,
    /// A head begins with what is read next.
    begins: AtomicBool,
    left_of_poll: AtomicUsize,
    left_of_head: AtomicUsize,
}

impl Heard {
    /// Forgets what was read, before a new request.
    pub(crate) fn reset(&self) {
        self.0.any.store(false, Ordering::Relaxed);
        self.0.begins.store(true, Ordering::Relaxed);
        self.0.left_of_head.store(HEAD_BYTES_MAX, Ordering::Relaxed);
    }

    /// The connection is polled: so much may be read until it is polled again.
    pub(crate) fn polled(&self) {
        self.0.left_of_poll.store(POLL_BYTES_MAX, Ordering::Relaxed);
    }

    /// The connection is a tunnel, which nobody polls here any more.
    pub(crate) fn unbounded(&self) {
        self.0.left_of_poll.store(usize::MAX, Ordering::Relaxed);
        self.headed();
    }

    /// The head ended. Whoever takes the body says how fast it is read.
    pub(crate) fn headed(&self) {
        self.0.left_of_head.store(usize::MAX, Ordering::Relaxed);
    }

    /// Returns whether any byte was read since the last reset: a request may be sent again only when none was.
    pub(crate) fn any(&self) -> bool {
        self.0.any.load(Ordering::Relaxed)
    }

    /// Returns whether what was read now begins a head; true once per head.
    fn begins(&self) -> bool {
        self.0.begins.load(Ordering::Relaxed) && self.0.begins.swap(false, Ordering::Relaxed)
    }

    fn has_turn(&self) -> bool {
        self.0.left_of_poll.load(Ordering::Relaxed) > 0
    }

    /// So much was read; whether that is not too much.
    fn read(&self, bytes: usize) -> io::Result<()> {
        self.0.any.store(true, Ordering::Relaxed);
        let left = self.0.left_of_poll.load(Ordering::Relaxed);
        if left != usize::MAX {
            self.0.left_of_poll.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
        match self.0.left_of_head.load(Ordering::Relaxed) {
            usize::MAX => Ok(()),
            left if left < bytes => Err(io::Error::other("the head of the answer does not end")),
            left => {
                self.0.left_of_head.store(left - bytes, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// A socket and its memory.
///
/// An upstream that answers a request before it has read all of it, and closes, breaks the next write. What it answered
/// is there to be read all the same, so that a broken write is no error here but waits for ever: reading ends the
/// exchange, with the answer or with the error that it finds.
#[derive(Debug)]
pub(crate) struct UpstreamIo {
    stream: Wire,
    heard: Heard,
    /// Nothing more can be read.
    ended: bool,
    /// The budget that says how much is read at a time.
    buffers: Buffers,
    folds: Folds,
    /// The bytes that outgrew the room for them.
    read_already: BytesMut,
    /// Its place among all connections, in a tunnel too.
    _slot: Slot,
}

impl UpstreamIo {
    pub(crate) fn new((stream, folds): (Wire, Folds), heard: Heard, (slot, buffers): (Slot, Buffers)) -> Self {
        Self { stream, heard, ended: false, buffers, folds, read_already: BytesMut::new(), _slot: slot }
    }

    /// Makes of what was just read what hyper is to read.
    fn read_head(&mut self, into: &mut ReadBuf<'_>, before: usize) {
        if self.heard.begins() {
            self.folds.begin();
        }
        let Some(mut head) = into.filled().get(before..).and_then(|read| self.folds.read(read)) else { return };
        into.set_filled(before);
        self.read_already = head.split_off(head.len().min(into.remaining()));
        into.put_slice(&head);
    }

    /// A broken write, as one that waits. Nobody has to be woken for it: whoever writes reads too.
    fn until_read<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};

        match written {
            Poll::Ready(Err(error)) if !self.ended && matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                Poll::Pending
            }
            written => written,
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_already.is_empty() {
            let count = self.read_already.len().min(buf.remaining());
            buf.put_slice(&self.read_already.split_to(count));
            return Poll::Ready(Ok(()));
        }
        loop {
            if !self.heard.has_turn() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = buf.filled().len();
            let most = self.buffers.read_max();
            let polled = poll_read_some(&mut self.stream, (buf, most), cx);
            match buf.filled().len() - before {
                0 if polled.is_ready() && buf.remaining() > 0 && !self.ended => {
                    self.ended = true;
                    // A broken write may wait for this.
                    cx.waker().wake_by_ref();
                    return polled;
                }
                0 => return polled,
                bytes => self.heard.read(bytes)?,
            }
            self.read_head(buf, before);
            // Where nothing is left, what came is the beginning of a line, whose rest is waited for.
            if buf.filled().len() > before {
                return polled;
            }
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.until_read(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = poll_write_some(&mut self.stream, bufs, cx);
        self.until_read(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
