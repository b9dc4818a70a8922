//! The writer's state, all of it under one mutex: the segments being written, the room, the open intents.
//!
//! Pure memory but for the copies into mappings; never waits for a disk. Invariant (the *promise*): the room that is left
//! in the active segment and in the spares is enough for the reserved settlements of all open intents, counting what is
//! lost at the end of each segment and what each new segment carries.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::AppendError;
use crate::frame::{EpochMark, HEAD, Head, Kind, PAYLOAD_BYTES_MAX, Start, frame_bytes};
use crate::fs::Mapping;
use crate::segment::{DATA, Segment};
use crate::tail::Tail;
use crate::{Appended, IntentId, Lsn, unix_secs};

const PADDING: [u8; 8] = [0; 8];

/// A segment with bytes that are not durable yet. The last one is the active one.
pub(crate) struct Writing {
    pub(crate) segment: Arc<Segment>,
    pub(crate) map: Box<dyn Mapping>,
    pub(crate) tail: Tail,
    pub(crate) end: u64,
    pub(crate) synced: u64,
    pub(crate) sealed: bool,
    /// A sync failed: it must not be tried again, the tail goes to a new segment.
    pub(crate) poisoned: bool,
    /// Something of this file was synced: it may be the only durable place of what lies in it.
    pub(crate) ever_synced: bool,
    /// Files that are not needed once this one is synced.
    pub(crate) supersedes: Vec<Arc<Segment>>,
}

/// What a sync made superfluous; to be dropped and removed outside of the lock.
#[derive(Default)]
pub(crate) struct Freed {
    /// Sealed and durable.
    pub(crate) done: Vec<Writing>,
    /// Written anew elsewhere, durably.
    pub(crate) superseded: Vec<Arc<Segment>>,
}

impl Writing {
    pub(crate) fn new(spare: Spare) -> Self {
        let first = spare.segment.first();
        Self {
            segment: spare.segment,
            map: spare.map,
            tail: Tail::default(),
            end: first,
            synced: first,
            sealed: false,
            poisoned: false,
            ever_synced: false,
            supersedes: Vec::new(),
        }
    }
}

/// A segment that is ready to become the active one.
pub(crate) struct Spare {
    pub(crate) segment: Arc<Segment>,
    pub(crate) map: Box<dyn Mapping>,
}

/// An intent that owes a settlement.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) version: u8,
    pub(crate) payload: Bytes,
    pub(crate) reserved: u64,
}

impl Open {
    pub(crate) fn new(version: u8, payload: Bytes, slack: usize) -> Self {
        let reserved = frame_bytes(payload.len() + slack);
        Self { version, payload, reserved }
    }

    pub(crate) fn carried_bytes(&self) -> u64 {
        frame_bytes(self.payload.len())
    }
}

/// A record to be appended.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) version: u8,
    pub(crate) link: u64,
    pub(crate) payload: &'a [u8],
    pub(crate) payload_crc: u32,
}

impl<'a> Entry<'a> {
    /// Sums the payload up; done before the lock is taken.
    pub(crate) fn new(kind: Kind, version: u8, payload: &'a [u8]) -> Self {
        Self { kind, version, link: 0, payload, payload_crc: crc32c::crc32c(payload) }
    }

    fn bytes(&self) -> u64 {
        frame_bytes(self.payload.len())
    }
}

/// What the sync thread works on next.
pub(crate) struct Target {
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    pub(crate) poisoned: bool,
}

