//! How many connections may be open at once: a number that may change while they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The number of connections that may be open at once. Clones share it.
#[derive(Debug, Clone)]
pub struct ConnectionLimit(Arc<Places>);

#[derive(Debug)]
struct Places {
    max: AtomicUsize,
    taken: AtomicUsize,
    given_back: Notify,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit(ConnectionLimit);

impl ConnectionLimit {
    /// At most this many.
    pub fn new(connections_max: usize) -> Self {
        let (max, taken) = (AtomicUsize::new(connections_max), AtomicUsize::new(0));
        Self(Arc::new(Places { max, taken, given_back: Notify::new() }))
    }

    /// At most this many from now on; those that are open stay.
    pub fn set(&self, connections_max: usize) {
        self.0.max.store(connections_max, Ordering::Relaxed);
        self.0.given_back.notify_waiters();
    }

    /// A place, if there is one.
    pub(super) fn try_take(&self) -> Option<Permit> {
        let max = self.0.max.load(Ordering::Relaxed);
        let more = |taken: usize| (taken < max).then_some(taken + 1);
        let taken = self.0.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.ok().map(|_| Permit(self.clone()))
    }

    /// A place, once there is one.
    pub(super) async fn take(&self) -> Permit {
        loop {
            let mut given_back = std::pin::pin!(self.0.given_back.notified());
            // Heard from here on: a place that is given back between the look and the wait is not missed.
            given_back.as_mut().enable();
            if let Some(permit) = self.try_take() {
                return permit;
            }
            given_back.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_that_is_given_back_or_added_goes_to_who_waits() {
        let limit = ConnectionLimit::new(1);
        let first = limit.try_take().unwrap();
        assert!(limit.try_take().is_none());
        let waiting = tokio::spawn({
            let limit = limit.clone();
            async move { limit.take().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiting.await.unwrap();
        let waiting = tokio::spawn({
            let limit = limit.clone();
            async move { limit.take().await }
        });
        tokio::task::yield_now().await;
        limit.set(2);
        let third = waiting.await.unwrap();
        limit.set(1);
        drop(second);
        assert!(limit.try_take().is_none(), "those that were open count");
        drop(third);
        assert!(limit.try_take().is_some());
    }
}
