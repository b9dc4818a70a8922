//! The tasks that wait until something is durable, and the bell of the thread that makes it so.
//!
//! Each waiter is woken once, when its own LSN is reached: a sync wakes nobody whom it does not concern.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

/// By LSN, then in order of arrival.
pub(crate) type Place = (u64, u64);

#[derive(Default)]
pub(crate) struct Waiters {
    queue: Mutex<BTreeMap<Place, Waker>>,
    /// The number that are in the queue.
    present: AtomicUsize,
    /// The number that ever came.
    came: AtomicU64,
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.present.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    pub(crate) fn join(&self, lsn: u64, waker: Waker) -> Place {
        let place = (lsn, self.came.fetch_add(1, Ordering::Relaxed));
        let mut queue = self.queue.lock();
        queue.insert(place, waker);
        self.present.store(queue.len(), Ordering::SeqCst);
        place
    }

    /// A task that is polled again may have another waker by now. `false` when it was woken, and with that left.
    pub(crate) fn renew(&self, place: Place, waker: &Waker) -> bool {
        match self.queue.lock().get_mut(&place) {
            Some(known) => known.clone_from(waker),
            None => return false,
        }
        true
    }

    /// Gives up a place, if it is still there.
    pub(crate) fn leave(&self, place: Place) {
        let mut queue = self.queue.lock();
        queue.remove(&place);
        self.present.store(queue.len(), Ordering::SeqCst);
    }

    /// Wakes those whose frame lies before `durable`.
    pub(crate) fn wake_before(&self, durable: u64) {
        if self.is_empty() {
            return;
        }
        let mut reached = Vec::new();
        {
            let mut queue = self.queue.lock();
            while let Some(first) = queue.first_entry().filter(|first| first.key().0 < durable) {
                reached.push(first.remove());
            }
            self.present.store(queue.len(), Ordering::SeqCst);
        }
        reached.into_iter().for_each(Waker::wake);
    }
}

/// Wakes the syncing thread. Ringing costs nothing while it is awake.
#[derive(Default)]
pub(crate) struct Bell {
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
}

impl Bell {
    /// Takes the calling thread for the one to wake.
    pub(crate) fn belongs_here(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    pub(crate) fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// From now on ringing wakes: to be called before the last look at what there is to do.
    pub(crate) fn arm(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    pub(crate) fn disarm(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Sleeps until the bell rings, or at most so long. May wake for nothing.
    pub(crate) fn rest(&self, longest: Option<Duration>) {
        match longest {
            Some(longest) => std::thread::park_timeout(longest),
            None => std::thread::park(),
        }
        self.disarm();
    }
}
