//! Group commit: one thread that syncs whatever was appended while the last sync ran.
//!
//! A failed sync poisons its segment: the kernel may have dropped the pages, so it is never synced again. What was not
//! durable is written from memory into a new segment under the same LSNs, and the process lives on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::clock::unix_secs;
use crate::log::SyncTarget;
use crate::segment::{DATA, Header, Segment};
use crate::shared::SpoolShared;
use crate::waiters::Waiters;

const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// About what a sync of a quiet disk takes.
const LINGER_MAX: Duration = Duration::from_micros(100);

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncStep {
    Idle,
    Done,
    /// Nothing became durable; not worth trying again at once.
    Failed,
}

/// The waiters who come together. Those whose wait just ended append again within microseconds. A sync that sets off with the
/// first of them leaves the others to the next one and halves the throughput, so it waits until as many have come as last
/// time, but not for long.
#[derive(Default)]
struct Company {
    began: Option<Instant>,
    /// The number that had come to wait when the last sync began, ever.
    came: u64,
    /// The part of these since the sync before.
    size: u64,
    took: Duration,
}

impl Company {
    fn gather(&mut self, waiters: &Waiters) {
        let since = || waiters.came().saturating_sub(self.came);
        if self.size > 1 {
            let patience = self.took / 4;
            let began = Instant::now();
            while since() < self.size && began.elapsed() < patience {
                std::thread::yield_now();
            }
        }
        self.size = since();
        self.came += self.size;
        self.began = Some(Instant::now());
    }

    fn went(&mut self) {
        self.took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
    }
}

impl SpoolShared {
    /// The thread's loop: until the spool is closed and everything is durable, or cannot be made so.
    pub(crate) fn sync_loop(&self) {
        self.syncing.bell.belongs_here();
        let mut retry = RETRY_MIN;
        let mut served = Duration::ZERO;
        let mut company = Company::default();
        loop {
            let closing = self.await_work(served);
            let began = Instant::now();
            let is_awaited = !self.syncing.waiters.is_empty();
            company.gather(&self.syncing.waiters);
            let step = self.sync_step();
            company.went();
            served = if is_awaited { began.elapsed() } else { Duration::ZERO };
            match step {
                SyncStep::Idle if closing => return,
                SyncStep::Failed if closing => return,
                SyncStep::Failed => {
                    std::thread::sleep(retry);
                    retry = (retry * 2).min(RETRY_MAX);
                }
                SyncStep::Idle | SyncStep::Done => retry = RETRY_MIN,
            }
        }
    }

    /// Returns when there is something to sync; `true` when the spool is closing.
    fn await_work(&self, served: Duration) -> bool {
        self.linger(served);
        let pause = self.options.sync_pause;
        let mut rested = pause.is_zero();
        loop {
            self.syncing.bell.arm();
            let (pending, closed) = {
                let mut log = self.log.lock();
                let pending = log.target().is_some();
                log.sync_idle = rested && !pending;
                (pending, log.closed)
            };
            if closed || (pending && (rested || !self.syncing.waiters.is_empty())) {
                self.syncing.bell.disarm();
                return closed;
            }
            // An append rings only when nothing came for a whole pause, for as long as that goes on.
            let is_idle = rested && !pending;
            self.syncing.bell.rest((!is_idle).then_some(pause));
            rested = !is_idle || pause.is_zero();
        }
    }

    /// Lingers: those who were served may be back before this thread could fall asleep and be woken.
    fn linger(&self, served: Duration) {
        let began = Instant::now();
        while began.elapsed() < served.min(LINGER_MAX) && self.syncing.waiters.is_empty() {
            std::thread::yield_now();
        }
    }

    /// Syncs the oldest segment that needs it.
    pub(crate) fn sync_step(&self) -> SyncStep {
        let Some(target) = self.log.lock().target() else { return SyncStep::Idle };
        if target.poisoned {
            return self.replace(&target);
        }
        let synced = {
            let _working = self.syncing.stall.work();
            self.write_out(&target).and_then(|()| target.segment.file.sync_data())
        };
        match synced {
            Ok(()) => {
                let (freed, durable) = {
                    let mut log = self.log.lock();
                    log.broken = None;
                    (log.synced(&target), log.durable)
                };
                let sealed = !freed.done.is_empty();
                freed.superseded.iter().for_each(|segment| self.remove(segment));
                drop(freed);
                self.syncing.worked();
                self.syncing.publish(durable, false);
                if sealed {
                    self.keeper.wake();
                }
                SyncStep::Done
            }
            Err(error) => {
                tracing::error!(path = %target.segment.path.display(), %error, "a spool segment could not be written or synced and is given up");
                self.poison(&target, error.kind());
                self.replace(&target)
            }
        }
    }

