//! A durable local log of byte records: what is written here survives the process, and soon after the machine.
//!
//! # Limits and invariants
//! - One process writes a directory (`flock`); any number may look ([`inspect`]).
//! - An append returns when the bytes are in memory of the kernel's, so that they survive `kill -9`. It waits for one short mutex,
//!   never for a disk: the mutex is never held while a disk works. [`Spool::durable`] resolves when they survive a power cut.
//! - LSNs are global and grow; an LSN names one content for ever. `seq` counts the PUBLISH records of an epoch from 1 and is
//!   given inside the append, so it has no gaps. An epoch is one opening of the spool.
//! - Each INTENT is settled at most once, by a PUBLISH or a VOID. It reserves the room for its settlement (its own payload
//!   and [`SpoolOptions::settlement_slack`]): within that, settling never fails for lack of room.
//! - Every durable PUBLISH and NOTE is read once, in LSN order, until it is acknowledged; after a crash again from the cursor
//!   on. Nothing unacknowledged is ever deleted, and the cursor is durable before anything is.
//! - Nothing depends on old segments: each begins with a list of where the open intents lie and of all epochs not closed, and
//!   an open intent is copied to the end of the log before the segment that holds it goes.
//! - Payloads are at most 64 KiB (a sixteenth of a segment if that is less). The list of open intents takes at
//!   most a quarter of a segment (16 bytes each); the room for their settlements is reserved. Resident memory is bounded by
//!   the open intents (some 50 bytes each), the stage and a few windows of 256 KiB.
//! - Deliberately absent: compression, encryption, checks of payloads, random access, more than one writer, and any idea of
//!   what a record means.
//!
//! # Bytes on disk
//! `state` (see `state.rs`): two checksummed pages with spool id, cursor with memo and past, floor, checkpoint, unrecorded counts. `lock`: empty.
//! `resend`: a wish (see `resend.rs`). The stage (see `stage.rs`) lies on a tmpfs, not here.
//! `quarantine/`: bytes that were no record. `NNNNNNNNNNNNNNNN.seg`: a segment, `N` its number in hex:
//!
//! ```text
//! 0      header: magic "GLSPOOL\0", crc32c of the rest, u32 format, spool id, epoch, u64 base, capacity, number, created
//! 4096   the same header again
//! 8192   frames, each at a multiple of 8; a frame's LSN is base + its offset; zeros up to the capacity until trimmed
//!
//! frame  u32 crc32c of payload then head[4..] | u32 payload bytes | u64 lsn | u8 kind | u8 version | u16 0 | u32 unix secs |
//!        u64 link (the intent settled or carried) | u64 seq | payload | zeros to a multiple of 8
//! kinds  1 INTENT  2 PUBLISH  3 VOID  4 NOTE  5 CARRIED  6 START  7 EPOCH OPEN  8 EPOCH CLOSED  9 OPEN IDS
//! ```
//! All integers are little-endian. Because a frame holds its own LSN, no stale or misplaced bytes are ever taken for a record,
//! and a reader finds the next good one behind any damage.
//!
//! # Writing, reading, deleting
//! `log.rs` appends: head and payload are copied into the stage (`tail.rs`) and stay there until they are durable. `sync.rs` writes to the
//! segment and syncs whatever came while the last sync ran, in a thread of its own, and wakes those who wait (`waiters.rs`); a segment whose sync failed is never synced again, its tail is written into a new one under the same LSNs. `keep.rs`, the other thread, prepares
//! segments ahead, persists the cursor, then deletes. `scan.rs` reads over damage, `reader.rs` hands out, `cursor.rs` remembers what was
//! acknowledged. `room.rs` is the one account of room. `survey.rs` finds out what a directory holds, `recover.rs` makes that durable and opens a new epoch.

mod clock;
mod cursor;
mod durability;
mod error;
mod frame;
mod fs;
mod ids;
mod inspect;
mod keep;
mod keeper;
mod log;
mod options;
mod past;
mod quarantine;
mod reader;
mod recover;
mod recovered;
mod resend;
mod restore;
mod room;
mod scan;
mod segment;
mod shared;
mod spool;
mod stage;
mod stage_note;
mod stall;
mod state;
mod survey;
mod sync;
mod syncing;
mod tail;
#[cfg(test)]
mod tests;
mod threads;
mod times;
mod unrecorded;
mod waiters;

pub use error::{AppendError, MemoTooLarge, OpenError, SpoolError};
pub use fs::{FileSystem, OpenMode, RealFileSystem, SpoolFile};
pub use ids::{Appended, IntentId, Lsn};
pub use inspect::{Inspection, inspect, inspect_since};
pub use options::{SEGMENT_BYTES_MIN, STAGE_DIRECTORY, SpoolOptions};
pub use reader::{History, Reader, Record, RecordKind};
pub use recovered::{EpochRecord, Orphan, Recovered};
pub use resend::{ask_resend, is_resend_asked};
pub use spool::{Spool, Stats};
pub use stage::{DirectoryIdentity, Stage};
pub use state::MEMO_BYTES_MAX;
