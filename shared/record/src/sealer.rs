//! When seals are written: every 10 s while something changed, when many blocks wait, at stop, and for the epochs of
//! earlier starts as soon as everything of theirs was read.

use std::error::Error;

use goldleaves_domain::{Epoch, Source, UsageEvent};
use goldleaves_spool::{AppendError, EpochRecord, Spool, SpoolError};
use tracing::{error, info, warn};

use super::clock::Clock;
use super::codec;
use super::metrics::RecordMetrics;
use super::recorder::durable;
use super::seal::{SealAs, SealBook};

/// The reason a seal is not written. What it would have said stays in the book.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error("the spool did not take a seal")]
    Append(#[from] AppendError),
    #[error("a seal did not reach the disk")]
    Durable(#[from] SpoolError),
}

/// Draws the seals of one gateway and writes them to its spool.
#[derive(Debug)]
pub(super) struct Sealer {
    spool: Spool,
    source: Source,
    current: Epoch,
    /// Epochs of earlier starts that have no last seal yet.
    dead: Vec<EpochRecord>,
    book: SealBook,
    clock: Clock,
    metrics: RecordMetrics,
    /// True if the last attempt failed, so that an outage is one log line.
    failing: bool,
}

/// The state that a sealer starts from.
pub(super) struct SealerStart {
    /// Epochs of earlier starts that have no last seal yet.
    pub(super) dead: Vec<EpochRecord>,
    /// The checkpoint that was kept beside the cursor; empty when there was nothing, or when it was lost with the
    /// cursor.
    pub(super) checkpoint: bytes::Bytes,
}

impl Sealer {
    pub(super) fn new(spool: Spool, found: SealerStart, clock: Clock, metrics: RecordMetrics) -> Self {
        let (source, current) = (Source::new(spool.id()), Epoch::new(spool.epoch()));
        let is_open = |epoch| found.dead.iter().any(|record| Epoch::new(record.epoch) == epoch);
        let mut book = match SealBook::restore(&found.checkpoint) {
            Ok(mut book) => {
                book.retain(is_open);
                found.dead.iter().for_each(|record| book.open(Epoch::new(record.epoch)));
                book
            }
            Err(unreadable) => {
                if !found.checkpoint.is_empty() {
                    warn!(%unreadable, "what was kept beside the spool's cursor cannot be read; seals start anew");
                }
                let mut book = SealBook::default();
                found.dead.iter().for_each(|record| book.open_late(Epoch::new(record.epoch)));
                book
            }
        };
        book.open(current);
        let sealer = Self { spool, source, current, dead: found.dead, book, clock, metrics, failing: false };
        sealer.show_open();
        sealer
    }

    /// Counts an event that was read.
    pub(super) fn absorb(&mut self, event: &UsageEvent) {
        self.book.absorb(event);
    }

    /// Returns what has to be kept beside the cursor, in at most so many bytes.
    pub(super) fn checkpoint(&self, bytes_max: usize) -> Vec<u8> {
        self.book.checkpoint(bytes_max)
    }

    /// Returns whether so much waits for a seal that the timer is too far.
    pub(super) fn is_crowded(&self) -> bool {
        self.book.is_crowded()
    }

    /// Seals what changed in every open epoch.
    pub(super) async fn seal_open(&mut self) {
        let current = (self.current, self.spool.stats().unrecorded);
        let dead = self.dead.iter().map(|record| (Epoch::new(record.epoch), record.unrecorded));
        for (epoch, unrecorded) in dead.chain([current]).collect::<Vec<_>>() {
            let written = self.write(epoch, unrecorded, false).await;
            self.say(written);
        }
    }

    /// Gives the epochs of earlier starts their last seal: those whose last record was read, or all when nothing of
    /// theirs is left to read.
    pub(super) async fn close_dead(&mut self, is_all_read: bool) {
        let is_read = |record: &EpochRecord| {
            is_all_read || self.book.last_seq(Epoch::new(record.epoch)).is_some_and(|seq| seq >= record.last_seq)
        };
        // Dropped at any await (the relay is told to stop), it leaves behind what is not done yet.
        for record in self.dead.iter().filter(|record| is_read(record)).cloned().collect::<Vec<_>>() {
            let closed = self.close(Epoch::new(record.epoch), record.unrecorded).await;
            if closed.is_ok() {
                self.dead.retain(|dead| dead.epoch != record.epoch);
            }
            self.say(closed);
        }
    }

    /// Gives the current epoch its last seal. Everything of it has been read; the recorder records nothing any more.
    pub(super) async fn close_current(&mut self) {
        let (read, given) = (self.book.last_seq(self.current).unwrap_or_default(), self.spool.stats().last_seq);
        if read != given {
            warn!(read, given, "not everything could be read for the last seal, the next start writes it");
            return;
        }
        let closed = self.close(self.current, self.spool.stats().unrecorded).await;
        self.say(closed);
    }

    async fn close(&mut self, epoch: Epoch, unrecorded: u64) -> Result<(), SealError> {
        self.write(epoch, unrecorded, true).await?;
        let lsn = self.spool.close_epoch(*epoch.as_uuid())?;
        durable(&self.spool, lsn).await?;
        self.book.close(epoch);
        self.metrics.epochs_closed.inc();
        self.show_open();
        info!(%epoch, unrecorded, "epoch closed");
        Ok(())
    }

    async fn write(&mut self, epoch: Epoch, unrecorded: u64, closed: bool) -> Result<(), SealError> {
        let seal_as = SealAs { source: self.source, ts: (self.clock)(), unrecorded, closed };
        let mut last = None;
        for seal in self.book.draw(epoch, seal_as) {
            last = Some(self.spool.note(codec::SEAL_VERSION, &codec::encode_seal(&seal))?);
            self.metrics.seals.inc();
        }
        if let Some(lsn) = last {
            durable(&self.spool, lsn).await?;
            self.book.sealed(epoch, unrecorded);
        }
        Ok(())
    }

    fn say(&mut self, result: Result<(), SealError>) {
        match result {
            Ok(()) => self.failing = false,
            Err(cause) if !self.failing => {
                self.failing = true;
                error!(cause = &cause as &dyn Error, "no seal could be written; retrying");
            }
            Err(_) => {}
        }
    }

    fn show_open(&self) {
        self.metrics.epochs_open.set(self.book.open_epochs() as u64);
    }
}
