//! Verified tokens, remembered: bounded in number and bytes, keyed by the whole token, never used past their time.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::claims::{TimeWindow, TokenError};
use crate::principal::Principal;

/// Parts with a lock each, so that cores seldom wait for one another. A power of two.
const SHARDS: usize = 32;
/// The bytes of an entry beside its token and the names in it: places in two tables, and allocations.
const ENTRY_BYTES: usize = 512;

/// Only valid tokens get in, so nobody without one can fill it or choose what collides in it.
pub(super) struct TokenCache {
    shards: Vec<Mutex<CacheShard>>,
    shard_bytes_max: usize,
}

struct CacheShard {
    entries: LruCache<Box<str>, CacheEntry>,
    bytes: usize,
}

struct CacheEntry {
    principal: Arc<Principal>,
    window: TimeWindow,
    /// The bytes that it holds, its token included.
    bytes: usize,
}

impl TokenCache {
    /// A cache of about this many bytes; 0 remembers nothing.
    pub(super) fn new(bytes_max: usize) -> Self {
        let shard = || Mutex::new(CacheShard { entries: LruCache::unbounded(), bytes: 0 });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), shard_bytes_max: bytes_max / SHARDS }
    }

    /// Returns what is remembered of a token, judged by the clock as it is now; `None` = verify it.
    pub(super) fn get(&self, token: &str, now: f64) -> Option<Result<Arc<Principal>, TokenError>> {
        let mut shard = self.shard(token)?.lock();
        let entry = shard.entries.get(token)?;
        let answer = entry.window.check(now).map(|()| Arc::clone(&entry.principal));
        if entry.window.is_over(now) {
            shard.remove(token);
        }
        Some(answer)
    }

    /// Remembers a verified token.
    pub(super) fn put(&self, token: &str, principal: &Arc<Principal>, window: TimeWindow) {
        let bytes = token.len() + principal.heap_bytes() + ENTRY_BYTES;
        let Some(shard) = self.shard(token) else { return };
        if bytes > self.shard_bytes_max {
            return;
        }
        let mut shard = shard.lock();
        shard.remove(token);
        while shard.bytes + bytes > self.shard_bytes_max {
            shard.remove_oldest();
        }
        shard.bytes += bytes;
        shard.entries.put(token.into(), CacheEntry { principal: Arc::clone(principal), window, bytes });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }

    /// By the signature's last bytes, which are as good as random.
    fn shard(&self, token: &str) -> Option<&Mutex<CacheShard>> {
        let tail = token.bytes().rev().skip(1).take(4);
        let mixed = tail.fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.shards.get(mixed % SHARDS)
    }
}

impl CacheShard {
    fn remove(&mut self, token: &str) {
        if let Some(entry) = self.entries.pop(token) {
            self.bytes -= entry.bytes;
        }
    }

    fn remove_oldest(&mut self) {
        match self.entries.pop_lru() {
            Some((_, entry)) => self.bytes -= entry.bytes,
            None => self.bytes = 0,
        }
    }
}
