//! The socket to the upstream: remembers whether anything was read of an answer, reads an early one to its end, and bounds
//! what is read of it before its head ends: an upstream may send interim responses (1xx) without end.
//!
//! hyper has it, and so has the short exchange of `quick.rs`, which goes past hyper. What that sent and read is there for
//! hyper as if hyper had done it, so that any exchange can still become hyper's.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use goldleaves_web::{Buffers, Folds, poll_read_some, poll_write_some};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::slots::Slot;
use super::wire::Wire;

/// The most bytes that are read in one poll, so that other calls of the core get their turn.
const POLL_BYTES_MAX: usize = 64 << 10;
/// The same once something was read and the head goes on: interim responses come one after the other then, and each is work.
const HEAD_POLL_BYTES_MAX: usize = 8 << 10;
/// The most bytes that are read before an answer's head ends, interim responses included.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// The most bytes that a short exchange reads: longer answers are streamed.
const SHORT_BYTES: usize = 8 << 10;

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
        let most = if self.head_goes_on() { HEAD_POLL_BYTES_MAX } else { POLL_BYTES_MAX };
        self.0.left_of_poll.store(most, Ordering::Relaxed);
    }

    /// Something of a head was read, and not its end.
    fn head_goes_on(&self) -> bool {
        self.0.left_of_head.load(Ordering::Relaxed) < HEAD_BYTES_MAX
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

    /// Returns the number of bytes that may be read now. A body's last piece in a poll is not cut short: that costs
    /// more than it spares.
    fn turn(&self) -> usize {
        match self.0.left_of_poll.load(Ordering::Relaxed) {
            left if left == 0 || self.head_goes_on() => left,
            _ => usize::MAX,
        }
    }

    /// Counts bytes that were read. An error when they are too many.
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
    /// The part of hyper's next request that a short exchange has sent.
    ahead: Ahead,
    /// The bytes that a short exchange read, and hyper has not.
    unheard: Unheard,
    /// hyper reads nothing before it has sent its request: to what comes while it has none it would take offence.
    is_held_back: bool,
    /// Its place among all connections, in a tunnel too.
    _slot: Slot,
}

/// The number of bytes of hyper's request that are with the upstream before hyper writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    /// The next bytes, this many.
    Bytes(usize),
    /// All of it, until it is answered.
    All,
}

/// Bytes that were read past hyper.
#[derive(Debug, Default)]
struct Unheard {
    bytes: Bytes,
    /// The error that came behind.
    error: Option<io::Error>,
}

impl Unheard {
    const fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.error.is_none()
    }

    /// The bytes, then the error.
    fn read(&mut self, into: &mut ReadBuf<'_>) -> io::Result<()> {
        if self.bytes.is_empty() {
            return self.error.take().map_or(Ok(()), Err);
        }
        let piece = self.bytes.split_to(self.bytes.len().min(into.remaining()));
        into.put_slice(&piece);
        Ok(())
    }
}

impl UpstreamIo {
    pub(crate) fn new(stream: Wire, folds: Folds, heard: Heard, slot: Slot, buffers: Buffers) -> Self {
        let (ahead, unheard) = (Ahead::Bytes(0), Unheard::default());
        let read_already = BytesMut::new();
        let (ended, is_held_back) = (false, false);
        Self { stream, heard, ended, buffers, folds, read_already, ahead, unheard, is_held_back, _slot: slot }
    }

