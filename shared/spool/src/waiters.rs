//! Those who wait until something is durable, and the bell of the thread that makes it so.
//!
//! Each waiter is woken once, when its own LSN is reached: a sync wakes nobody whom it does not concern.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::SpoolError;
use crate::shared::Shared;

/// How a waiter is woken, and whether it could sync for itself.
pub(crate) enum Sleeper {
    /// Must not block.
    Task(Waker),
    Thread(Thread),
}

impl Sleeper {
    fn wake(self) {
        match self {
            Self::Task(waker) => waker.wake(),
            Self::Thread(thread) => thread.unpark(),
        }
    }
}

/// By LSN, then in order of arrival.
type Place = (u64, u64);

#[derive(Default)]
pub(crate) struct Waiters {
    queue: Mutex<BTreeMap<Place, Sleeper>>,
    /// How many are in the queue.
    present: AtomicUsize,
    /// How many ever came.
    came: AtomicU64,
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.present.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    fn join(&self, lsn: u64, sleeper: Sleeper) -> Place {
        let place = (lsn, self.came.fetch_add(1, Ordering::Relaxed));
        let mut queue = self.queue.lock();
        queue.insert(place, sleeper);
        self.present.store(queue.len(), Ordering::SeqCst);
        place
    }

    /// A task that is polled again may have another waker by now. `false` when it was woken, and with that left.
    fn renew(&self, place: Place, waker: &Waker) -> bool {
        match self.queue.lock().get_mut(&place) {
            Some(Sleeper::Task(known)) => known.clone_from(waker),
            Some(other) => *other = Sleeper::Task(waker.clone()),
            None => return false,
        }
        true
    }

    /// Whether it had not been woken.
    fn leave(&self, place: Place) -> bool {
        let mut queue = self.queue.lock();
        let was_there = queue.remove(&place).is_some();
        self.present.store(queue.len(), Ordering::SeqCst);
        was_there
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
        reached.into_iter().for_each(Sleeper::wake);
    }

    /// The thread that waits longest, if it can sync for itself; it stays in the queue.
    pub(crate) fn first_thread(&self) -> Option<Thread> {
        match self.queue.lock().first_key_value() {
            Some((_, Sleeper::Thread(thread))) => Some(thread.clone()),
            _ => None,
        }
    }
}

/// Wakes the syncing thread. Ringing costs nothing while it is awake.
#[derive(Default)]
pub(crate) struct Bell {
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
}

impl Bell {
    /// Of the calling thread.
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

/// The wait of a task.
pub(crate) struct Durability {
    shared: Arc<Shared>,
    lsn: u64,
    place: Option<Place>,
}

impl Durability {
    pub(crate) fn new(shared: &Arc<Shared>, lsn: u64) -> Self {
        Self { shared: Arc::clone(shared), lsn, place: None }
    }

    fn join(&mut self, waker: &Waker) {
        let waiters = &self.shared.waiters;
        if self.place.is_some_and(|place| waiters.renew(place, waker)) {
            return;
        }
        self.place = Some(waiters.join(self.lsn, Sleeper::Task(waker.clone())));
        self.shared.bell.ring();
    }
}

impl Future for Durability {
    type Output = Result<(), SpoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.shared.outcome(self.lsn) {
            return Poll::Ready(outcome);
        }
        self.join(cx.waker());
        // Between the question and the joining it may have come about.
        self.shared.outcome(self.lsn).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Durability {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.waiters.leave(place);
        }
    }
}

/// A thread's place in the queue; it leaves when this is dropped.
pub(crate) struct Standing<'a> {
    shared: &'a Shared,
    place: Place,
}

impl<'a> Standing<'a> {
    pub(crate) fn new(shared: &'a Shared, lsn: u64) -> Self {
        let place = shared.waiters.join(lsn, Sleeper::Thread(std::thread::current()));
        Self { shared, place }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        // It may have been told to sync, and panicked.
        if self.shared.waiters.leave(self.place) {
            self.shared.hand_on();
        }
    }
}
