//! Notices that the disk does not answer: since when it works at the same write or sync.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A write or sync that takes longer than this is called standing still.
const STANDS_STILL: Duration = Duration::from_secs(1);

/// The time since when the disk works at the same thing.
pub(crate) struct DiskStall {
    opened: Instant,
    /// Milliseconds from `opened` to the beginning, plus one; 0 = at nothing.
    since: AtomicU64,
}

impl DiskStall {
    pub(crate) fn new() -> Self {
        Self { opened: Instant::now(), since: AtomicU64::new(0) }
    }

    /// Until what is returned is dropped.
    pub(crate) fn work(&self) -> Working<'_> {
        self.since.store(self.now() + 1, Ordering::Relaxed);
        Working(self)
    }

    pub(crate) fn stands_still(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && u128::from((self.now() + 1).saturating_sub(since)) > STANDS_STILL.as_millis()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// See [`DiskStall::work`].
pub(crate) struct Working<'a>(&'a DiskStall);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Relaxed);
    }
}
