//! The writer's state, all of it under one mutex: the segments being written, the room, the open intents.
//!
//! Pure memory: an append is a copy into the stage, and the syncing thread writes it out. So nobody who holds the mutex waits
//! for a disk. (Only where there is no stage does an append write to its segment itself, so that it survives the process.)
//! Invariant (the *promise*): the room that is left in the active segment and in the spares is enough for the reserved
//! settlements of all open intents, counting what is lost at the end of each segment and what each new segment begins with.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::clock::unix_secs;
use crate::error::AppendError;
use crate::frame::{EpochMark, FrameHead, FrameKind, HEAD, OpenId, PAYLOAD_BYTES_MAX, Start, frame_bytes};
use crate::ids::{Appended, IntentId, Lsn};
use crate::room::{Room, RoomClaim, SegmentOpening};
use crate::segment::{DATA, Segment};
use crate::stage::Chunks;
use crate::tail::Tail;
use crate::times::Times;

const PADDING: [u8; 8] = [0; 8];
/// At most so much is copied out of the stage at once, with the mutex held.
const WRITE_BYTES: usize = 256 * 1024;

/// A segment with bytes that are not durable yet. The last one is the active one.
pub(crate) struct LogWriting {
    pub(crate) segment: Arc<Segment>,
    pub(crate) tail: Tail,
    pub(crate) end: u64,
    /// Everything before was written to the segment's file.
    pub(crate) written: u64,
    pub(crate) synced: u64,
    pub(crate) sealed: bool,
    /// A sync failed: it must not be tried again, the tail goes to a new segment.
    pub(crate) poisoned: bool,
    /// Something of this file was synced: it may be the only durable place of what lies in it.
    pub(crate) ever_synced: bool,
    /// Files that are not needed once this one is synced.
    pub(crate) supersedes: Vec<Arc<Segment>>,
}

/// The things that a sync made superfluous; to be dropped and removed outside of the lock.
#[derive(Default)]
pub(crate) struct SyncRelease {
    /// Sealed and durable.
    pub(crate) done: Vec<LogWriting>,
    /// Written anew elsewhere, durably.
    pub(crate) superseded: Vec<Arc<Segment>>,
}

impl LogWriting {
    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        let first = segment.first();
        Self {
            segment,
            tail: Tail::default(),
            end: first,
            written: first,
            synced: first,
            sealed: false,
            poisoned: false,
            ever_synced: false,
            supersedes: Vec::new(),
        }
    }
}

/// An intent that owes a settlement. What it says is in its frame; whoever announced it has it too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenIntent {
    /// The frame that holds its payload: its own, or a copy that was made before that went.
    pub(crate) home: u64,
    pub(crate) reserved: u64,
}

impl OpenIntent {
    pub(crate) fn new(home: u64, payload_bytes: usize, slack: usize) -> Self {
        Self { home, reserved: frame_bytes(payload_bytes + slack) }
    }
}

/// A record to be appended.
#[derive(Clone, Copy)]
pub(crate) struct LogEntry<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) version: u8,
    pub(crate) link: u64,
    pub(crate) payload: &'a [u8],
    pub(crate) payload_crc: u32,
}

impl<'a> LogEntry<'a> {
    /// Sums the payload up; done before the lock is taken.
    pub(crate) fn new(kind: FrameKind, version: u8, payload: &'a [u8]) -> Self {
        Self { kind, version, link: 0, payload, payload_crc: crc32c::crc32c(payload) }
    }

    fn bytes(&self) -> u64 {
        frame_bytes(self.payload.len())
    }
}

/// The next work of the sync thread.
#[derive(Clone)]
pub(crate) struct SyncTarget {
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    pub(crate) poisoned: bool,
}

