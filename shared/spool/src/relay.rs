//! Reading what is durable, in order, and remembering what was acknowledged.
//!
//! There is one reader that matters (the relay's); [`History`] reads beside it and moves nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::SpoolError;
use crate::frame::Kind;
use crate::past::Past;
use crate::scan::{Frame, Gap, OnReadError, Scan, Step};
use crate::shared::Shared;
use crate::{Lsn, Spool, unix_secs};

/// So often a position is tried again before its unreadable pages are passed over.
const READ_ATTEMPTS: u32 = 8;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A settlement to be handed on.
    Publish {
        /// Its place in the epoch, from 1.
        seq: u64,
    },
    /// A note to be handed on.
    Note,
}

/// A record as handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its LSN.
    pub lsn: Lsn,
    /// What to give [`Spool::advance`] once it and all before it were acknowledged.
    pub next_lsn: Lsn,
    /// What it is.
    pub kind: RecordKind,
    /// The payload's version, as given at the append.
    pub version: u8,
    /// The epoch it was appended in.
    pub epoch: Uuid,
    /// When it was appended, seconds since 1970.
    pub unix_secs: u32,
    /// The bytes.
    pub payload: Bytes,
}

impl Record {
    fn of(frame: Frame) -> Option<Self> {
        let head = frame.head;
        let kind = match head.kind {
            Kind::Publish => RecordKind::Publish { seq: head.seq },
            Kind::Note => RecordKind::Note,
            _ => return None,
        };
        Some(Self {
            lsn: Lsn(head.lsn),
            next_lsn: Lsn(head.end()),
            kind,
            version: head.version,
            epoch: frame.epoch,
            unix_secs: head.unix_secs,
            payload: frame.payload,
        })
    }
}

/// Where the reader is and what was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    pub(crate) position: u64,
    pub(crate) acknowledged: u64,
    /// What is kept with the cursor.
    pub(crate) memo: Bytes,
    /// How many relayed records of the whole log lie before `acknowledged`.
    pub(crate) acknowledged_records: u64,
    /// Ends of what was handed out and not acknowledged.
    pub(crate) delivered: VecDeque<u64>,
    pub(crate) generation: u64,
    pub(crate) past: Past,
}

impl Relay {
    /// Every relayed record before this LSN was acknowledged. With nothing in flight that is all that was read, also
    /// where the last thing read was not a relayed record.
    pub(crate) fn cursor(&self) -> u64 {
        if self.delivered.is_empty() { self.position.max(self.acknowledged) } else { self.acknowledged }
    }

    pub(crate) fn advance(&mut self, next: u64, memo: Option<Bytes>) -> bool {
        if let Some(memo) = memo {
            self.memo = memo;
        }
        let next = next.min(self.position);
        if next <= self.acknowledged {
            return false;
        }
        self.acknowledged = next;
        while self.delivered.front().is_some_and(|end| *end <= next) {
            self.delivered.pop_front();
            self.acknowledged_records += 1;
        }
        true
    }

    pub(crate) fn back_to(&mut self, lsn: u64, records_before: u64) {
        self.position = lsn;
        self.acknowledged = lsn;
        self.acknowledged_records = records_before;
        self.delivered.clear();
        self.generation += 1;
    }

    /// Every relayed record before this LSN was acknowledged so long ago that no receiver loses it any more.
    pub(crate) fn settled(&mut self, after: Duration) -> Past {
        let cursor = self.cursor();
        self.past.follow(cursor, (unix_secs(), after.as_secs()));
        self.past
    }
}

/// Hands out durable records from the cursor on. Making a new one (or [`Spool::rewind`]) takes the place of the old.
pub struct Reader {
    spool: Spool,
    scan: Scan,
    generation: u64,
    failures: u32,
}

impl Reader {
    pub(crate) fn new(spool: Spool) -> Self {
        let (position, generation) = {
            let mut relay = spool.shared.relay.lock();
            let (cursor, records) = (relay.cursor(), relay.acknowledged_records);
            relay.back_to(cursor, records);
            (relay.position, relay.generation)
        };
        Self { spool, scan: Scan::new(position, OnReadError::Fail), generation, failures: 0 }
    }

