//! The keeper: one thread that prepares segments ahead, persists the cursor and deletes what may go.
//!
//! Order that no crash can turn into a loss: the cursor and the floor are durable before a segment is removed. Nothing here
//! is awaited by an append.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::clock::unix_secs;
use crate::error::AppendError;
use crate::frame::{FrameKind, OpenId};
use crate::fs::ZEROS;
use crate::keeper::{Round, TICK_IDLE};
use crate::past::Past;
use crate::scan::{OnReadError, Scan, ScanStep};
use crate::segment::{DATA, Header, PAGE, Segment};
use crate::shared::SpoolShared;
use crate::state::{self, SpoolState};

/// Files kept because their room can be used again.
const REUSABLE_MAX: usize = 2;
/// Zeros are written ahead in steps of this size, as long as a step takes no longer: a slow disk has better things to do.
const FILL_STEP: u64 = 1 << 20;
const FILL_STEP_MAX: Duration = Duration::from_millis(50);

/// The next content of the state file.
struct NextState {
    cursor: u64,
    past: Past,
    memo: Bytes,
    checkpoint: u64,
    floor: u64,
    /// Epochs whose closing is durable.
    closed: Vec<Uuid>,
    /// Everything before was durable when this was made.
    durable: u64,
    unrecorded: u64,
}

impl NextState {
    fn differs_from(&self, current: &SpoolState) -> bool {
        let places = (self.cursor, self.past, self.floor, self.checkpoint);
        places != (current.cursor, current.past, current.floor, current.checkpoint) || !self.closed.is_empty()
    }
}

impl SpoolShared {
    /// The thread's loop, until the spool is closed.
    pub(crate) fn keep_loop(&self) {
        let mut looked: Option<Instant> = None;
        loop {
            let round = self.keep_round();
            if looked.is_none_or(|looked| looked.elapsed() >= TICK_IDLE) {
                self.heed_resend();
                looked = Some(Instant::now());
            }
            if !self.keeper.rest(round) {
                return;
            }
        }
    }

    pub(crate) fn keep_round(&self) -> Round {
        self.trim_finished();
        self.look_after_stage();
        let spares = self.prepare_spares();
        let kept = self.persist_and_delete(0);
        self.fill_spares();
        if spares.is_ok() && kept { Round::Quiet } else { Round::Unfinished }
    }

    /// At the end: a spare holds nothing.
    pub(crate) fn remove_spares(&self) {
        let (spares, reusable) = {
            let mut log = self.log.lock();
            (std::mem::take(&mut log.spares), std::mem::take(&mut log.reusable))
        };
        for segment in spares.iter().chain(&reusable) {
            if let Err(error) = self.fs.remove(&segment.path) {
                tracing::debug!(path = %segment.path.display(), %error, "a spare segment stays for the next start to remove");
            }
        }
    }

    /// At the end: what is durable need not be staged. What is not stays there for the next start.
    pub(crate) fn remove_stage(&self) {
        let is_durable = {
            let log = self.log.lock();
            log.writing.iter().all(|writing| writing.synced == writing.end)
        };
        let is_counted = self.state.lock().holds_unrecorded(self.epoch, self.unrecorded.to_keep());
        let Some(path) = self.stage.as_ref().filter(|_| is_durable && is_counted) else { return };
        self.forget_stage();
        if let Err(error) = self.fs.remove_stage(path) {
            tracing::debug!(path = %path.display(), %error, "the spool's stage stays for the next start to remove");
        }
    }

    /// From now on a start that does not find the stage lacks nothing. Where a disk refuses to note that, the next start says
    /// that it lacks something, which is false and harmless.
    fn forget_stage(&self) {
        *self.stage_note.lock() = None;
        let segment = {
            let log = self.log.lock();
            let last = log.segments.last().filter(|segment| segment.header.epoch == self.epoch).cloned();
            log.writing.back().map(|writing| Arc::clone(&writing.segment)).or(last)
        };
        if let Some(Err(error)) = segment.map(|segment| segment.forget_stage()) {
            tracing::debug!(%error, "a spool segment still names the stage");
        }
    }

