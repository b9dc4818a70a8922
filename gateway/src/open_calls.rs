//! The open calls of each tenant in this process and, without a tenant (open routes, tokens without one), of each client
//! address, so that open calls of one leave room for those of others. A call lasts until its answer, or its tunnel, has
//! ended.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use goldleaves_domain::TenantId;
use http::HeaderValue;
use parking_lot::Mutex;

const SHARDS: usize = 64;
/// A shard with more callers than this forgets those that have no call open, and again at twice what is left.
const CALLERS_KEPT: usize = 256;

/// The open calls of all callers, for all cores.
#[derive(Debug)]
pub(crate) struct OpenCalls {
    tenants: Counts<TenantId>,
    addresses: Counts<HeaderValue>,
}

/// The open calls of callers of one kind.
#[derive(Debug)]
struct Counts<K> {
    per_caller_max: AtomicUsize,
    shards: Vec<Mutex<Shard<K>>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Shard<K> {
    callers: HashMap<K, Arc<AtomicUsize>>,
    cleaned: usize,
}

/// The place of one open call.
#[derive(Debug)]
pub(crate) struct OpenCall(Arc<AtomicUsize>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OpenCalls {
    pub(crate) fn new(per_caller_max: usize) -> Self {
        Self { tenants: Counts::new(per_caller_max), addresses: Counts::new(per_caller_max) }
    }

    /// A place for one more call of a tenant, if there is one.
    pub(crate) fn of_tenant(&self, tenant: &TenantId) -> Option<OpenCall> {
        self.tenants.open(tenant)
    }

    /// A place for one more call without a tenant from an address, if there is one.
    pub(crate) fn of_address(&self, address: &HeaderValue) -> Option<OpenCall> {
        self.addresses.open(address)
    }

    /// Allows this many calls of one caller from now on; those that are open stay.
    pub(crate) fn set_max(&self, per_caller_max: usize) {
        self.tenants.per_caller_max.store(per_caller_max, Ordering::Relaxed);
        self.addresses.per_caller_max.store(per_caller_max, Ordering::Relaxed);
    }
}

impl<K: Clone + Eq + Hash> Counts<K> {
    fn new(per_caller_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard { callers: HashMap::new(), cleaned: 0 })).collect();
        Self { per_caller_max: AtomicUsize::new(per_caller_max), shards, hasher: RandomState::new() }
    }

    /// A place for one more call of the caller, if there is one.
    fn open(&self, caller: &K) -> Option<OpenCall> {
        let hash = usize::try_from(self.hasher.hash_one(caller) % SHARDS as u64).unwrap_or(0);
        let mut shard = self.shards.get(hash)?.lock();
        let count = match shard.callers.get(caller) {
            Some(count) => Arc::clone(count),
            None => shard.add(caller),
        };
        drop(shard);
        let place = OpenCall(count);
        // The place is taken first, and given back by its drop where there was none.
        (place.0.fetch_add(1, Ordering::Relaxed) < self.per_caller_max.load(Ordering::Relaxed)).then_some(place)
    }
}

impl<K: Clone + Eq + Hash> Shard<K> {
    fn add(&mut self, caller: &K) -> Arc<AtomicUsize> {
        if self.callers.len() >= CALLERS_KEPT.max(2 * self.cleaned) {
            self.callers.retain(|_, count| Arc::strong_count(count) > 1);
            self.cleaned = self.callers.len();
        }
        Arc::clone(self.callers.entry(caller.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn a_tenant_has_so_many_places_and_gets_them_back() {
        let calls = Counts::new(2);
        let (a, b) = (tenant("a"), tenant("b"));
        let first = calls.open(&a).unwrap();
        let _second = calls.open(&a).unwrap();
        assert!(calls.open(&a).is_none() && calls.open(&a).is_none());
        assert!(calls.open(&b).is_some(), "tenants do not share");
        drop(first);
        let _third = calls.open(&a).unwrap();
        assert!(calls.open(&a).is_none(), "what was refused took no place");
    }

    #[test]
    fn tenants_without_open_calls_are_forgotten() {
        let calls = Counts::new(1);
        let kept = calls.open(&tenant("kept")).unwrap();
        for number in 0..SHARDS * CALLERS_KEPT * 3 {
            assert!(calls.open(&tenant(&number.to_string())).is_some());
        }
        let known: usize = calls.shards.iter().map(|shard| shard.lock().callers.len()).sum();
        assert!(known <= SHARDS * (CALLERS_KEPT + 1), "{known}");
        assert!(calls.open(&tenant("kept")).is_none());
        drop(kept);
        assert!(calls.open(&tenant("kept")).is_some());
    }
}