    /// Writes from the stage to the file what is to be synced.
    pub(crate) fn write_out(&self, target: &SyncTarget) -> io::Result<()> {
        let number = target.segment.header.number;
        let mut buffer = Vec::new();
        let mut written = 0;
        while written < target.end {
            let Some((segment, from)) = self.log.lock().unwritten(number, &mut buffer) else { break };
            segment.write(from, &buffer)?;
            written = from + buffer.len() as u64;
            self.log.lock().wrote(number, written);
        }
        Ok(())
    }

    fn poison(&self, target: &SyncTarget, kind: io::ErrorKind) {
        let again = self.syncing.failed();
        let mut log = self.log.lock();
        let number = target.segment.header.number;
        if let Some(writing) = log.writing.iter_mut().find(|writing| writing.segment.header.number == number) {
            writing.poisoned = true;
        }
        if again {
            log.broken = Some(kind);
            let durable = log.durable;
            drop(log);
            self.syncing.publish(durable, true);
        }
    }

    /// Writes what is not durable of a poisoned segment into a new one.
    fn replace(&self, target: &SyncTarget) -> SyncStep {
        match self.replacement(target) {
            Ok(segment) => {
                if let Some(useless) = self.swap(target, segment) {
                    self.remove(&useless);
                }
                if self.syncing.fails_on() { SyncStep::Failed } else { SyncStep::Done }
            }
            Err(error) => {
                tracing::error!(%error, "no new spool segment in place of the one given up; trying again");
                let durable = {
                    let mut log = self.log.lock();
                    log.broken = Some(error.kind());
                    log.durable
                };
                self.syncing.publish(durable, true);
                SyncStep::Failed
            }
        }
    }

    fn replacement(&self, target: &SyncTarget) -> io::Result<Arc<Segment>> {
        let number = target.segment.header.number;
        let start = {
            let log = self.log.lock();
            let writing = log.writing.iter().find(|writing| writing.segment.header.number == number);
            writing.and_then(|writing| writing.tail.start()).unwrap_or_else(|| target.segment.first())
        };
        let base = start - DATA;
        let staged = self.stage_note.lock().clone();
        let header = Header {
            base,
            capacity: target.segment.limit() - base,
            number: self.next_number(),
            created_unix_secs: unix_secs(),
            ..target.segment.header
        };
        Ok(Arc::new(Segment::create(&*self.fs, &self.options.directory, header, staged.as_ref())?))
    }

    fn remove(&self, segment: &Segment) {
        if let Err(error) = self.fs.remove(&segment.path) {
            tracing::warn!(path = %segment.path.display(), %error, "a superseded spool segment stays behind");
        }
    }

    /// Puts the new segment in the place of the old; the tail is written to it by the next sync. The old one goes once the new
    /// one is durable and holds all of it; at once (returned) if nothing of it ever became durable.
    fn swap(&self, target: &SyncTarget, segment: Arc<Segment>) -> Option<Arc<Segment>> {
        let number = target.segment.header.number;
        let mut log = self.log.lock();
        let writing = log.writing.iter_mut().find(|writing| writing.segment.header.number == number)?;
        let old = std::mem::replace(&mut writing.segment, Arc::clone(&segment));
        writing.written = segment.first();
        writing.poisoned = false;
        old.set_end(writing.end);
        if writing.sealed {
            segment.set_end(writing.end);
            segment.seal_as(&old);
        }
        let covered = old.first() >= segment.first();
        let ever_synced = std::mem::replace(&mut writing.ever_synced, false);
        if covered && ever_synced {
            writing.supersedes.push(Arc::clone(&old));
        }
        let relayed = if covered { old.relayed_before.load(Ordering::Relaxed) } else { log.relayed };
        segment.relayed_before.store(relayed, Ordering::Relaxed);
        log.list(segment);
        let useless = covered && !ever_synced;
        if useless {
            log.unlist(number);
        }
        useless.then_some(old)
    }
}