    /// Somebody may remove the stage's file (systemd does, of users who log out). What is in it is still read, but the next
    /// start would not find it, so nothing more is staged.
    fn look_after_stage(&self) {
        let mut log = self.log.lock();
        if log.chunks.is_gone() && log.writing.iter().all(|writing| writing.written == writing.end) {
            tracing::error!(
                "the spool's stage was removed; records are written to the disk by the calls themselves until the next start"
            );
            let chunks = std::mem::take(&mut log.chunks);
            log.writing.iter_mut().for_each(|writing| writing.tail.keep_in_memory(&chunks));
            drop(log);
            self.forget_stage();
        }
    }

    /// Zeros ahead of the first frame make later syncs cheaper: no extent changes its state. A spare is usable without.
    fn fill_spares(&self) {
        let unfilled = |segment: &&Arc<Segment>| segment.filled.load(Ordering::Relaxed) < segment.header.capacity;
        let Some(spare) = self.log.lock().spares.iter().find(unfilled).cloned() else { return };
        let began = Instant::now();
        let mut from = spare.filled.load(Ordering::Relaxed).max(DATA);
        let step_end = (from + FILL_STEP).min(spare.header.capacity);
        while from < step_end {
            let bytes = usize::try_from(step_end - from).unwrap_or(ZEROS).min(ZEROS);
            match spare.fill(from, bytes) {
                Ok(true) => from += bytes as u64,
                // It is in use, or the disk is full or broken: that is found out where it matters.
                Ok(false) | Err(_) => from = spare.header.capacity,
            }
        }
        let is_refused = from < spare.header.capacity && spare.file.sync_data().is_err();
        if is_refused || began.elapsed() > FILL_STEP_MAX {
            from = spare.header.capacity;
        }
        spare.filled.store(from, Ordering::Relaxed);
        self.keeper.wake();
    }

    fn trim_finished(&self) {
        let finished = std::mem::take(&mut self.log.lock().finished);
        for segment in finished {
            if let Err(error) = segment.trim() {
                tracing::warn!(path = %segment.path.display(), %error, "a sealed spool segment could not be trimmed");
            }
        }
    }

    /// Persists cursor, checkpoint and floor if they moved, then removes segments that were acknowledged: those past
    /// retention, and as many more as `pressure` bytes need. Whether all of that worked.
    pub(crate) fn persist_and_delete(&self, pressure: u64) -> bool {
        let _persisting = self.persisting.lock();
        let current = self.state.lock().state().clone();
        let mut next = self.next_state(&current);
        let (expendable, floor) = self.expendable(&next, pressure);
        next.floor = floor.max(current.floor);
        if next.differs_from(&current) || self.is_state_dirty(next.unrecorded) {
            if !self.persist(&next, current.floor) {
                return false;
            }
            self.forget_persisted(&next, expendable);
        }
        self.delete_garbage()
    }

    /// Returns what the state file should say now, but for the floor.
    fn next_state(&self, current: &SpoolState) -> NextState {
        let (cursor, past, memo) = {
            let mut relay = self.relay.lock();
            (relay.cursor(), relay.settled(self.options.settle_after), relay.memo.clone())
        };
        let log = self.log.lock();
        let durable = log.durable;
        let checkpoint = log.checkpoints.iter().rev().find(|(lsn, _)| *lsn <= durable).map(|(_, first)| *first);
        let closed = log.closings.iter().filter(|(lsn, _)| *lsn < durable).map(|(_, id)| *id).collect();
        drop(log);
        let (checkpoint, floor) = (checkpoint.unwrap_or(current.checkpoint), current.floor);
        let unrecorded = self.unrecorded.to_keep();
        NextState { cursor, past, memo, checkpoint, floor, closed, durable, unrecorded }
    }

    fn is_state_dirty(&self, unrecorded: u64) -> bool {
        let state = self.state.lock();
        state.is_dirty() || !state.holds_unrecorded(self.epoch, unrecorded)
    }

    /// Returns whether the state is durable now. Where it is not, `floor_before` holds: nothing was deleted, so a rewind may still
    /// go back there.
    fn persist(&self, next: &NextState, floor_before: u64) -> bool {
        let persisted = state::persist(&self.state, |state| {
            (state.cursor, state.past) = (next.cursor, next.past);
            (state.floor, state.checkpoint) = (next.floor, next.checkpoint);
            state.memo.clone_from(&next.memo);
            state.set_unrecorded(self.epoch, next.unrecorded);
            state.unrecorded.retain(|(epoch, _)| !next.closed.contains(epoch));
        });
        if let Err(error) = &persisted {
            self.state.lock().set_floor(floor_before);
            tracing::error!(%error, "the spool's cursor could not be persisted; nothing is deleted meanwhile");
        }
        persisted.is_ok()
    }

