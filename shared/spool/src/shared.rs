//! The state that the handles and the two threads share, and how they wake each other. What the threads do is in
//! `sync.rs` and `keep.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use uuid::Uuid;

use crate::cursor::CursorState;
use crate::fs::FileSystem;
use crate::log::Log;
use crate::options::SpoolOptions;
use crate::stall::Stall;
use crate::state::StateFile;
use crate::unrecorded::Unrecorded;
use crate::waiters::{Bell, Waiters};

/// The progress that waiters see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Every frame before this LSN is durable.
    pub(crate) durable: u64,
    pub(crate) broken: bool,
    pub(crate) closed: bool,
    /// Changes when the reader was sent back.
    pub(crate) rewinds: u64,
}

#[derive(Debug, Default)]
pub(crate) struct KeeperSignal {
    pub(crate) wanted: bool,
    pub(crate) cursor_moved: bool,
    pub(crate) stop: bool,
}

pub(crate) struct Shared {
    pub(crate) options: SpoolOptions,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) id: Uuid,
    pub(crate) epoch: Uuid,
    pub(crate) log: Mutex<Log>,
    /// Wakes the syncing thread.
    pub(crate) bell: Bell,
    pub(crate) waiters: Waiters,
    pub(crate) sync_failures: AtomicU32,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) state: Mutex<StateFile>,
    /// Held from reading the cursor until it is persisted and what it frees is deleted.
    pub(crate) persisting: Mutex<()>,
    pub(crate) relay: Mutex<CursorState>,
    pub(crate) keeper: Mutex<KeeperSignal>,
    pub(crate) keep_wake: Condvar,
    pub(crate) last_number: AtomicU64,
    /// Bytes that turned out unreadable since the start.
    pub(crate) unreadable_bytes: AtomicU64,
    pub(crate) unrecorded: Unrecorded,
    pub(crate) stall: Stall,
    /// The file of the stage, to be removed when it is not needed any more.
    pub(crate) stage: Option<PathBuf>,
    /// Held until the last handle and thread are gone.
    pub(crate) _lock: Box<dyn Send + Sync>,
}

impl Shared {
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn publish(&self, durable: u64, broken: bool) {
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.durable = progress.durable.max(durable);
            progress.broken = broken;
            *progress != before
        });
        self.waiters.wake_before(if broken { u64::MAX } else { durable });
    }

    pub(crate) fn wake_keeper(&self) {
        self.keeper.lock().wanted = true;
        self.keep_wake.notify_one();
    }

    /// An acknowledgement: the keeper is told, but need not hurry.
    pub(crate) fn cursor_moved(&self) {
        let mut signal = self.keeper.lock();
        if !signal.cursor_moved {
            signal.cursor_moved = true;
            signal.wanted = true;
            self.keep_wake.notify_one();
        }
    }

    /// Runs `change` on the log and wakes whom it concerns.
    pub(crate) fn with_log<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.log.lock();
        let changed = change(&mut log);
        let wake_sync = std::mem::replace(&mut log.sync_idle, false);
        let wake_keeper = std::mem::replace(&mut log.wants_spare, false);
        drop(log);
        if wake_sync {
            self.bell.ring();
        }
        if wake_keeper {
            self.wake_keeper();
        }
        changed
    }

    /// Stops taking records and lets the threads finish.
    pub(crate) fn shut(&self) {
        self.log.lock().closed = true;
        self.bell.ring();
    }
}
