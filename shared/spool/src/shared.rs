//! The state that the handles and the two threads share: what each thread alone needs is in `syncing.rs` and `keeper.rs`, what
//! they do is in `sync.rs` and `keep.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::cursor::CursorState;
use crate::fs::FileSystem;
use crate::keeper::Keeper;
use crate::log::Log;
use crate::options::SpoolOptions;
use crate::stage_note::StageNote;
use crate::state::StateFile;
use crate::syncing::Syncing;
use crate::unrecorded::UnrecordedCount;

pub(crate) struct SpoolShared {
    pub(crate) options: SpoolOptions,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) id: Uuid,
    pub(crate) epoch: Uuid,
    pub(crate) log: Mutex<Log>,
    pub(crate) syncing: Syncing,
    pub(crate) keeper: Keeper,
    pub(crate) state: Mutex<StateFile>,
    /// Held from reading the cursor until it is persisted and what it frees is deleted.
    pub(crate) persisting: Mutex<()>,
    pub(crate) relay: Mutex<CursorState>,
    pub(crate) last_number: AtomicU64,
    /// Bytes that turned out unreadable since the start.
    pub(crate) unreadable_bytes: AtomicU64,
    pub(crate) unrecorded: UnrecordedCount,
    /// The file of the stage, to be removed when it is not needed any more.
    pub(crate) stage: Option<PathBuf>,
    /// The note of it in segments; `None` without a stage, and once nothing is staged any more.
    pub(crate) stage_note: Mutex<Option<StageNote>>,
    /// The stage of the last start was gone.
    pub(crate) lost_stage: bool,
    /// Held until the last handle and thread are gone.
    pub(crate) _lock: Box<dyn Send + Sync>,
}

impl SpoolShared {
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Runs `change` on the log and wakes whom it concerns.
    pub(crate) fn with_log<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.log.lock();
        let changed = change(&mut log);
        let wake_sync = std::mem::replace(&mut log.sync_idle, false);
        let wake_keeper = std::mem::replace(&mut log.wants_spare, false);
        drop(log);
        if wake_sync {
            self.syncing.bell.ring();
        }
        if wake_keeper {
            self.keeper.wake();
        }
        changed
    }

    /// Stops taking records and lets the threads finish.
    pub(crate) fn shut(&self) {
        self.log.lock().closed = true;
        self.syncing.bell.ring();
    }
}
