//! A gateway's statement of what it handed out, for the ledger to be compared with.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::hex::{self, Hex};
use crate::json::Append;
use crate::{Epoch, Source, Timestamp, UsageEvent};

/// A statement about one epoch, made every few seconds, at stop, and at recovery for the epoch that died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Its own UUIDv7, also the `Nats-Msg-Id`.
    pub id: Uuid,
    /// The gateway that says so.
    pub source: Source,
    /// When it says so.
    pub ts: Timestamp,
    /// The epoch it speaks of.
    pub epoch: Epoch,
    /// The highest sequence number given, 0 for none.
    pub last_seq: u64,
    /// The events handed out.
    pub count: u64,
    /// The billable requests that were served but could not be recorded.
    pub unrecorded: u64,
    /// True if the epoch is over: nothing follows.
    pub closed: bool,
    /// The blocks that changed since the seal before, each as it is now.
    pub blocks: Vec<SealBlock>,
}

impl Seal {
    /// Sequence numbers in a block.
    pub const BLOCK_EVENTS: u64 = 1_024;

    /// The block a sequence number (from 1) lies in.
    pub const fn block_of(seq: u64) -> u64 {
        seq.saturating_sub(1) / Self::BLOCK_EVENTS
    }
}

/// One block of [`Seal::BLOCK_EVENTS`] sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealBlock {
    /// Its number within the epoch, from 0.
    pub block: u64,
    /// The events in it, 0 to 1,024.
    pub count: u32,
    /// The set hash of its events.
    pub hash: SetHash,
}

/// A hash of a set of events that does not depend on their order: the XOR of their digests.
///
/// Inserting an event a second time takes it out again, so whoever inserts must know that it is new (receipts keep a
/// bitmap). It finds what was lost, doubled or changed; it is no proof against somebody who can choose hundreds of
/// events freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SetHash([u8; 32]);

impl SetHash {
    /// The hash of no event.
    pub const EMPTY: Self = Self([0; 32]);

    /// Takes the hash as it was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To be kept.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Adds an event.
    pub fn insert(&mut self, event: &UsageEvent) {
        self.insert_digest(&event.digest());
    }

    /// Adds an event whose digest is known.
    pub fn insert_digest(&mut self, digest: &[u8; 32]) {
        self.0.iter_mut().zip(digest).for_each(|(byte, other)| *byte ^= other);
    }
}

/// 64 lower-case hex digits.
impl fmt::Display for SetHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(out)
    }
}

impl Append for SetHash {
    fn append(&self, text: &mut String) {
        text.push_str(&hex::hex_text(&self.0));
    }
}

/// A text that is no set hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a set hash is 64 lower-case hex digits")]
pub struct SetHashError;

impl FromStr for SetHash {
    type Err = SetHashError;

    fn from_str(text: &str) -> Result<Self, SetHashError> {
        hex::parse_32(text).map(Self).ok_or(SetHashError)
    }
}
