//! The two threads of an open spool, above everything that they run.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::shared::SpoolShared;

/// The two threads; stops and joins them when the last handle goes.
#[derive(Default)]
pub(crate) struct Threads {
    running: Mutex<Option<RunningThread>>,
}

struct RunningThread {
    shared: Arc<SpoolShared>,
    sync: JoinHandle<()>,
    keep: JoinHandle<()>,
}

impl Threads {
    pub(crate) fn start(shared: &Arc<SpoolShared>) -> std::io::Result<Self> {
        let (syncing, keeping) = (Arc::clone(shared), Arc::clone(shared));
        let sync = std::thread::Builder::new().name("spool-sync".to_owned()).spawn(move || syncing.sync_loop())?;
        let keep = std::thread::Builder::new().name("spool-keep".to_owned()).spawn(move || keeping.keep_loop());
        match keep {
            Ok(keep) => {
                Ok(Self { running: Mutex::new(Some(RunningThread { shared: Arc::clone(shared), sync, keep })) })
            }
            Err(error) => {
                shared.shut();
                let _ = sync.join();
                Err(error)
            }
        }
    }

    /// Everything durable, then the cursor, then the end. Does it once; blocks.
    pub(crate) fn stop(&self) {
        let Some(RunningThread { shared, sync, keep }) = self.running.lock().take() else { return };
        shared.shut();
        let synced = sync.join().is_ok();
        shared.keeper.stop();
        let kept = keep.join().is_ok();
        if !(synced && kept) {
            tracing::error!("a thread of the spool panicked");
        }
        shared.keep_round();
        shared.remove_spares();
        shared.remove_stage();
        shared.syncing.end();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}
