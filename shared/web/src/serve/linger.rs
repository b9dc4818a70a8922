//! A staged close (RFC 9112, 9.6): after the answer the client's bytes are read and thrown away for a while.
//!
//! A socket that is closed with bytes unread sends a reset, and the reset overtakes the answer: a client that sends its
//! whole request before it reads would lose a 401 or 413 to a broken pipe.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Alarm;

/// The time for which a client may go on sending what nobody reads.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// The time for which it may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 << 10;
/// The reads that are thrown away before the other connections of the core have their turn.
const READS_A_TURN: usize = 16;

/// The second stage: our half is closed, theirs is not.
#[derive(Debug)]
pub(super) struct Linger {
    until: Instant,
    moved: Instant,
    alarm: Alarm,
    into: Box<[u8]>,
}

impl Linger {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { until: now + LINGER_MAX, moved: now, alarm: Alarm::default(), into: vec![0; READ_BYTES].into() }
    }

    /// Ready when the client closed too, or had its time.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.until {
            return Poll::Ready(());
        }
        for _ in 0..READS_A_TURN {
            let mut into = ReadBuf::new(&mut self.into);
            match Pin::new(&mut *stream).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) if into.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.moved = Instant::now(),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {
                    let deadline = self.until.min(self.moved + SILENCE_MAX);
                    return if self.alarm.passed(deadline, cx) { Poll::Ready(()) } else { Poll::Pending };
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Closes our half of the socket and, when `unread` or when there is something to read, lingers.
pub(super) fn poll_close(
    stream: &mut TcpStream,
    linger: &mut Option<Linger>,
    unread: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    use tokio::io::AsyncWrite as _;

    if linger.is_none() {
        ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
        if !unread && !has_more(stream) {
            return Poll::Ready(Ok(()));
        }
    }
    linger.get_or_insert_with(Linger::new).poll(stream, cx).map(Ok)
}

/// Returns whether bytes came that nobody asked for; those looked at are gone, as all others will be.
fn has_more(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0; 64]).is_ok_and(|count| count > 0)
}
