//! Where the exchange of one HTTP/1 connection stands: its service says so, its socket asks.
//!
//! hyper tells neither: whether the client still owes bytes decides how the connection is closed, and whether an answer
//! is owed decides what the end of the client's sending half means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// A request came and its answer is not over.
const ASKED: u8 = 1;
/// The client has not sent all of the request's body.
const OWES_BODY: u8 = 2;
/// The answer's head is known.
const ANSWERED: u8 = 4;
/// The answer is sent in chunks.
const CHUNKED: u8 = 8;
/// The connection is no longer HTTP's.
const SWITCHED: u8 = 16;
/// The last answer was made by the server itself.
const OWN: u8 = 32;
/// An exchange is over, and nothing was read since.
const FRESH: u8 = 64;
/// The answer ends where its connection is closed, which has not been done in order.
const UNTIL_CLOSE: u8 = 128;

/// Stands for the length of a body in chunks.
const UNKNOWN: u64 = u64::MAX;

/// The state. Clones share it; only the connection's own task ever writes it, so nothing has to be ordered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchange(Arc<ExchangeInner>);

#[derive(Debug, Default)]
struct ExchangeInner {
    flags: AtomicU8,
    /// The bytes of the last request's body, or [`UNKNOWN`].
    body_bytes: AtomicU64,
    /// The task that waits for the answer's end, because the client's end was kept from hyper.
    reader: Mutex<Option<Waker>>,
    upload: Mutex<Upload>,
}

/// The end of a client's sending half as whoever takes the request's body meets it.
///
/// hyper looks for that end once it has passed a whole body on, and also when it needs more of one: both look the same to the
/// socket. Between hyper and whoever takes the body one piece has room. So who then finds no piece, and no end either, misses
/// a part of the body, and who finds one of them was only slower than hyper.
#[derive(Debug, Default)]
struct Upload {
    /// Nothing more comes from the client.
    no_more: bool,
    /// A part of the body is missing.
    is_cut: bool,
    /// The client is there, and waits for an answer to what it cut off.
    is_awaited: bool,
    /// The task that waits for the next piece.
    taker: Option<Waker>,
}

/// The meaning of the end of a client's sending half at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendingEnd {
    /// No request is being answered, or it broke off within one.
    Nothing,
    /// A request came whose body nobody has taken to its end: it may be whole.
    Undecided,
    /// A part of a request's body is missing, and nothing of its answer was sent.
    Cut,
    /// A whole request came and nothing of its answer was sent.
    AwaitsAnswer,
    /// Its answer is on its way.
    TakesAnswer {
        /// In chunks.
        chunked: bool,
    },
}

/// The length of a request's body on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestBody {
    Bytes(u64),
    Chunks,
}

/// The kinds of answer that a connection tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// The connection is no longer HTTP's.
    Switches,
    /// The server made it itself, whole.
    Own,
    /// It is sent in chunks.
    InChunks,
    /// Its end is the connection's: the client of HTTP/1.0 is told no length.
    UntilClose,
    /// Any other, which comes from elsewhere.
    Passed,
}

impl Exchange {
    fn flags(&self) -> u8 {
        self.0.flags.load(Ordering::Relaxed)
    }

    fn set(&self, flags: u8) {
        self.0.flags.store(flags, Ordering::Relaxed);
    }

    /// A request's head came; its body has so many bytes, if that is known.
    pub(crate) fn asked(&self, owes_body: bool, body_bytes: Option<u64>) {
        self.0.body_bytes.store(body_bytes.unwrap_or(UNKNOWN), Ordering::Relaxed);
        if owes_body {
            *self.0.upload.lock() = Upload::default();
        }
        self.set(ASKED | if owes_body { OWES_BODY } else { 0 });
    }

    /// The request's body came to its end.
    pub(crate) fn body_came(&self) {
        self.set(self.flags() & !OWES_BODY);
    }

