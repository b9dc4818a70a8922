//! The count of messages that the relay of this process handed to the meter, which stands for a place in a stream.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use goldleaves_ledger::{Sequences, StreamCourse, StreamPlace};
use uuid::Uuid;

/// The word that stands for the stream's name in `ledger_progress`.
const SPOOL: &str = "spool";

/// The number of events handed over since the count began. `None` before the relay told what it remembers.
#[derive(Debug, Default)]
pub(crate) struct Handed(Mutex<Option<Count>>);

/// A count of messages, and which count it is.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    /// The count's name: a spool that is made anew begins another one, and so does a ledger that went back.
    pub(crate) course: Arc<StreamCourse>,
    /// The number of messages that are committed.
    pub(crate) messages: u64,
}

impl Handed {
    pub(crate) fn get(&self) -> Option<Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, count: Count) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(count);
    }
}

impl Count {
    /// Another count than any before.
    pub(crate) fn begin() -> Self {
        Self::of(Uuid::now_v7(), 0)
    }

    fn of(id: Uuid, messages: u64) -> Self {
        Self { course: Arc::new(StreamCourse { stream: SPOOL.to_owned(), created: id.to_string() }), messages }
    }

    pub(crate) fn place(&self, index: usize) -> StreamPlace {
        let sequence = self.messages + 1 + index as u64;
        StreamPlace { course: Arc::clone(&self.course), sequences: Sequences { first: sequence, last: sequence } }
    }
}

impl FromStr for Count {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, messages) = text.split_once(' ').ok_or(())?;
        Ok(Self::of(id.parse().map_err(drop)?, messages.parse().map_err(drop)?))
    }
}