pub(crate) struct Log {
    pub(crate) writing: VecDeque<Writing>,
    pub(crate) spares: VecDeque<Spare>,
    /// All segments that can be read, by first LSN; spares are not among them.
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) open: BTreeMap<u64, Open>,
    pub(crate) open_bytes: u64,
    pub(crate) reserved: u64,
    pub(crate) epoch: Uuid,
    pub(crate) last_seq: u64,
    /// Whether this epoch holds anything of its own.
    pub(crate) used: bool,
    /// Relayed records in the log, ever.
    pub(crate) relayed: u64,
    /// Epochs of earlier starts that nobody closed.
    pub(crate) earlier: Vec<EpochMark>,
    /// Closings whose frames may not be durable yet.
    pub(crate) closings: Vec<(u64, Uuid)>,
    /// Where recovery could begin once the first LSN is durable.
    pub(crate) checkpoints: VecDeque<(u64, u64)>,
    /// Sealed and durable, to be trimmed.
    pub(crate) finished: Vec<Arc<Segment>>,
    /// Deleted by the floor, their files not removed yet.
    pub(crate) garbage: Vec<Arc<Segment>>,
    pub(crate) durable: u64,
    pub(crate) slack: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) segment_bytes: u64,
    /// How many segments are kept ready.
    pub(crate) spares_min: usize,
    /// The base of the segment after the last spare.
    pub(crate) next_base: u64,
    /// Why there is no further spare.
    pub(crate) obstacle: Option<AppendError>,
    /// What the file system said when the tail could not be written anew.
    pub(crate) broken: Option<io::ErrorKind>,
    pub(crate) closed: bool,
    pub(crate) sync_idle: bool,
    /// A further segment should be prepared.
    pub(crate) wants_spare: bool,
}

/// Largest payload in segments of this size.
pub(crate) fn payload_bytes_max(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes / 16).unwrap_or(PAYLOAD_BYTES_MAX).min(PAYLOAD_BYTES_MAX)
}

impl Log {
    pub(crate) fn intent(&mut self, entry: Entry<'_>) -> Result<IntentId, AppendError> {
        self.check(&entry)?;
        if let Some(kind) = self.broken {
            return Err(AppendError::Unwritable { kind });
        }
        let open = Open::new(entry.version, Bytes::copy_from_slice(entry.payload), self.slack);
        let (carried, reserved) = (open.carried_bytes(), open.reserved);
        self.admit(entry.bytes(), self.open_bytes + carried, self.reserved + reserved)?;
        let lsn = self.append(entry, 0)?;
        self.used = true;
        self.open.insert(lsn, open);
        self.open_bytes += carried;
        self.reserved += reserved;
        Ok(IntentId(lsn))
    }

    /// PUBLISH or VOID. Within what the intent reserved this cannot fail for lack of room.
    pub(crate) fn settle(&mut self, intent: IntentId, mut entry: Entry<'_>) -> Result<Appended, AppendError> {
        self.check(&entry)?;
        let open = self.open.get(&intent.0).ok_or(AppendError::NotOpen(intent))?;
        let (carried, reserved) = (open.carried_bytes(), open.reserved);
        if entry.bytes() > reserved {
            self.admit(entry.bytes(), self.open_bytes - carried, self.reserved - reserved)?;
        }
        entry.link = intent.0;
        let seq = if entry.kind == Kind::Publish { self.last_seq + 1 } else { 0 };
        let lsn = self.append(entry, seq)?;
        self.used = true;
        self.last_seq = self.last_seq.max(seq);
        self.open.remove(&intent.0);
        self.open_bytes -= carried;
        self.reserved -= reserved;
        Ok(Appended { lsn: Lsn(lsn), seq })
    }

    pub(crate) fn note(&mut self, entry: Entry<'_>) -> Result<Lsn, AppendError> {
        self.check(&entry)?;
        self.admit(entry.bytes(), self.open_bytes, self.reserved)?;
        let lsn = self.append(entry, 0)?;
        self.used = true;
        Ok(Lsn(lsn))
    }

    pub(crate) fn close_epoch(&mut self, epoch: Uuid) -> Result<Lsn, AppendError> {
        let earlier = self.earlier.iter().find(|mark| mark.epoch == epoch).copied();
        let mark = earlier.unwrap_or(EpochMark { epoch, last_seq: self.last_seq });
        let payload = mark.encode();
        let entry = Entry::new(Kind::EpochClosed, 1, &payload);
        self.check(&entry)?;
        self.admit(entry.bytes(), self.open_bytes, self.reserved)?;
        let lsn = self.append(entry, 0)?;
        self.earlier.retain(|mark| mark.epoch != epoch);
        self.closings.push((lsn, epoch));
        Ok(Lsn(lsn))
    }

