//! The public face: the operations of a spool. Each is a few lines over the modules that know; options, ids and what was
//! recovered stand below them in files of their own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::clock::unix_secs;
use crate::durability::DurabilityWait;
use crate::error::{AppendError, MemoTooLarge, OpenError, SpoolError};
use crate::frame::FrameKind;
use crate::fs::FileSystem;
use crate::ids::{Appended, IntentId, Lsn};
use crate::log::LogEntry;
use crate::options::SpoolOptions;
use crate::reader::{History, Reader};
use crate::recover;
use crate::recovered::Recovered;
use crate::shared::SpoolShared;
use crate::state::MEMO_BYTES_MAX;
use crate::threads::Threads;

/// Numbers for metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Segments that hold records.
    pub segments: usize,
    /// Segments ready to be used.
    pub spares: usize,
    /// Records not acknowledged.
    pub unsent_records: u64,
    /// Bytes of the log that are not acknowledged, of every kind of record.
    pub unsent_bytes: u64,
    /// Age of the oldest record not acknowledged; `None` when there is none.
    pub oldest_unsent: Option<Duration>,
    /// Intents without a settlement.
    pub open_intents: usize,
    /// True if an intent would be taken now.
    pub writable: bool,
    /// Everything before is durable.
    pub durable: Lsn,
    /// The next append's place.
    pub end: Lsn,
    /// The number of this epoch's last PUBLISH.
    pub last_seq: u64,
    /// Records of this epoch that could not be appended.
    pub unrecorded: u64,
    /// True if appended bytes wait in memory that outlives the process, so that no append waits for the disk.
    pub staged: bool,
    /// True if this start did not find the stage of the last ([`Recovered::lost_stage`]).
    pub lost_stage: bool,
    /// True if the disk does not answer.
    pub stands_still: bool,
    /// Bytes that the reader had to pass over since the start.
    pub unreadable_bytes: u64,
}

/// An open spool. Clones are handles to the same one; the last to go closes it.
#[derive(Clone)]
pub struct Spool {
    pub(crate) shared: Arc<SpoolShared>,
    threads: Arc<Threads>,
}

impl Spool {
    /// Opens the directory: recovers what earlier epochs left and begins a new one. Blocks.
    ///
    /// When the disk has no room for the first segment it opens all the same: what earlier epochs left is handed on, what
    /// could not be appended is counted, and appends are taken as soon as there is room ([`Spool::is_writable`]).
    ///
    /// # Errors
    /// When another process has it open, an option makes no sense, or the file system refuses.
    pub fn open(options: SpoolOptions, fs: impl FileSystem) -> Result<(Self, Recovered), OpenError> {
        options.check()?;
        let directory = options.directory.clone();
        let (shared, recovered) = recover::open(options, Arc::new(fs))?;
        let shared = Arc::new(shared);
        let threads = Threads::start(&shared).map_err(OpenError::io("start a thread for", &directory))?;
        Ok((Self { shared, threads: Arc::new(threads) }, recovered))
    }

    /// Without threads: tests take every step themselves.
    #[cfg(test)]
    pub(crate) fn open_stepped(options: SpoolOptions, fs: Arc<dyn FileSystem>) -> Result<(Self, Recovered), OpenError> {
        options.check()?;
        let (shared, recovered) = recover::open(options, fs)?;
        Ok((Self { shared: Arc::new(shared), threads: Arc::new(Threads::default()) }, recovered))
    }

    /// The spool's id, kept in the directory for ever.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    /// This opening's epoch (a UUIDv7).
    #[must_use]
    pub fn epoch(&self) -> Uuid {
        self.shared.epoch
    }

    // === appending ===

    /// Appends an INTENT and reserves the room for its settlement.
    ///
    /// # Errors
    /// When there is no room or the file system does not work; then nothing was appended.
    pub fn intent(&self, version: u8, payload: &[u8]) -> Result<IntentId, AppendError> {
        let entry = LogEntry::new(FrameKind::Intent, version, payload);
        self.shared.with_log(|log| log.intent(entry))
    }

    /// Settles an intent with a record that is handed on.
    ///
    /// # Errors
    /// When the intent is not open or the spool is closed. For lack of room only when the payload is larger than what
    /// was reserved.
    pub fn publish(&self, intent: IntentId, version: u8, payload: &[u8]) -> Result<Appended, AppendError> {
        let entry = LogEntry::new(FrameKind::Publish, version, payload);
        self.shared.with_log(|log| log.settle(intent, entry))
    }

    /// Settles an intent with nothing to hand on; the payload says why.
    ///
    /// # Errors
    /// As [`Spool::publish`].
    pub fn void(&self, intent: IntentId, payload: &[u8]) -> Result<Lsn, AppendError> {
        let entry = LogEntry::new(FrameKind::Void, 1, payload);
        self.shared.with_log(|log| log.settle(intent, entry)).map(|appended| appended.lsn)
    }

    /// Appends a record that is handed on without intent and without seq.
    ///
    /// # Errors
    /// As [`Spool::intent`].
    pub fn note(&self, version: u8, payload: &[u8]) -> Result<Lsn, AppendError> {
        let entry = LogEntry::new(FrameKind::Note, version, payload);
        self.shared.with_log(|log| log.note(entry))
    }

    /// Counts one record that could not be appended, for this epoch; the count survives `kill -9`, needs no room and waits for
    /// no disk.
    pub fn unrecorded(&self) {
        self.unrecorded_before(1);
    }

    /// Counts as many records that could not be appended, because there was no spool to count them yet.
    pub fn unrecorded_before(&self, count: u64) {
        if count > 0 {
            self.shared.unrecorded.add(count);
        }
    }