pub(crate) struct Log {
    pub(crate) writing: VecDeque<LogWriting>,
    /// Ready to become the active segment.
    pub(crate) spares: VecDeque<Arc<Segment>>,
    /// All segments that can be read, by first LSN; spares are not among them.
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) open: BTreeMap<u64, OpenIntent>,
    pub(crate) reserved: u64,
    pub(crate) epoch: Uuid,
    pub(crate) last_seq: u64,
    /// True if this epoch holds anything of its own.
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
    /// The garbage that is kept because its room can be used again.
    pub(crate) reusable: Vec<Arc<Segment>>,
    /// Where appended bytes wait for the disk.
    pub(crate) chunks: Chunks,
    /// When what was appended.
    pub(crate) times: Times,
    pub(crate) durable: u64,
    pub(crate) slack: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) segment_bytes: u64,
    /// The numbers of segments that are kept ready, at least and at most.
    pub(crate) spares_min: usize,
    pub(crate) spares_max: usize,
    /// The rate at which segments fill, to have those ready that the next seconds need.
    pub(crate) filled: Option<FillRate>,
    /// The base of the segment after the last spare.
    pub(crate) next_base: u64,
    /// The reason there is no further spare.
    pub(crate) obstacle: Option<AppendError>,
    /// The file system's error when the tail could not be written anew.
    pub(crate) broken: Option<io::ErrorKind>,
    pub(crate) closed: bool,
    pub(crate) sync_idle: bool,
    /// A further segment should be prepared.
    pub(crate) wants_spare: bool,
}

/// When the last segment was full, and how long it lasted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FillRate {
    at: Instant,
    lasted: Option<Duration>,
}

/// Spares are kept for so long at the rate of the last two segments: a slow disk has that time to make the next.
const SPARES_AHEAD: Duration = Duration::from_secs(5);

/// Largest payload in segments of this size.
pub(crate) fn payload_bytes_max(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes / 16).unwrap_or(PAYLOAD_BYTES_MAX).min(PAYLOAD_BYTES_MAX)
}

impl Log {
    pub(crate) fn intent(&mut self, entry: LogEntry<'_>) -> Result<IntentId, AppendError> {
        self.check(&entry)?;
        if let Some(kind) = self.broken {
            return Err(AppendError::Unwritable { kind });
        }
        let (claim, reserved) = self.intent_claim(entry.payload.len());
        self.admit(claim)?;
        let lsn = self.append(entry, 0)?;
        self.used = true;
        self.open.insert(lsn, OpenIntent { home: lsn, reserved });
        self.reserved += reserved;
        Ok(IntentId(lsn))
    }

    /// PUBLISH or VOID. Within what the intent reserved this cannot fail for lack of room.
    pub(crate) fn settle(&mut self, intent: IntentId, mut entry: LogEntry<'_>) -> Result<Appended, AppendError> {
        self.check(&entry)?;
        let reserved = self.open.get(&intent.0).ok_or(AppendError::NotOpen(intent))?.reserved;
        if entry.bytes() > reserved {
            let (frame, open) = (entry.bytes(), self.open.len());
            self.admit(RoomClaim { frame, open, reserved: self.reserved - reserved })?;
        }
        entry.link = intent.0;
        let seq = if entry.kind == FrameKind::Publish { self.last_seq + 1 } else { 0 };
        let lsn = self.append(entry, seq)?;
        self.used = true;
        self.last_seq = self.last_seq.max(seq);
        self.open.remove(&intent.0);
        self.reserved -= reserved;
        Ok(Appended { lsn: Lsn(lsn), seq })
    }

    pub(crate) fn note(&mut self, entry: LogEntry<'_>) -> Result<Lsn, AppendError> {
        self.check(&entry)?;
        self.admit(self.claim(&entry))?;
        let lsn = self.append(entry, 0)?;
        self.used = true;
        Ok(Lsn(lsn))
    }

    pub(crate) fn close_epoch(&mut self, epoch: Uuid) -> Result<Lsn, AppendError> {
        let earlier = self.earlier.iter().find(|mark| mark.epoch == epoch).copied();
        let mark = earlier.unwrap_or(EpochMark { epoch, last_seq: self.last_seq });
        let payload = mark.encode();
        let entry = LogEntry::new(FrameKind::EpochClosed, 1, &payload);
        self.check(&entry)?;
        self.admit(self.claim(&entry))?;
        let lsn = self.append(entry, 0)?;
        self.earlier.retain(|mark| mark.epoch != epoch);
        self.closings.push((lsn, epoch));
        Ok(Lsn(lsn))
    }

