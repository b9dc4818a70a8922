//! How many connections to upstreams the process has at once, over all cores and both destinations.
//!
//! Whoever wants one more than there may be gets none at once: a queue would keep what waits in it. Before that an
//! unused connection makes room, whichever core keeps it.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use goldleaves_runtime::Metrics;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use super::pool::Pool;

/// The count. Clones share it.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Shared>);

struct Shared {
    max: AtomicUsize,
    used: AtomicUsize,
    /// The pools that keep unused connections; looked at only when there is no room.
    pools: Mutex<Vec<Weak<Pool>>>,
}

/// One connection's place, given back with its socket, or with the last that could use it.
pub(crate) struct Slot(Slots);

impl Slots {
    /// Room for this many connections.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max: AtomicUsize::new(max), used: AtomicUsize::new(0), pools: Mutex::default() }))
    }

    /// From now on unused connections of this pool make room for others.
    pub(crate) fn share_with(&self, pool: &Arc<Pool>) {
        let mut pools = self.0.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// A place, if there is one or an unused connection that can be closed for it.
    pub(crate) fn take(&self) -> Option<Slot> {
        loop {
            if let Some(slot) = self.try_take() {
                return Some(slot);
            }
            let pools: Vec<Arc<Pool>> = self.0.pools.lock().iter().filter_map(Weak::upgrade).collect();
            if !pools.iter().any(|pool| pool.close_oldest()) {
                // One may have been given back meanwhile.
                return self.try_take();
            }
        }
    }

    /// Shows how many connections to upstreams there are, and how many there may be.
    pub(crate) fn show(self, metrics: &Metrics) {
        let gauge = |name, help| metrics.register(name, help, Gauge::<i64, AtomicI64>::default());
        let open = gauge("upstream_connections", "Connections to upstream and billing API, unused ones included");
        let limit = gauge("upstream_connections_max", "How many there may be");
        metrics.before_reading(move || {
            limit.set(i64::try_from(self.max()).unwrap_or(i64::MAX));
            open.set(i64::try_from(self.used()).unwrap_or(i64::MAX));
        });
    }

    /// Returns the number of them.
    pub(crate) fn max(&self) -> usize {
        self.0.max.load(Ordering::Relaxed)
    }

    /// Changes how many there may be; those that are there stay.
    pub(crate) fn set_max(&self, max: usize) {
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// Connections there are now, those that are being made and those that are unused included.
    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    fn try_take(&self) -> Option<Slot> {
        let max = self.max();
        let more = |used: usize| (used < max).then_some(used + 1);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Slot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let slots = Slots::new(2);
        let (one, two) = (slots.take(), slots.take());
        assert!(one.is_some() && two.is_some() && slots.take().is_none());
        drop(one);
        assert_eq!(slots.used(), 1);
        assert!(slots.take().is_some());
    }
}
