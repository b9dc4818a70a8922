//! What the handles and the two threads share, and how they wake each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use uuid::Uuid;

use crate::SpoolOptions;
use crate::fs::FileSystem;
use crate::log::Log;
use crate::relay::Relay;
use crate::stage::{self, Stage};
use crate::state::StateFile;
use crate::sync::Company;
use crate::waiters::{Bell, Waiters};

/// What waiters see.
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

/// A write or sync that takes longer than this is called standing still.
const STANDS_STILL: Duration = Duration::from_secs(1);

/// Since when the disk works at the same thing.
pub(crate) struct Stall {
    opened: Instant,
    /// Milliseconds from `opened` to the beginning, plus one; 0 = at nothing.
    since: AtomicU64,
}

impl Stall {
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

/// See [`Stall::work`].
pub(crate) struct Working<'a>(&'a Stall);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Relaxed);
    }
}

/// Records of this epoch that could not be appended. Counting waits for no disk: the stage keeps the number at once, the state
/// file when the keeper comes round.
pub(crate) struct Unrecorded {
    count: Mutex<u64>,
    stage: Option<Arc<dyn Stage>>,
    is_told: AtomicBool,
}

impl Unrecorded {
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

    /// What the state file must say.
    pub(crate) fn to_keep(&self) -> u64 {
        if self.is_told.load(Ordering::Relaxed) { 0 } else { self.count() }
    }

    /// The epoch was closed, durably, with what was counted.
    pub(crate) fn forget(&self) {
        self.is_told.store(true, Ordering::Relaxed);
    }
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
    /// Held by whoever syncs.
    pub(crate) turn: Mutex<Company>,
    pub(crate) sync_failures: AtomicU32,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) state: Mutex<StateFile>,
    /// Held from reading the cursor until it is persisted and what it frees is deleted.
    pub(crate) persisting: Mutex<()>,
    pub(crate) relay: Mutex<Relay>,
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

/// The two threads; stops and joins them when the last handle goes.
#[derive(Default)]
pub(crate) struct Threads {
    running: Mutex<Option<Running>>,
}

struct Running {
    shared: Arc<Shared>,
    sync: JoinHandle<()>,
    keep: JoinHandle<()>,
}

impl Threads {
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (syncing, keeping) = (Arc::clone(shared), Arc::clone(shared));
        let sync = std::thread::Builder::new().name("spool-sync".to_owned()).spawn(move || syncing.sync_loop())?;
        let keep = std::thread::Builder::new().name("spool-keep".to_owned()).spawn(move || keeping.keep_loop());
        match keep {
            Ok(keep) => Ok(Self { running: Mutex::new(Some(Running { shared: Arc::clone(shared), sync, keep })) }),
            Err(error) => {
                shared.shut();
                let _ = sync.join();
                Err(error)
            }
        }
    }

    /// Everything durable, then the cursor, then the end. Does it once; blocks.
    pub(crate) fn stop(&self) {
        let Some(Running { shared, sync, keep }) = self.running.lock().take() else { return };
        shared.shut();
        let synced = sync.join().is_ok();
        {
            let mut signal = shared.keeper.lock();
            signal.stop = true;
            signal.wanted = true;
        }
        shared.keep_wake.notify_all();
        let kept = keep.join().is_ok();
        if !(synced && kept) {
            tracing::error!("a thread of the spool panicked");
        }
        shared.keep_round();
        shared.remove_spares();
        shared.remove_stage();
        shared.progress.send_modify(|progress| progress.closed = true);
        shared.waiters.wake_before(u64::MAX);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}