    /// Forgets what the durable state says, and makes garbage of what lies below its floor.
    fn forget_persisted(&self, next: &NextState, expendable: Vec<Arc<Segment>>) {
        self.unrecorded.kept(next.unrecorded);
        if next.closed.contains(&self.epoch) {
            self.unrecorded.forget();
        }
        let mut log = self.log.lock();
        log.closings.retain(|(lsn, _)| *lsn >= next.durable);
        log.times.forget_before(next.floor);
        for segment in &expendable {
            log.unlist(segment.header.number);
        }
        log.garbage.extend(expendable);
        while log.checkpoints.len() > 1 && log.checkpoints.get(1).is_some_and(|(lsn, _)| *lsn <= next.durable) {
            log.checkpoints.pop_front();
        }
    }

    /// Oldest first, never past one that must stay; and the first LSN of that one.
    ///
    /// What was acknowledged is kept for as long as the receiver may still lose it, however old it is: after an outage of a
    /// day the oldest segments have only just been acknowledged.
    fn expendable(&self, next: &NextState, mut pressure: u64) -> (Vec<Arc<Segment>>, u64) {
        let (acknowledged, settled) = (next.cursor.min(next.checkpoint), next.past.settled());
        let (segments, writing) = {
            let log = self.log.lock();
            let writing: Vec<_> = log.writing.iter().map(|writing| writing.segment.header.number).collect();
            (Arc::clone(&log.segments), writing)
        };
        let mut expendable = Vec::new();
        for segment in segments.iter() {
            let done = segment.end() <= acknowledged && !writing.contains(&segment.header.number);
            let old = segment.age() >= self.options.retain;
            let is_settled = segment.end() <= settled;
            let may_go = done && (old && is_settled || pressure > 0);
            if done && !may_go {
                // Noted early, it is durable by the time that its room is needed.
                self.log.lock().is_left(segment);
            }
            if !may_go || !self.spill(segment) {
                return (expendable, segment.first());
            }
            pressure = pressure.saturating_sub(segment.bytes());
            expendable.push(Arc::clone(segment));
        }
        (expendable, 0)
    }

    /// Copies open intents out of a segment that is to go. Whether it may: the copies are durable, and so are the settlements
    /// of all that were open in it.
    fn spill(&self, segment: &Arc<Segment>) -> bool {
        let (homes, segments, durable) = {
            let log = self.log.lock();
            if log.is_left(segment) {
                return segment.left_at.load(Ordering::Relaxed) <= log.durable;
            }
            (log.homes_in(segment), Arc::clone(&log.segments), log.durable)
        };
        for OpenId { lsn, home } in homes {
            let Some((version, payload)) = intent_at(&segments, home, durable) else {
                tracing::error!(path = %segment.path.display(), lsn, "an open call's record cannot be read; its segment stays until the call ends");
                return false;
            };
            if self.with_log(|log| log.spill(lsn, version, &payload)).is_err() {
                return false;
            }
        }
        false
    }

    /// Keeps a few files of segments that are gone for good (the floor that says so is durable) and removes the others.
    fn delete_garbage(&self) -> bool {
        let garbage = self.log.lock().garbage.clone();
        garbage.iter().for_each(|segment| self.set_aside(segment));
        self.remove_garbage()
    }