    /// Copies an open intent to the end, because the segment that holds its payload is to go. `false` when it was settled
    /// meanwhile.
    pub(crate) fn spill(&mut self, lsn: u64, version: u8, payload: &[u8]) -> Result<bool, AppendError> {
        let mut entry = LogEntry::new(FrameKind::Carried, version, payload);
        entry.link = lsn;
        self.check(&entry)?;
        if !self.open.contains_key(&lsn) {
            return Ok(false);
        }
        self.admit(self.claim(&entry))?;
        let home = self.append(entry, 0)?;
        if let Some(open) = self.open.get_mut(&lsn) {
            open.home = home;
        }
        Ok(true)
    }

    /// Returns whether no open intent's payload lies in a segment that takes no more frames. The first time that is so it notes where
    /// the log ends: up to there lie the settlements and copies that made it so.
    pub(crate) fn is_left(&self, segment: &Segment) -> bool {
        let noted = segment.left_at.load(Ordering::Relaxed) > 0;
        if !noted && self.homes_in(segment).is_empty() {
            segment.left_at.store(self.end(), Ordering::Relaxed);
            return true;
        }
        noted
    }

    /// Open intents whose payloads lie in a segment.
    pub(crate) fn homes_in(&self, segment: &Segment) -> Vec<OpenId> {
        let inside = self.open.iter().filter(|(_, open)| (segment.first()..segment.limit()).contains(&open.home));
        inside.map(|(lsn, open)| OpenId { lsn: *lsn, home: open.home }).collect()
    }