    /// The answer's head is known.
    pub(crate) fn answered(&self, answer: AnswerKind) {
        let flags = match answer {
            AnswerKind::Switches => SWITCHED,
            AnswerKind::Own => OWN,
            AnswerKind::InChunks => CHUNKED,
            AnswerKind::UntilClose => UNTIL_CLOSE,
            AnswerKind::Passed => 0,
        };
        self.set(self.flags() | ANSWERED | flags);
    }

    /// The answer is over.
    pub(crate) fn over(&self) {
        self.set((self.flags() & !(ASKED | ANSWERED | CHUNKED)) | FRESH);
        self.wake_reader();
    }

    fn wake_reader(&self) {
        let reader = self.0.reader.lock().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The client sends nothing more: whoever waits for a piece of the body looks whether one is there.
    pub(crate) fn client_ended(&self) {
        let taker = {
            let mut upload = self.0.upload.lock();
            upload.no_more = true;
            upload.taker.take()
        };
        if let Some(taker) = taker {
            taker.wake();
        }
    }

    /// Returns whether the client is known to send nothing more. Asked before a piece of the body is looked for.
    pub(crate) fn sends_no_more(&self) -> bool {
        self.0.upload.lock().no_more
    }

    /// No piece of the body was there, nor its end, and the client was known to send nothing more, or not.
    pub(crate) fn lacks_body(&self, sends_no_more: bool, cx: &Context<'_>) {
        let mut upload = self.0.upload.lock();
        if sends_no_more {
            upload.is_cut = true;
            drop(upload);
            self.wake_reader();
        } else if upload.no_more {
            // It became known meanwhile, perhaps behind a piece.
            cx.waker().wake_by_ref();
        } else {
            upload.taker = Some(cx.waker().clone());
        }
    }

    /// The client that sends nothing more of a body has not left.
    pub(crate) fn client_waits(&self) {
        self.0.upload.lock().is_awaited = true;
    }

    /// Returns whether a body is cut off by a client that waits for its answer.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.upload.lock().is_awaited
    }

    /// Wakes this task when the answer is over, or the body turns out to be cut off.
    pub(crate) fn wake_when_over(&self, cx: &Context<'_>) {
        *self.0.reader.lock() = Some(cx.waker().clone());
    }

    /// Returns whether the client still owes a part of a request that was given up.
    pub(crate) fn owes_body(&self) -> bool {
        self.flags() & OWES_BODY != 0
    }

    /// Returns whether the answer that is written is the server's own.
    pub(crate) fn is_own(&self) -> bool {
        self.flags() & OWN != 0
    }

    /// Returns the body of the exchange that is over when nothing was read since; it is asked after each read.
    pub(crate) fn is_over(&self) -> Option<RequestBody> {
        let is_over = self.flags() & !OWN == FRESH;
        is_over.then(|| {
            self.set(self.flags() & !FRESH);
            match self.0.body_bytes.load(Ordering::Relaxed) {
                UNKNOWN => RequestBody::Chunks,
                bytes => RequestBody::Bytes(bytes),
            }
        })
    }

    /// Returns whether the connection has become a tunnel.
    pub(crate) fn is_switched(&self) -> bool {
        self.flags() & SWITCHED != 0
    }

    /// The connection is closed in order, behind everything that was to be written.
    pub(crate) fn closes(&self) {
        self.set(self.flags() & !UNTIL_CLOSE);
    }

    /// Returns whether a connection that is dropped now cuts off an answer whose client would take that for its end.
    pub(crate) fn is_cut_by_dropping(&self) -> bool {
        self.flags() & UNTIL_CLOSE != 0
    }

    pub(crate) fn standing(&self) -> SendingEnd {
        let flags = self.flags();
        if flags & (ASKED | OWES_BODY) == ASKED | OWES_BODY && !self.0.upload.lock().is_cut {
            return SendingEnd::Undecided;
        }
        match flags & (ASKED | OWES_BODY | ANSWERED) {
            ASKED => SendingEnd::AwaitsAnswer,
            flags_set if flags_set == ASKED | OWES_BODY => SendingEnd::Cut,
            flags_set if flags_set == ASKED | ANSWERED => SendingEnd::TakesAnswer { chunked: flags & CHUNKED != 0 },
            _ => SendingEnd::Nothing,
        }
    }
}