    /// Reads what a short answer may have, once.
    fn poll_short(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        // What is encrypted may wait to be written.
        let _ = Pin::new(&mut self.stream).poll_flush(cx);
        let mut room = [MaybeUninit::uninit(); SHORT_BYTES];
        let mut into = ReadBuf::uninit(&mut room);
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into)) {
            self.unheard.error = Some(error);
        }
        Poll::Ready(Bytes::copy_from_slice(into.filled()))
    }

    /// Returns the number of these bytes that the upstream has already.
    fn take_ahead(&mut self, length: usize, cx: &Context<'_>) -> usize {
        if std::mem::take(&mut self.is_held_back) {
            cx.waker().wake_by_ref();
        }
        match &mut self.ahead {
            Ahead::All => length,
            Ahead::Bytes(left) => {
                let known = length.min(*left);
                *left -= known;
                known
            }
        }
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
        if self.is_held_back {
            return Poll::Pending;
        }
        if !self.read_already.is_empty() {
            let count = self.read_already.len().min(buf.remaining());
            buf.put_slice(&self.read_already.split_to(count));
            return Poll::Ready(Ok(()));
        }
        loop {
            let turn = self.heard.turn();
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = buf.filled().len();
            let most = self.buffers.read_max().min(turn);
            let polled = match self.unheard.is_empty() {
                true => poll_read_some(&mut self.stream, buf, most, cx),
                false => Poll::Ready(self.unheard.read(buf)),
            };
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
        match self.take_ahead(buf.len(), cx) {
            0 => {
                let written = Pin::new(&mut self.stream).poll_write(cx, buf);
                self.until_read(written)
            }
            ahead => Poll::Ready(Ok(ahead)),
        }
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
        match self.take_ahead(bufs.iter().map(|buf| buf.len()).sum(), cx) {
            0 => {
                let written = poll_write_some(&mut self.stream, bufs, cx);
                self.until_read(written)
            }
            ahead => Poll::Ready(Ok(ahead)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The socket, for hyper and for whoever goes past it. One task uses it at a time; the lock is only there to share it.
#[derive(Debug, Clone)]
pub(crate) struct SharedIo(Arc<Mutex<UpstreamIo>>);

impl SharedIo {
    pub(crate) fn new(io: UpstreamIo) -> Self {
        Self(Arc::new(Mutex::new(io)))
    }

    /// The request was answered: what is sent from now on is another one.
    pub(crate) fn answered(&self) {
        let mut io = self.0.lock();
        io.ahead = Ahead::Bytes(0);
        io.is_held_back = false;
    }

    /// Returns whether nothing came that nobody read; the task is woken when something does.
    pub(crate) fn is_quiet(&self, cx: &mut Context<'_>) -> bool {
        self.0.lock().stream.is_quiet(cx)
    }

    /// Sends past hyper; whether all of it was sent. If not, hyper sends the rest, and finds out why.
    pub(crate) fn send(&self, head: &[u8], cx: &mut Context<'_>) -> bool {
        let mut io = self.0.lock();
        let mut sent = 0;
        while let Some(rest) = head.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut io.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) if written > 0 => sent += written,
                _ => break,
            }
        }
        let is_whole = sent == head.len();
        io.ahead = if is_whole { Ahead::All } else { Ahead::Bytes(sent) };
        io.is_held_back = sent > 0;
        is_whole
    }

    /// Reads past hyper. Nothing = the upstream closed, or an error that hyper will find.
    pub(crate) fn poll_short(&self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.0.lock().poll_short(cx)
    }

    /// Lets hyper read what was read past it.
    pub(crate) fn unread(&self, bytes: Bytes) {
        self.0.lock().unheard.bytes = bytes;
    }
}

impl AsyncRead for SharedIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use goldleaves_web::Folded;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::slots::Slots;
    use super::super::upload::Upload;
    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";

    fn request() -> http::Request<Upload> {
        http::Request::get("/").header("host", "a").body(Upload::empty()).unwrap()
    }

    /// However much was sent of a request and read of its answer before hyper is asked, the upstream gets the request once, and
    /// hyper the answer whole.
    #[tokio::test]
    async fn hyper_goes_on_where_a_short_exchange_stopped() {
        for (sent, read) in [(0, 0), (1, 0), (20, 0), (HEAD.len(), 0), (HEAD.len(), 7), (HEAD.len(), ANSWER.len())] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let (heard, folds) = (Heard::default(), Folds::new(Folded::default(), 100));
            heard.unbounded();
            let slot = Slots::new(1).take().unwrap();
            let io = SharedIo::new(UpstreamIo::new(Wire::Unix(ours), folds, heard, slot, Buffers::default()));
            let (mut sender, connection) = http1::handshake(TokioIo::new(io.clone())).await.unwrap();
            let serving = tokio::spawn(connection);
            assert!(std::future::poll_fn(|cx| Poll::Ready(io.send(&HEAD[..sent], cx))).await);
            if sent < HEAD.len() {
                io.0.lock().ahead = Ahead::Bytes(sent);
            }
            io.unread(Bytes::from_static(&ANSWER[..read]));
            let mut got = vec![0; HEAD.len()];
            let upstream = async {
                theirs.read_exact(&mut got).await.unwrap();
                theirs.write_all(&ANSWER[read..]).await.unwrap();
            };
            let (answer, ()) = tokio::join!(sender.send_request(request()), upstream);
            io.answered();
            let body = http_body_util::BodyExt::collect(answer.unwrap().into_body()).await.unwrap().to_bytes();
            assert_eq!(body, "abc", "{sent} sent, {read} read");
            drop((sender, io));
            serving.await.unwrap().unwrap();
            theirs.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, HEAD, "{sent} sent, {read} read");
        }
    }

    #[test]
    fn a_head_that_goes_on_is_read_in_small_turns_and_ends_somewhere() {
        let heard = Heard::default();
        heard.reset();
        heard.polled();
        assert_eq!(heard.turn(), usize::MAX, "an answer that nothing was read of yet is read whole");
        heard.read(100).unwrap();
        heard.polled();
        assert_eq!(heard.turn(), HEAD_POLL_BYTES_MAX);
        heard.read(HEAD_POLL_BYTES_MAX).unwrap();
        assert_eq!(heard.turn(), 0, "others have their turn");
        let mut turns = 0;
        while heard.read(HEAD_POLL_BYTES_MAX).is_ok() {
            turns += 1;
        }
        assert!(turns < HEAD_BYTES_MAX / HEAD_POLL_BYTES_MAX, "{turns}");

        heard.reset();
        heard.read(100).unwrap();
        heard.headed();
        heard.polled();
        assert_eq!(heard.turn(), usize::MAX, "a body");
        heard.read(POLL_BYTES_MAX).unwrap();
        assert_eq!(heard.turn(), 0);
    }
}
