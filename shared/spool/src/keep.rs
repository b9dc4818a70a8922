//! The keeper: one thread that prepares segments ahead, persists the cursor and deletes what may go.
//!
//! Order that no crash can turn into a loss: the cursor and the floor are durable before a segment is removed. Nothing here
//! is awaited by an append.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::AppendError;
use crate::log::Spare;
use crate::segment::{Header, PAGE, Segment};
use crate::shared::Shared;
use crate::{state, unix_secs};

const TICK: Duration = Duration::from_millis(200);
const TICK_IDLE: Duration = Duration::from_secs(1);

/// What one round found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Quiet,
    /// Something could not be done and wants another round.
    Unfinished,
}

impl Shared {
    /// The thread's loop, until the spool is closed.
    pub(crate) fn keep_loop(&self) {
        let mut looked: Option<Instant> = None;
        loop {
            let round = self.keep_round();
            if looked.is_none_or(|looked| looked.elapsed() >= TICK_IDLE) {
                self.heed_resend();
                looked = Some(Instant::now());
            }
            let mut signal = self.keeper.lock();
            if signal.stop {
                return;
            }
            match round {
                Round::Quiet if signal.wanted => {}
                Round::Quiet => {
                    self.keep_wake.wait_for(&mut signal, TICK_IDLE);
                }
                // However many ask: a disk that just refused is not asked again at once.
                Round::Unfinished => {
                    self.keep_wake.wait_while_for(&mut signal, |signal| !signal.stop, TICK);
                }
            }
            signal.wanted = false;
            let busy = signal.cursor_moved;
            signal.cursor_moved = false;
            drop(signal);
            if busy {
                // Many acknowledgements become one write of the cursor.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    pub(crate) fn keep_round(&self) -> Round {
        self.trim_finished();
        let spares = self.prepare_spares();
        let kept = self.persist_and_delete(0);
        if spares.is_ok() && kept { Round::Quiet } else { Round::Unfinished }
    }

    /// At the end: a spare holds nothing.
    pub(crate) fn remove_spares(&self) {
        let spares = std::mem::take(&mut self.log.lock().spares);
        for spare in spares {
            if let Err(error) = self.fs.remove(&spare.segment.path) {
                tracing::debug!(path = %spare.segment.path.display(), %error, "a spare segment stays for the next start to remove");
            }
        }
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
        let (cursor, past, memo) = {
            let mut relay = self.relay.lock();
            (relay.cursor(), relay.settled(self.options.settle_after), relay.memo.clone())
        };
        let (checkpoint, closed, durable) = {
            let log = self.log.lock();
            let checkpoint = log.checkpoints.iter().rev().find(|(lsn, _)| *lsn <= log.durable).map(|(_, first)| *first);
            let closed: Vec<_> = log.closings.iter().filter(|(lsn, _)| *lsn < log.durable).map(|(_, id)| *id).collect();
            (checkpoint, closed, log.durable)
        };
        let current = self.state.lock().state().clone();
        let checkpoint = checkpoint.unwrap_or(current.checkpoint);
        let (expendable, floor) = self.expendable((cursor, past.settled()), checkpoint, pressure);
        let floor = floor.max(current.floor);
        let moved =
            (cursor, past, floor, checkpoint) != (current.cursor, current.past, current.floor, current.checkpoint);
        if moved || !closed.is_empty() || self.state.lock().is_dirty() {
            let persisted = state::persist(&self.state, |state| {
                (state.cursor, state.past) = (cursor, past);
                (state.floor, state.checkpoint) = (floor, checkpoint);
                state.memo.clone_from(&memo);
                state.unrecorded.retain(|(epoch, _)| !closed.contains(epoch));
            });
            if let Err(error) = persisted {
                // Nothing was deleted, so a rewind may still go back there.
                self.state.lock().set_floor(current.floor);
                tracing::error!(%error, "the spool's cursor could not be persisted; nothing is deleted meanwhile");
                return false;
            }
            let mut log = self.log.lock();
            log.closings.retain(|(lsn, _)| *lsn >= durable);
            for segment in &expendable {
                log.unlist(segment.header.number);
            }
            log.garbage.extend(expendable);
            while log.checkpoints.len() > 1 && log.checkpoints.get(1).is_some_and(|(lsn, _)| *lsn <= durable) {
                log.checkpoints.pop_front();
            }
        }
        self.delete_garbage()
    }

    /// Oldest first, never past one that must stay; and the first LSN of that one.
    ///
    /// What was acknowledged is kept for as long as the receiver may still lose it, however old it is: after an outage of a
    /// day the oldest segments have only just been acknowledged.
    fn expendable(
        &self,
        (cursor, settled): (u64, u64),
        checkpoint: u64,
        mut pressure: u64,
    ) -> (Vec<Arc<Segment>>, u64) {
        let (segments, writing) = {
            let log = self.log.lock();
            let writing: Vec<_> = log.writing.iter().map(|writing| writing.segment.header.number).collect();
            (Arc::clone(&log.segments), writing)
        };
        let now = unix_secs();
        let mut expendable = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let done = segment.end() <= cursor.min(checkpoint) && !writing.contains(&segment.header.number);
            let sealed = match segment.sealed_unix_secs.load(Ordering::Relaxed) {
                0 => segments.get(index + 1).map_or(now, |next| next.header.created_unix_secs),
                sealed => sealed,
            };
            let old = now.saturating_sub(sealed) >= self.options.retain.as_secs();
            let is_settled = segment.end() <= settled;
            if !done || !(old && is_settled || pressure > 0) {
                return (expendable, segment.first());
            }
            pressure = pressure.saturating_sub(segment.bytes());
            expendable.push(Arc::clone(segment));
        }
        (expendable, 0)
    }

    /// Removes the files of segments that are gone for good: the floor that says so is durable.
    fn delete_garbage(&self) -> bool {
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
        if bytes <= allowed {
            return Ok(());
        }
        self.persist_and_delete(bytes - allowed);
        if self.log.lock().bytes() <= allowed { Ok(()) } else { Err(AppendError::Full) }
    }

    /// When the file system is full, what was acknowledged goes before anything is refused.
    fn prepare_or_free(&self) -> Result<(), AppendError> {
        let Err(error) = self.prepare() else { return Ok(()) };
        let kind = error.kind();
        let before = self.log.lock().bytes();
        if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.persist_and_delete(self.options.segment_bytes);
            if self.log.lock().bytes() < before && self.prepare().is_ok() {
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
        let segment = Arc::new(Segment::create(&*self.fs, &self.options.directory, header)?);
        let map = match segment.file.map(header.capacity) {
            Ok(map) => map,
            Err(error) => {
                let _ = self.fs.remove(&segment.path);
                return Err(error);
            }
        };
        let mut log = self.log.lock();
        log.next_base = base + header.capacity;
        log.spares.push_back(Spare { segment, map });
        log.obstacle = None;
        Ok(())
    }
}