    fn remove_garbage(&self) -> bool {
        let garbage = self.log.lock().garbage.clone();
        let mut done = true;
        for segment in garbage {
            match self.fs.remove(&segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %segment.path.display(), %error, "an acknowledged spool segment could not be removed yet");
                    done = false;
                }
                _ => self.log.lock().garbage.retain(|kept| kept.header.number != segment.header.number),
            }
        }
        done
    }

    /// Keeps the file of a segment that is gone, to use its room again, when nobody reads it any more.
    fn set_aside(&self, segment: &Arc<Segment>) {
        let mut log = self.log.lock();
        // One in the garbage, one in our caller's list.
        let is_read = Arc::strong_count(segment) > 2;
        let is_full_size = segment.header.capacity == log.segment_bytes;
        if is_full_size && !is_read && !log.closed && log.reusable.len() < REUSABLE_MAX {
            log.garbage.retain(|kept| kept.header.number != segment.header.number);
            log.reusable.push(Arc::clone(segment));
        }
    }

    /// Prepares segments until settlements of all open intents have their room twice over.
    fn prepare_spares(&self) -> Result<(), AppendError> {
        loop {
            let (short, bytes) = {
                let mut log = self.log.lock();
                log.wants_spare = false;
                (log.is_short() && !log.closed, log.bytes())
            };
            if !short {
                self.log.lock().obstacle = None;
                return Ok(());
            }
            let prepared = self.make_room(bytes).and_then(|()| self.prepare_or_free());
            if let Err(obstacle) = prepared {
                let mut log = self.log.lock();
                if log.obstacle != Some(obstacle) {
                    tracing::warn!(%obstacle, "no further spool segment can be prepared");
                }
                log.obstacle = Some(obstacle);
                return Err(obstacle);
            }
        }
    }

    /// Deletes acknowledged segments until one more fits under `bytes_max`.
    fn make_room(&self, bytes: u64) -> Result<(), AppendError> {
        let allowed = self.options.bytes_max.saturating_sub(2 * PAGE + self.options.segment_bytes);
        let fits = || {
            let log = self.log.lock();
            let used_again = log.reusable.last().map_or(0, |old| old.bytes());
            log.bytes() - used_again <= allowed
        };
        if fits() {
            return Ok(());
        }
        self.persist_and_delete(bytes.saturating_sub(allowed));
        if fits() {
            return Ok(());
        }
        let reusable = std::mem::take(&mut self.log.lock().reusable);
        self.log.lock().garbage.extend(reusable);
        self.remove_garbage();
        if fits() { Ok(()) } else { Err(AppendError::Full) }
    }

    /// When the file system is full, what was acknowledged goes before anything is refused.
    fn prepare_or_free(&self) -> Result<(), AppendError> {
        let Err(error) = self.prepare() else { return Ok(()) };
        let kind = error.kind();
        let before = self.log.lock().bytes();
        if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.persist_and_delete(self.options.segment_bytes);
            let has_room = {
                let log = self.log.lock();
                log.bytes() < before || !log.reusable.is_empty()
            };
            if has_room && self.prepare().is_ok() {
                return Ok(());
            }
        }
        Err(AppendError::Unwritable { kind })
    }

    fn prepare(&self) -> io::Result<()> {
        let (base, capacity) = {
            let log = self.log.lock();
            (log.next_base, log.next_capacity())
        };
        let header = Header {
            spool: self.id,
            epoch: self.epoch,
            base,
            capacity,
            number: self.next_number(),
            created_unix_secs: unix_secs(),
        };
        let segment = Arc::new(self.make(header)?);
        let mut log = self.log.lock();
        log.next_base = base + header.capacity;
        log.spares.push_back(segment);
        log.obstacle = None;
        Ok(())
    }

    /// From room that is there already, if there is any.
    fn make(&self, header: Header) -> io::Result<Segment> {
        let old = self.log.lock().reusable.pop().filter(|old| old.header.capacity == header.capacity);
        let staged = self.stage_note.lock().clone();
        if let Some(old) = old {
            match Segment::reuse(&*self.fs, &old, header, staged.as_ref()) {
                Ok(segment) => return Ok(segment),
                Err(error) => {
                    tracing::debug!(path = %old.path.display(), %error, "the room of an old spool segment cannot be used again");
                    // It may have the new name already; then that is gone.
                    let _ = self.fs.remove(&old.path);
                }
            }
        }
        Segment::create(&*self.fs, &self.options.directory, header, staged.as_ref())
    }
}

/// Returns what an open intent's frame, or a copy of it, says.
fn intent_at(segments: &[Arc<Segment>], home: u64, durable: u64) -> Option<(u8, Bytes)> {
    match Scan::new(home, OnReadError::Fail).step(segments, durable) {
        Ok(ScanStep::Frame(frame)) if frame.head.lsn == home => {
            matches!(frame.head.kind, FrameKind::Intent | FrameKind::Carried)
                .then_some((frame.head.version, frame.payload))
        }
        _ => None,
    }
}