    fn check(&self, entry: &LogEntry<'_>) -> Result<(), AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        if entry.payload.len() > self.payload_bytes_max {
            return Err(AppendError::TooLarge { bytes: entry.payload.len(), bytes_max: self.payload_bytes_max });
        }
        Ok(())
    }

    // === room ===

    /// The room as it is now.
    fn room(&self) -> Room<'_> {
        Room {
            active: self.active_room(),
            spares: &self.spares,
            opening: self.opening(),
            open: self.open.len(),
            frame_max: frame_bytes(self.payload_bytes_max),
            segment_bytes: self.segment_bytes,
            stage_has_room: self.chunks.has_room(),
            obstacle: self.obstacle,
        }
    }

    /// Returns what a frame asks for that opens and settles nothing.
    fn claim(&self, entry: &LogEntry<'_>) -> RoomClaim {
        RoomClaim { frame: entry.bytes(), open: self.open.len(), reserved: self.reserved }
    }

    /// Returns what an intent with so large a payload asks for, and the part of it that is reserved for the settlement.
    fn intent_claim(&self, payload_bytes: usize) -> (RoomClaim, u64) {
        let reserved = frame_bytes(payload_bytes + self.slack);
        let (frame, open) = (frame_bytes(payload_bytes), self.open.len() + 1);
        (RoomClaim { frame, open, reserved: self.reserved + reserved }, reserved)
    }

    /// Takes this only if the promise holds afterwards.
    fn admit(&mut self, claim: RoomClaim) -> Result<(), AppendError> {
        let left = self.room().after(claim);
        self.wants_spare |= match left {
            Ok(left) => left < claim.reserved + self.segment_bytes / 2 || self.spares.len() < self.spares_wanted(),
            Err(_) => true,
        };
        left.map(drop)
    }

    /// Returns the reason an intent of any size would not be taken: what [`Self::intent`] would say of the largest.
    pub(crate) fn refuses(&self) -> Option<AppendError> {
        if self.closed {
            return Some(AppendError::Closed);
        }
        if let Some(kind) = self.broken {
            return Some(AppendError::Unwritable { kind });
        }
        let (claim, _) = self.intent_claim(self.payload_bytes_max);
        self.room().after(claim).err()
    }

    /// Returns whether a further spare would be good to have.
    pub(crate) fn is_short(&self) -> bool {
        let enough = 2 * self.reserved + self.segment_bytes;
        self.spares.len() < self.spares_wanted() || self.room().for_settlements() < enough
    }

    /// Returns the number of segments that are to be ready, for the rate at which they fill.
    fn spares_wanted(&self) -> usize {
        let lasted = self.filled.and_then(|filled| Some(filled.lasted?.max(filled.at.elapsed())));
        let soon = lasted.map_or(0, |lasted| SPARES_AHEAD.as_millis() / lasted.as_millis().max(1) + 1);
        usize::try_from(soon).unwrap_or(self.spares_max).clamp(self.spares_min, self.spares_max)
    }

    fn active_room(&self) -> u64 {
        self.writing.back().map_or(0, |active| active.segment.limit().saturating_sub(active.end))
    }

    /// Returns what the next segment begins with.
    pub(crate) fn opening(&self) -> SegmentOpening {
        let ids_max = (self.payload_bytes_max / OpenId::BYTES).max(1);
        SegmentOpening { epochs: self.earlier.len(), ids_max }
    }

    // === appending ===

    fn append(&mut self, entry: LogEntry<'_>, seq: u64) -> Result<u64, AppendError> {
        if entry.bytes() > self.active_room() {
            self.rotate()?;
        }
        Ok(self.put(entry, seq))
    }

    fn put(&mut self, entry: LogEntry<'_>, seq: u64) -> u64 {
        let Some(active) = self.writing.back_mut() else { return 0 };
        let (lsn, now) = (active.end, unix_secs());
        let head = FrameHead {
            lsn,
            kind: entry.kind,
            version: entry.version,
            unix_secs: u32::try_from(now).unwrap_or(u32::MAX),
            link: entry.link,
            seq,
            payload_bytes: u32::try_from(entry.payload.len()).unwrap_or(u32::MAX),
        };
        let padding = usize::try_from(head.frame_bytes()).unwrap_or_default() - HEAD - entry.payload.len();
        let head_bytes = head.encode(entry.payload_crc);
        let parts = [&head_bytes, entry.payload, PADDING.get(..padding).unwrap_or_default()];
        active.tail.push(&mut self.chunks, lsn, parts);
        active.end = head.end();
        // What fails here is written again by the sync, which knows what to do then.
        if !self.chunks.is_staged() && active.written == lsn && active.segment.write(lsn, &parts.concat()).is_ok() {
            active.written = active.end;
        }
        if entry.kind.is_relayed() {
            self.relayed += 1;
            self.times.note(lsn, now);
        }
        lsn
    }

    /// Goes over to the next spare. Nothing here touches a disk.
    fn rotate(&mut self) -> Result<(), AppendError> {
        let Some(spare) = self.spares.pop_front() else {
            self.wants_spare = true;
            return Err(self.room().none());
        };
        if let Some(active) = self.writing.back_mut() {
            active.sealed = true;
            active.segment.set_end(active.end);
            active.segment.seal();
        }
        let now = Instant::now();
        self.filled = Some(FillRate { at: now, lasted: self.filled.map(|filled| now - filled.at) });
        self.wants_spare = true;
        self.begin(spare);
        Ok(())
    }

    /// Makes a spare the active segment. It begins with what must not depend on older ones: how the epochs stand, and where
    /// the open intents lie.
    pub(crate) fn begin(&mut self, spare: Arc<Segment>) {
        spare.relayed_before.store(self.relayed, Ordering::Relaxed);
        self.list(Arc::clone(&spare));
        let first = spare.first();
        self.writing.push_back(LogWriting::new(spare));
        let mut ids = Vec::with_capacity(self.open.len() * OpenId::BYTES);
        self.open.iter().for_each(|(lsn, open)| OpenId { lsn: *lsn, home: open.home }.encode(&mut ids));
        let ids_max = self.opening().ids_max;
        let lists = self.open.len().div_ceil(ids_max);
        let earlier = self.earlier.clone();
        let start = Start {
            epoch: self.epoch,
            last_seq: self.last_seq,
            relayed: self.relayed,
            carried: u32::try_from(lists + earlier.len()).unwrap_or(u32::MAX),
            used: self.used,
        };
        self.put(LogEntry::new(FrameKind::Start, 1, &start.encode()), 0);
        for mark in earlier {
            self.put(LogEntry::new(FrameKind::EpochOpen, 1, &mark.encode()), 0);
        }
        for list in ids.chunks(ids_max * OpenId::BYTES) {
            self.put(LogEntry::new(FrameKind::OpenIds, 1, list), 0);
        }
        let end = self.end();
        self.checkpoints.push_back((end, first));
    }

    /// LSN the next frame would get.
    pub(crate) fn end(&self) -> u64 {
        self.writing.back().map_or(self.durable, |active| active.end)
    }

    /// The capacity of the segment that is made next. The first of an epoch has room for what it carries and for the settlements of all
    /// that; what comes later is only admitted when it fits.
    pub(crate) fn next_capacity(&self) -> u64 {
        if !self.writing.is_empty() || !self.spares.is_empty() {
            return self.segment_bytes;
        }
        let needed = DATA + 2 * self.opening().bytes(self.open.len()) + 2 * self.reserved;
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
        let all = self.segments.iter().chain(&self.spares).chain(&self.garbage).chain(&self.reusable);
        all.map(|segment| segment.bytes()).sum()
    }

    // === syncing ===

    /// Bytes of a segment that are to be written out, from `from` on. `None` when there are none.
    pub(crate) fn unwritten(&self, number: u64, buffer: &mut Vec<u8>) -> Option<(Arc<Segment>, u64)> {
        let writing = self.writing.iter().find(|writing| writing.segment.header.number == number)?;
        let left = usize::try_from(writing.end - writing.written).unwrap_or(WRITE_BYTES).min(WRITE_BYTES);
        buffer.resize(left, 0);
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match writing.tail.copy(&self.chunks, writing.written + filled as u64, rest) {
                0 => break,
                count => filled += count,
            }
        }
        buffer.truncate(filled);
        (filled > 0).then(|| (Arc::clone(&writing.segment), writing.written))
    }

    /// Everything of a segment before `upto` was written out.
    pub(crate) fn wrote(&mut self, number: u64, upto: u64) {
        if let Some(writing) = self.writing.iter_mut().find(|writing| writing.segment.header.number == number) {
            writing.written = writing.written.max(upto);
        }
    }

    /// Returns what is to be synced next, if anything.
    pub(crate) fn target(&self) -> Option<SyncTarget> {
        let writing = self.writing.iter().find(|writing| writing.synced < writing.end)?;
        Some(SyncTarget { segment: Arc::clone(&writing.segment), end: writing.end, poisoned: writing.poisoned })
    }

    /// Notes a sync.
    pub(crate) fn synced(&mut self, target: &SyncTarget) -> SyncRelease {
        let number = target.segment.header.number;
        let mut freed = SyncRelease::default();
        if let Some(writing) = self.writing.iter_mut().find(|writing| writing.segment.header.number == number) {
            writing.synced = writing.synced.max(target.end);
            writing.ever_synced = true;
            writing.tail.release(&mut self.chunks, target.end);
            freed.superseded = std::mem::take(&mut writing.supersedes);
        }
        for segment in &freed.superseded {
            self.unlist(segment.header.number);
        }
        while self.writing.front().is_some_and(|front| front.sealed && front.synced == front.end) {
            if let Some(mut done) = self.writing.pop_front() {
                done.tail.release_all(&mut self.chunks);
                freed.done.push(done);
            }
        }
        self.finished.extend(freed.done.iter().map(|writing| Arc::clone(&writing.segment)));
        if let Some(front) = self.writing.front() {
            self.durable = self.durable.max(front.synced);
        }
        self.chunks.note_durable(self.durable);
        freed
    }
}
