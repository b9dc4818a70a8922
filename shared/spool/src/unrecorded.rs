//! The number of records that could not be appended, kept where it survives the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::stage::{self, Stage};

/// Records of this epoch that could not be appended. Counting waits for no disk: the stage keeps the number at once, the state
/// file when the keeper comes round.
pub(crate) struct UnrecordedCount {
    count: Mutex<u64>,
    stage: Option<Arc<dyn Stage>>,
    is_told: AtomicBool,
}

impl UnrecordedCount {
    pub(crate) fn new(stage: Option<Arc<dyn Stage>>) -> Self {
        Self { count: Mutex::new(0), stage, is_told: AtomicBool::new(false) }
    }

    pub(crate) fn add(&self, more: u64) {
        let mut count = self.count.lock();
        *count += more;
        if let Some(stage) = &self.stage {
            stage::store_unrecorded(&**stage, *count);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Returns what the state file must say.
    pub(crate) fn to_keep(&self) -> u64 {
        if self.is_told.load(Ordering::Relaxed) { 0 } else { self.count() }
    }

    /// The state file says as much, durably.
    pub(crate) fn kept(&self, count: u64) {
        if let Some(stage) = self.stage.as_ref().filter(|_| count > 0) {
            stage::store_unrecorded_kept(&**stage, count);
        }
    }

    /// The epoch was closed, durably, with what was counted.
    pub(crate) fn forget(&self) {
        self.is_told.store(true, Ordering::Relaxed);
    }
}
