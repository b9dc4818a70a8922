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

/// Stands for the length of a body in chunks.
const UNKNOWN: u64 = u64::MAX;

/// The state. Clones share it; only the connection's own task ever writes it, so nothing has to be ordered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchange(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    flags: AtomicU8,
    /// The bytes of the last request's body, or [`UNKNOWN`].
    body_bytes: AtomicU64,
    /// The task that waits for the answer's end, because the client's end was kept from hyper.
    reader: Mutex<Option<Waker>>,
}

/// The meaning of the end of a client's sending half at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No request is being answered, or it broke off within one.
    Nothing,
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
pub(crate) enum Answer {
    /// The connection is no longer HTTP's.
    Switches,
    /// The server made it itself, whole.
    Own,
    /// It is sent in chunks.
    InChunks,
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
        self.set(ASKED | if owes_body { OWES_BODY } else { 0 });
    }

    /// The request's body came to its end.
    pub(crate) fn body_came(&self) {
        self.set(self.flags() & !OWES_BODY);
    }

    /// The answer's head is known.
    pub(crate) fn answered(&self, answer: Answer) {
        let flags = match answer {
            Answer::Switches => SWITCHED,
            Answer::Own => OWN,
            Answer::InChunks => CHUNKED,
            Answer::Passed => 0,
        };
        self.set(self.flags() | ANSWERED | flags);
    }

    /// The answer is over.
    pub(crate) fn over(&self) {
        self.set((self.flags() & !(ASKED | ANSWERED | CHUNKED)) | FRESH);
        let reader = self.0.reader.lock().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Wakes this task when the answer is over.
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

    pub(crate) fn standing(&self) -> Standing {
        let flags = self.flags();
        match flags & (ASKED | OWES_BODY | ANSWERED) {
            ASKED => Standing::AwaitsAnswer,
            flags_set if flags_set == ASKED | ANSWERED => Standing::TakesAnswer { chunked: flags & CHUNKED != 0 },
            _ => Standing::Nothing,
        }
    }
}
