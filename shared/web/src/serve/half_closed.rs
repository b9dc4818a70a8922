//! A client that closed its sending half: it may wait for its answer, or have left. Both look the same.
//!
//! What tells them apart is to send something, since who left answers with a reset. It must be something that changes
//! nothing for whoever is still there: the first letter of the status line that comes anyway, or a leading zero of the
//! next chunk's size. Where neither fits, a client is given a while in which nothing is sent.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Alarm;
use crate::exchange::{Exchange, SendingEnd};

/// Every answer of hyper begins with it, whatever the version.
const FIRST_LETTER: u8 = b'H';
/// The interval at which is looked for a reset.
const LOOK: Duration = Duration::from_millis(100);
/// The longest time a client that cut its request off may take to show that it left: longer than its answer to one byte
/// takes.
const CUT_MAX: Duration = Duration::from_secs(1);
/// The time for which an answer of a known length may stand still.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The state of the socket since the client's sending half ended.
#[derive(Debug)]
pub(super) struct HalfClosed {
    alarm: Alarm,
    /// The answer's first letter is with the client.
    began: bool,
    /// When something was last sent, as far as it is known.
    sent: Instant,
    probed: Option<Instant>,
}

/// The word to a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReaderWord {
    /// The client is done.
    End,
    /// The client left.
    Left,
}

impl HalfClosed {
    pub(super) fn new() -> Self {
        Self { alarm: Alarm::default(), began: false, sent: Instant::now(), probed: None }
    }

    /// Something of the answer was written.
    pub(super) fn wrote(&mut self) {
        self.sent = Instant::now();
    }

    /// Returns the number of bytes of what hyper writes next that are with the client already.
    pub(super) fn ahead(&mut self, next: &[u8]) -> usize {
        usize::from(std::mem::take(&mut self.began) && next.first() == Some(&FIRST_LETTER))
    }

    /// Called when hyper reads: what it shall be told. `blocked` = a write waits for the client.
    pub(super) fn poll_read(
        &mut self,
        stream: &TcpStream,
        exchange: &Exchange,
        blocked: bool,
        cx: &mut Context<'_>,
    ) -> Poll<ReaderWord> {
        let standing = exchange.standing();
        match standing {
            SendingEnd::Nothing if !blocked => return Poll::Ready(ReaderWord::End),
            SendingEnd::Undecided => exchange.client_ended(),
            SendingEnd::Nothing | SendingEnd::Cut | SendingEnd::AwaitsAnswer | SendingEnd::TakesAnswer { .. } => {}
        }
        if blocked {
            self.wrote();
        } else if self.has_left(stream, standing) {
            return Poll::Ready(ReaderWord::Left);
        } else if standing == SendingEnd::Cut && self.probed.is_some_and(|probed| probed.elapsed() >= CUT_MAX) {
            exchange.client_waits();
            return Poll::Ready(ReaderWord::End);
        }
        exchange.wake_when_over(cx);
        let _ = self.alarm.passed(Instant::now() + LOOK, cx);
        Poll::Pending
    }

    fn has_left(&mut self, stream: &TcpStream, standing: SendingEnd) -> bool {
        if !matches!(stream.take_error(), Ok(None)) {
            return true;
        }
        match standing {
            SendingEnd::AwaitsAnswer if self.probed.is_none() => self.probe(stream, FIRST_LETTER).is_err(),
            SendingEnd::Cut if !self.began && self.is_due() => self.probe(stream, FIRST_LETTER).is_err(),
            SendingEnd::TakesAnswer { chunked: true } if self.sent.elapsed() >= LOOK && self.is_due() => {
                self.probe(stream, b'0').is_err()
            }
            SendingEnd::TakesAnswer { chunked: false } => self.sent.elapsed() >= SILENCE_MAX,
            SendingEnd::AwaitsAnswer | SendingEnd::TakesAnswer { .. } => false,
            SendingEnd::Undecided | SendingEnd::Cut | SendingEnd::Nothing => false,
        }
    }

    /// Returns whether something was sent since the last probe: one zero a chunk is enough, and many would be too much for some.
    fn is_due(&self) -> bool {
        self.probed.is_none_or(|probed| probed < self.sent)
    }

    /// Nothing waits to be written, so there is room for a byte, or the connection is broken.
    fn probe(&mut self, stream: &TcpStream, byte: u8) -> io::Result<()> {
        self.probed = Some(Instant::now());
        match stream.try_write(&[byte]) {
            Ok(_) => self.began = byte == FIRST_LETTER,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