    /// Says that an epoch's end is recorded: recovery need not report it again. Any epoch, also this one.
    ///
    /// # Errors
    /// As [`Spool::intent`].
    pub fn close_epoch(&self, epoch: Uuid) -> Result<Lsn, AppendError> {
        self.shared.with_log(|log| log.close_epoch(epoch))
    }

    // === durability ===

    /// Resolves when the record at `lsn` survives a power cut.
    ///
    /// # Errors
    /// When it cannot be made durable now (it may become so later), or the spool was closed before it was.
    pub fn durable(&self, lsn: Lsn) -> impl Future<Output = Result<(), SpoolError>> + Send + use<> {
        DurabilityWait::new(&self.shared, lsn.0)
    }

    /// Resolves when everything appended so far is durable.
    ///
    /// # Errors
    /// As [`Spool::durable`].
    pub async fn sync_all(&self) -> Result<(), SpoolError> {
        let end = self.shared.log.lock().end();
        self.durable(Lsn(end.saturating_sub(1))).await
    }

    /// Takes no more records, makes all durable, persists the cursor, ends the threads. Blocks. Open intents are the next
    /// start's orphans.
    pub fn close(&self) {
        self.threads.stop();
    }

    // === handing on ===

    /// Everything before was acknowledged.
    #[must_use]
    pub fn cursor(&self) -> Lsn {
        Lsn(self.shared.relay.lock().cursor())
    }

    /// A reader from the cursor on. It takes the place of any earlier one.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(&self.shared, &self.threads)
    }

    /// Reads retained records from `from` on (`None`: the oldest), acknowledged or not, beside the reader.
    #[must_use]
    pub fn history(&self, from: Option<Lsn>) -> History {
        let oldest = self.shared.log.lock().segments.first().map_or(0, |segment| segment.first());
        History::new(&self.shared, &self.threads, from.unwrap_or(Lsn(oldest)))
    }

    /// Everything before `next_lsn` was acknowledged. Returns at once; the cursor becomes durable in the background and
    /// only then is anything deleted. What the reader has not handed out since the last rewind cannot be acknowledged.
    pub fn advance(&self, next_lsn: Lsn) {
        if self.shared.relay.lock().advance(next_lsn.0, None) {
            self.shared.keeper.cursor_moved();
        }
    }

    /// Works like [`Spool::advance`], with at most [`MEMO_BYTES_MAX`] bytes that are kept with the cursor and given back by the
    /// next start ([`Recovered::memo`]): whoever derives something from what it reads keeps there what it derived from all
    /// that lies before the cursor, for that may be deleted. They become durable with the cursor or, in the moment before a
    /// crash, neither does.
    ///
    /// # Errors
    /// A memo that is too large; then the cursor does not move.
    pub fn advance_with(&self, next_lsn: Lsn, memo: Bytes) -> Result<(), MemoTooLarge> {
        if memo.len() > MEMO_BYTES_MAX {
            return Err(MemoTooLarge { bytes: memo.len() });
        }
        if self.shared.relay.lock().advance(next_lsn.0, Some(memo)) {
            self.shared.keeper.cursor_moved();
        }
        Ok(())
    }

    /// Sends the reader back to the oldest retained record and returns its place. Durable when it returns; blocks.
    ///
    /// # Errors
    /// When the cursor could not be persisted: the reader is sent back all the same, but a crash may undo it.
    pub fn rewind(&self) -> Result<Lsn, SpoolError> {
        self.shared.go_back(0).map(|(lsn, _)| lsn).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the reader could not be sent back for good");
            SpoolError::Unwritable
        })
    }

    /// Returns the reason an intent would not be taken now; asks no disk.
    #[must_use]
    pub fn refuses(&self) -> Option<AppendError> {
        self.shared.log.lock().refuses()
    }

    /// Returns whether an intent would be taken now; asks no disk.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.refuses().is_none()
    }

    /// Returns whether the disk has been at the same write for so long that it is not to be waited for.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.shared.syncing.stall.stands_still()
    }

    /// Numbers for metrics; asks no disk.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (cursor, acknowledged_records) = {
            let relay = self.shared.relay.lock();
            (relay.cursor(), relay.acknowledged_records)
        };
        let log = self.shared.log.lock();
        let unsent = |end: u64, first: u64| end.saturating_sub(first.max(cursor));
        let writing = log.writing.back().map(|active| active.segment.header.number);
        let ended = log.segments.iter().filter(|segment| Some(segment.header.number) != writing);
        let active = log.segments.iter().find(|segment| Some(segment.header.number) == writing);
        let unsent_records = log.relayed.saturating_sub(acknowledged_records);
        let age = |secs: u64| Duration::from_secs(unix_secs().saturating_sub(secs));
        Stats {
            bytes: log.bytes(),
            segments: log.segments.len(),
            spares: log.spares.len(),
            unsent_records,
            unsent_bytes: ended.map(|segment| unsent(segment.end(), segment.first())).sum::<u64>()
                + active.map_or(0, |active| unsent(log.end(), active.first())),
            oldest_unsent: (unsent_records > 0).then(|| log.times.at(cursor).map_or(Duration::ZERO, age)),
            open_intents: log.open.len(),
            writable: log.refuses().is_none(),
            durable: Lsn(log.durable),
            end: Lsn(log.end()),
            last_seq: log.last_seq,
            unrecorded: self.shared.unrecorded.count(),
            staged: log.chunks.is_staged(),
            lost_stage: self.shared.lost_stage,
            stands_still: self.shared.syncing.stall.stands_still(),
            unreadable_bytes: self.shared.unreadable_bytes.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("id", &self.shared.id).field("epoch", &self.shared.epoch).finish_non_exhaustive()
    }
}
