//! The findings of the opening of a spool about earlier epochs, as its caller sees them. How they are found is in
//! `recover.rs`.

use std::path::PathBuf;

use bytes::Bytes;
use uuid::Uuid;

use crate::ids::{IntentId, Lsn};

/// An intent of an earlier epoch without a settlement. It stays open until it is published or voided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// To settle it by.
    pub intent: IntentId,
    /// The payload's version, as given.
    pub version: u8,
    /// The payload, as given.
    pub payload: Bytes,
}

/// An earlier epoch whose end nobody has recorded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRecord {
    /// The epoch's id.
    pub epoch: Uuid,
    /// The number of its last PUBLISH, 0 when there was none.
    pub last_seq: u64,
    /// Records that could not be appended.
    pub unrecorded: u64,
    /// Where its retained records begin, for [`Spool::history`](crate::Spool::history).
    pub first_lsn: Option<Lsn>,
}

/// The findings at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The epoch that begins now.
    pub epoch: Uuid,
    /// Open intents, in LSN order.
    pub orphans: Vec<Orphan>,
    /// Earlier epochs that [`Spool::close_epoch`](crate::Spool::close_epoch) was not called for, oldest first.
    pub epochs: Vec<EpochRecord>,
    /// Stretches of unreadable bytes set aside now.
    pub quarantined: u64,
    /// Their bytes.
    pub quarantined_bytes: u64,
    /// Records that wait to be handed on.
    pub unsent: u64,
    /// Where the stage of the last start lay, when it is gone though the machine was not started again: what the disk had not
    /// got yet is lost.
    pub lost_stage: Option<PathBuf>,
    /// The last memo of [`Spool::advance_with`](crate::Spool::advance_with) that is durable; empty when there was none, or when it was lost with the
    /// cursor.
    pub memo: Bytes,
}