    /// The next records: at most `records_max`, ending with the one that reaches `bytes_max`. Empty when nothing durable
    /// is left. Reads files (mostly from the page cache), so it may block for a moment.
    ///
    /// # Errors
    /// When a segment cannot be read. Asking again tries again; after some failures the unreadable pages are passed over,
    /// counted and logged.
    pub fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Vec<Record>, SpoolError> {
        let shared = Arc::clone(&self.spool.shared);
        self.follow_rewind(&shared);
        let read = read(&shared, &mut self.scan, records_max, bytes_max);
        let records = match read {
            Ok(records) => {
                self.failures = 0;
                self.scan.set_on_error(OnReadError::Fail);
                records
            }
            Err(error) => {
                self.failures += 1;
                if self.failures >= READ_ATTEMPTS {
                    self.scan.set_on_error(OnReadError::Skip);
                }
                return Err(SpoolError::Read(error));
            }
        };
        let mut relay = shared.relay.lock();
        if relay.generation != self.generation {
            return Ok(Vec::new());
        }
        relay.position = self.scan.pos();
        relay.delivered.extend(records.iter().map(|record| record.next_lsn.0));
        Ok(records)
    }

    fn follow_rewind(&mut self, shared: &Shared) {
        let relay = shared.relay.lock();
        if relay.generation != self.generation {
            self.generation = relay.generation;
            self.scan = Scan::new(relay.position, OnReadError::Fail);
        }
    }

    /// Waits until something durable lies ahead (not necessarily a record that is handed out).
    ///
    /// # Errors
    /// [`SpoolError::Closed`] when the spool was closed and everything was read.
    pub async fn wait_ready(&mut self) -> Result<(), SpoolError> {
        let mut progress = self.spool.shared.progress.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            if self.spool.shared.relay.lock().position < now.durable {
                return Ok(());
            }
            if now.closed || progress.changed().await.is_err() {
                return Err(SpoolError::Closed);
            }
        }
    }
}

/// Reads retained records beside the relay, without moving the cursor. Made by [`Spool::history`].
pub struct History {
    spool: Spool,
    scan: Scan,
}

impl History {
    pub(crate) fn new(spool: Spool, from: Lsn) -> Self {
        Self { spool, scan: Scan::new(from.0, OnReadError::Skip) }
    }

    /// As [`Reader::next_batch`]; pages that cannot be read are passed over.
    ///
    /// # Errors
    /// None at present; kept for symmetry with the reader.
    pub fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Vec<Record>, SpoolError> {
        read(&self.spool.shared, &mut self.scan, records_max, bytes_max).map_err(SpoolError::Read)
    }
}

fn read(shared: &Shared, scan: &mut Scan, records_max: usize, bytes_max: usize) -> std::io::Result<Vec<Record>> {
    let (segments, durable) = {
        let log = shared.log.lock();
        (Arc::clone(&log.segments), log.durable)
    };
    let mut records = Vec::new();
    let mut bytes = 0;
    while records.len() < records_max && bytes < bytes_max {
        match scan.step(&segments, durable) {
            Ok(Step::Frame(frame)) => {
                let record = Record::of(frame);
                bytes += record.as_ref().map_or(0, |record| record.payload.len());
                records.extend(record);
            }
            Ok(Step::Gap(gap)) => report(shared, &gap),
            Ok(Step::End) => break,
            Err(_) if !records.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

fn report(shared: &Shared, gap: &Gap) {
    let bytes = gap.to.saturating_sub(gap.from);
    shared.unreadable_bytes.fetch_add(bytes, Ordering::Relaxed);
    tracing::error!(
        path = %gap.segment.path.display(), offset = gap.segment.offset(gap.from), bytes,
        "bytes of the spool hold no good record and were passed over"
    );
}
