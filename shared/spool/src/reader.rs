//! Reading what is durable, in order.
//!
//! There is one reader that matters (the relay's); [`History`] reads beside it and moves nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::SpoolError;
use crate::frame::FrameKind;
use crate::ids::Lsn;
use crate::scan::{Gap, OnReadError, Scan, ScanStep, ScannedFrame};
use crate::shared::SpoolShared;
use crate::threads::Threads;

/// The times that a position is tried before its unreadable pages are passed over.
const READ_ATTEMPTS: u32 = 8;

/// The kinds of record that are handed out.
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
    /// The argument for [`Spool::advance`](crate::Spool::advance) once it and all before it were acknowledged.
    pub next_lsn: Lsn,
    /// The kind of the record.
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
    fn of(frame: ScannedFrame) -> Option<Self> {
        let head = frame.head;
        let kind = match head.kind {
            FrameKind::Publish => RecordKind::Publish { seq: head.seq },
            FrameKind::Note => RecordKind::Note,
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

/// Hands out durable records from the cursor on. Making a new one (or [`Spool::rewind`](crate::Spool::rewind)) takes the place of the old.
pub struct Reader {
    shared: Arc<SpoolShared>,
    /// Keeps the spool open.
    _threads: Arc<Threads>,
    scan: Scan,
    generation: u64,
    failures: u32,
}

impl Reader {
    pub(crate) fn new(shared: &Arc<SpoolShared>, threads: &Arc<Threads>) -> Self {
        let (position, generation) = {
            let mut relay = shared.relay.lock();
            let (cursor, records) = (relay.cursor(), relay.acknowledged_records);
            relay.back_to(cursor, records);
            (relay.position, relay.generation)
        };
        let (shared, scan) = (Arc::clone(shared), Scan::new(position, OnReadError::Fail));
        Self { shared, _threads: Arc::clone(threads), scan, generation, failures: 0 }
    }

    /// The next records: at most `records_max`, ending with the one that reaches `bytes_max`. Empty when nothing durable
    /// is left. Reads files (mostly from the page cache), so it may block for a moment.
    ///
    /// # Errors
    /// When a segment cannot be read. Asking again tries again; after some failures the unreadable pages are passed over,
    /// counted and logged.
    pub fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Vec<Record>, SpoolError> {
        let shared = Arc::clone(&self.shared);
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

    fn follow_rewind(&mut self, shared: &SpoolShared) {
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
        let mut progress = self.shared.syncing.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            if self.shared.relay.lock().position < now.durable {
                return Ok(());
            }
            if now.closed || progress.changed().await.is_err() {
                return Err(SpoolError::Closed);
            }
        }
    }
}

/// Reads retained records beside the relay, without moving the cursor. Made by [`Spool::history`](crate::Spool::history).
pub struct History {
    shared: Arc<SpoolShared>,
    /// Keeps the spool open.
    _threads: Arc<Threads>,
    scan: Scan,
}

impl History {
    pub(crate) fn new(shared: &Arc<SpoolShared>, threads: &Arc<Threads>, from: Lsn) -> Self {
        let scan = Scan::new(from.0, OnReadError::Skip);
        Self { shared: Arc::clone(shared), _threads: Arc::clone(threads), scan }
    }

    /// Works like [`Reader::next_batch`]; pages that cannot be read are passed over.
    ///
    /// # Errors
    /// None at present; kept for symmetry with the reader.
    pub fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Vec<Record>, SpoolError> {
        read(&self.shared, &mut self.scan, records_max, bytes_max).map_err(SpoolError::Read)
    }
}

fn read(shared: &SpoolShared, scan: &mut Scan, records_max: usize, bytes_max: usize) -> std::io::Result<Vec<Record>> {
    let (segments, durable) = {
        let log = shared.log.lock();
        (Arc::clone(&log.segments), log.durable)
    };
    let mut records = Vec::new();
    let mut bytes = 0;
    while records.len() < records_max && bytes < bytes_max {
        match scan.step(&segments, durable) {
            Ok(ScanStep::Frame(frame)) => {
                let record = Record::of(frame);
                bytes += record.as_ref().map_or(0, |record| record.payload.len());
                records.extend(record);
            }
            Ok(ScanStep::Gap(gap)) => report(shared, &gap),
            Ok(ScanStep::End) => break,
            Err(_) if !records.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

fn report(shared: &SpoolShared, gap: &Gap) {
    let bytes = gap.to.saturating_sub(gap.from);
    shared.unreadable_bytes.fetch_add(bytes, Ordering::Relaxed);
    tracing::error!(
        path = %gap.segment.path.display(), offset = gap.segment.offset(gap.from), bytes,
        "bytes of the spool hold no good record and were passed over"
    );
}
