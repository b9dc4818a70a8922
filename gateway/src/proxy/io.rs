//! The socket to the upstream: remembers whether anything was read of an answer, and reads an early one to its end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Whether a byte was read since it was last asked: a request may be sent again only when none was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Forgets what was read, before a new request.
    pub(crate) fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether any byte was read since the last reset.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A socket and its memory.
///
/// An upstream that answers a request before it has read all of it, and closes, breaks the next write. What it answered
/// is there to be read all the same, so that a broken write is no error here but waits for ever: reading ends the
/// exchange, with the answer or with the error that it finds.
#[derive(Debug)]
pub(crate) struct UpstreamIo {
    stream: TcpStream,
    heard: Heard,
    /// Nothing more can be read.
    ended: bool,
}

impl UpstreamIo {
    pub(crate) const fn new(stream: TcpStream, heard: Heard) -> Self {
        Self { stream, heard, ended: false }
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
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.0.store(true, Ordering::Relaxed);
        } else if polled.is_ready() && buf.remaining() > 0 && !self.ended {
            self.ended = true;
            // A broken write may wait for this.
            cx.waker().wake_by_ref();
        }
        polled
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.until_read(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
