//! The part of the shared state that syncing needs: who waits for it, what wakes its thread, and how far it is. The syncing
//! itself is in `sync.rs`.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use crate::error::SpoolError;
use crate::stall::DiskStall;
use crate::waiters::{Bell, Waiters};

/// The progress that waiters see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpoolProgress {
    /// Every frame before this LSN is durable.
    pub(crate) durable: u64,
    pub(crate) broken: bool,
    pub(crate) closed: bool,
    /// Changes when the reader was sent back.
    pub(crate) rewinds: u64,
}

/// The point up to which records are durable, and everybody whom that concerns.
pub(crate) struct Syncing {
    /// Wakes the syncing thread.
    pub(crate) bell: Bell,
    pub(crate) waiters: Waiters,
    pub(crate) stall: DiskStall,
    failures: AtomicU32,
    progress: watch::Sender<SpoolProgress>,
}

impl Syncing {
    pub(crate) fn new() -> Self {
        let progress = SpoolProgress { durable: 0, broken: false, closed: false, rewinds: 0 };
        Self {
            bell: Bell::default(),
            waiters: Waiters::default(),
            stall: DiskStall::new(),
            failures: AtomicU32::new(0),
            progress: watch::Sender::new(progress),
        }
    }

    /// Says how far records are durable, and wakes those who waited for that.
    pub(crate) fn publish(&self, durable: u64, broken: bool) {
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.durable = progress.durable.max(durable);
            progress.broken = broken;
            *progress != before
        });
        self.waiters.wake_before(if broken { u64::MAX } else { durable });
    }

    /// Says that the reader was sent back.
    pub(crate) fn rewound(&self) {
        self.progress.send_modify(|progress| progress.rewinds += 1);
    }

    /// Says that nothing becomes durable any more.
    pub(crate) fn end(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
        self.waiters.wake_before(u64::MAX);
    }

    /// Follows the progress from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<SpoolProgress> {
        self.progress.subscribe()
    }

    /// Returns what a wait for this LSN has come to, if it is over.
    pub(crate) fn outcome(&self, lsn: u64) -> Option<Result<(), SpoolError>> {
        let now = *self.progress.borrow();
        if now.durable > lsn {
            Some(Ok(()))
        } else if now.broken {
            Some(Err(SpoolError::Unwritable))
        } else if now.closed {
            Some(Err(SpoolError::Closed))
        } else {
            None
        }
    }

    /// Counts a sync that failed. Returns whether the one before it failed, too.
    pub(crate) fn failed(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) > 0
    }

    /// Forgets the syncs that failed: one has worked.
    pub(crate) fn worked(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Returns whether several syncs in a row have failed.
    pub(crate) fn fails_on(&self) -> bool {
        self.failures.load(Ordering::Relaxed) > 1
    }
}