    fn check(&self, entry: &Entry<'_>) -> Result<(), AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        if entry.payload.len() > self.payload_bytes_max {
            return Err(AppendError::TooLarge { bytes: entry.payload.len(), bytes_max: self.payload_bytes_max });
        }
        Ok(())
    }

    // === room ===

    /// Would the promise hold after a frame of this size, with these open intents and reservations?
    fn admit(&mut self, frame: u64, open_bytes: u64, reserved: u64) -> Result<(), AppendError> {
        let active = self.active_room();
        let room = if frame <= active {
            (active - frame).saturating_sub(self.waste()) + self.spare_room(0, open_bytes)
        } else if let Some(first) = self.spares.front() {
            let opened = self.room_of(first, self.open_bytes);
            let left = opened.checked_sub(frame).ok_or(AppendError::Full)?;
            left.saturating_sub(self.waste()) + self.spare_room(1, open_bytes)
        } else {
            self.wants_spare = true;
            return Err(self.no_room());
        };
        // What is open must fit a new segment with some room for progress.
        if open_bytes > self.open_bytes && open_bytes > self.segment_bytes / 4 * 3 {
            return Err(AppendError::Full);
        }
        if room < reserved {
            self.wants_spare = true;
            return Err(self.no_room());
        }
        self.wants_spare |= room - reserved < reserved + self.segment_bytes / 2;
        Ok(())
    }

    /// Whether a further spare would be good to have.
    pub(crate) fn is_short(&self) -> bool {
        self.spares.len() < self.spares_min || self.settlement_room() < 2 * self.reserved + self.segment_bytes
    }

    /// Whether an intent of any size would be taken.
    pub(crate) fn is_writable(&self) -> bool {
        let reserve = 2 * self.waste() + frame_bytes(self.slack);
        !self.closed && self.broken.is_none() && self.settlement_room() >= self.reserved + reserve
    }

    fn settlement_room(&self) -> u64 {
        self.active_room().saturating_sub(self.waste()) + self.spare_room(0, self.open_bytes)
    }

    fn no_room(&self) -> AppendError {
        self.obstacle.unwrap_or(AppendError::Behind)
    }

    fn active_room(&self) -> u64 {
        self.writing.back().map_or(0, |active| active.segment.limit().saturating_sub(active.end))
    }

    /// What may be lost at the end of a segment because the next frame does not fit.
    fn waste(&self) -> u64 {
        frame_bytes(self.payload_bytes_max)
    }

    fn spare_room(&self, skip: usize, open_bytes: u64) -> u64 {
        self.spares.iter().skip(skip).map(|spare| self.room_of(spare, open_bytes).saturating_sub(self.waste())).sum()
    }

    fn room_of(&self, spare: &Spare, open_bytes: u64) -> u64 {
        (spare.segment.header.capacity - DATA).saturating_sub(self.opening_bytes(open_bytes))
    }

    /// What a new segment begins with.
    pub(crate) fn opening_bytes(&self, open_bytes: u64) -> u64 {
        frame_bytes(Start::BYTES) + self.earlier.len() as u64 * frame_bytes(EpochMark::BYTES) + open_bytes
    }

    // === appending ===

    fn append(&mut self, entry: Entry<'_>, seq: u64) -> Result<u64, AppendError> {
        if entry.bytes() > self.active_room() {
            self.rotate()?;
        }
        Ok(self.put(entry, seq))
    }

    fn put(&mut self, entry: Entry<'_>, seq: u64) -> u64 {
        let Some(active) = self.writing.back_mut() else { return 0 };
        let lsn = active.end;
        let head = Head {
            lsn,
            kind: entry.kind,
            version: entry.version,
            unix_secs: u32::try_from(unix_secs()).unwrap_or(u32::MAX),
            link: entry.link,
            seq,
            payload_bytes: u32::try_from(entry.payload.len()).unwrap_or(u32::MAX),
        };
        let padding = usize::try_from(head.frame_bytes()).unwrap_or_default() - HEAD - entry.payload.len();
        let head_bytes = head.encode(entry.payload_crc);
        let frame = active.tail.push(lsn, [&head_bytes, entry.payload, PADDING.get(..padding).unwrap_or_default()]);
        let stored = active.map.store(active.segment.offset(lsn), frame);
        debug_assert!(stored, "the room was checked");
        active.end = head.end();
        self.relayed += u64::from(entry.kind.is_relayed());
        lsn
    }

    /// Goes over to the next spare. Nothing here touches a disk.
    fn rotate(&mut self) -> Result<(), AppendError> {
        let Some(spare) = self.spares.pop_front() else {
            self.wants_spare = true;
            return Err(self.no_room());
        };
        if let Some(active) = self.writing.back_mut() {
            active.sealed = true;
            active.segment.set_end(active.end);
            active.segment.sealed_unix_secs.store(unix_secs(), std::sync::atomic::Ordering::Relaxed);
        }
        self.wants_spare = true;
        self.begin(spare);
        Ok(())
    }

    /// Makes a spare the active segment and carries into it what must not depend on older ones.
    pub(crate) fn begin(&mut self, spare: Spare) {
        spare.segment.relayed_before.store(self.relayed, std::sync::atomic::Ordering::Relaxed);
        self.list(Arc::clone(&spare.segment));
        let first = spare.segment.first();
        self.writing.push_back(Writing::new(spare));
        let carried: Vec<_> = self.open.iter().map(|(lsn, open)| (*lsn, open.clone())).collect();
        let earlier = self.earlier.clone();
        let start = Start {
            epoch: self.epoch,
            last_seq: self.last_seq,
            relayed: self.relayed,
            carried: u32::try_from(carried.len() + earlier.len()).unwrap_or(u32::MAX),
            used: self.used,
        };
        self.put(Entry::new(Kind::Start, 1, &start.encode()), 0);
        for mark in earlier {
            self.put(Entry::new(Kind::EpochOpen, 1, &mark.encode()), 0);
        }
        for (lsn, open) in carried {
            let mut entry = Entry::new(Kind::Carried, open.version, &open.payload);
            entry.link = lsn;
            self.put(entry, 0);
        }
        let end = self.end();
        self.checkpoints.push_back((end, first));
    }

    /// LSN the next frame would get.
    pub(crate) fn end(&self) -> u64 {
        self.writing.back().map_or(self.durable, |active| active.end)
    }

    /// Of the segment that is made next. The first of an epoch has room for what it carries and for the settlements of all
    /// that; what comes later is only admitted when it fits.
    pub(crate) fn next_capacity(&self) -> u64 {
        if !self.writing.is_empty() || !self.spares.is_empty() {
            return self.segment_bytes;
        }
        let needed = DATA + 2 * self.opening_bytes(self.open_bytes) + 2 * self.reserved;
        self.segment_bytes.max(needed.next_multiple_of(DATA))
    }

    // === segments ===

    pub(crate) fn list(&mut self, segment: Arc<Segment>) {
        let segments = Arc::make_mut(&mut self.segments);
        segments.push(segment);
        segments.sort_by_key(|segment| (segment.first(), segment.header.number));
    }

    pub(crate) fn unlist(&mut self, number: u64) {
        Arc::make_mut(&mut self.segments).retain(|segment| segment.header.number != number);
    }

    /// Bytes of all segment files.
    pub(crate) fn bytes(&self) -> u64 {
        let spares = self.spares.iter().map(|spare| spare.segment.bytes());
        let garbage = self.garbage.iter().map(|segment| segment.bytes());
        self.segments.iter().map(|segment| segment.bytes()).chain(spares).chain(garbage).sum()
    }

    // === syncing ===

    /// What is to be synced next, if anything.
    pub(crate) fn target(&self) -> Option<Target> {
        let writing = self.writing.iter().find(|writing| writing.synced < writing.end)?;
        Some(Target { segment: Arc::clone(&writing.segment), end: writing.end, poisoned: writing.poisoned })
    }

    /// Notes a sync.
    pub(crate) fn synced(&mut self, target: &Target) -> Freed {
        let number = target.segment.header.number;
        let mut freed = Freed::default();
        if let Some(writing) = self.writing.iter_mut().find(|writing| writing.segment.header.number == number) {
            writing.synced = writing.synced.max(target.end);
            writing.ever_synced = true;
            writing.tail.release(target.end);
            writing.map.release_before(writing.segment.offset(target.end));
            freed.superseded = std::mem::take(&mut writing.supersedes);
        }
        for segment in &freed.superseded {
            self.unlist(segment.header.number);
        }
        while self.writing.front().is_some_and(|front| front.sealed && front.synced == front.end) {
            freed.done.extend(self.writing.pop_front());
        }
        self.finished.extend(freed.done.iter().map(|writing| Arc::clone(&writing.segment)));
        if let Some(front) = self.writing.front() {
            self.durable = self.durable.max(front.synced);
        }
        freed
    }
}
