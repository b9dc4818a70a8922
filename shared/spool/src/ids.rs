//! The names of records: where one lies, and which settlement an intent waits for. Below everything that uses them.

use std::fmt;

/// A place in the log. Grows with every append, over all epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub(crate) u64);

impl Lsn {
    /// Returns it as a number.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An intent that owes a settlement: the LSN it was first appended at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(pub(crate) u64);

impl IntentId {
    /// Where the intent is, to wait for it to be durable.
    #[must_use]
    pub fn lsn(self) -> Lsn {
        Lsn(self.0)
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A settlement that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where.
    pub lsn: Lsn,
    /// Its place in the epoch, from 1 (0 for a VOID, which is not counted).
    pub seq: u64,
}
