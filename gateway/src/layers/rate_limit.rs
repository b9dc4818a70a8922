//! A token bucket a tenant. The buckets are shared by all cores, in shards; their number is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use goldleaves_domain::TenantId;
use parking_lot::Mutex;

use super::{Inward, Step};
use crate::call::Admitted;
use crate::error::{Failure, GatewayError};

const SHARDS: usize = 64;
const TENANTS_A_SHARD_MAX: usize = 4_096;

/// The buckets of all tenants.
#[derive(Debug)]
pub(crate) struct TenantBuckets {
    per_second: f64,
    shards: Vec<Mutex<HashMap<TenantId, Bucket>>>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl TenantBuckets {
    /// So many requests a second, and as many at once after a second of silence.
    pub(crate) fn new(per_second: u32) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { per_second: f64::from(per_second), shards, hasher: RandomState::new() }
    }

    /// Takes a token, or says how long it takes until there is one.
    pub(crate) fn take(&self, tenant: &TenantId, now: Instant) -> Result<(), Duration> {
        let hash = usize::try_from(self.hasher.hash_one(tenant) % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(hash) else { return Ok(()) };
        let mut buckets = shard.lock();
        if let Some(bucket) = buckets.get_mut(tenant) {
            return self.take_from(bucket, now);
        }
        if buckets.len() >= TENANTS_A_SHARD_MAX {
            self.make_room(&mut buckets, now);
        }
        let mut bucket = Bucket { tokens: self.per_second, filled: now };
        let taken = self.take_from(&mut bucket, now);
        buckets.insert(tenant.clone(), bucket);
        taken
    }

    fn take_from(&self, bucket: &mut Bucket, now: Instant) -> Result<(), Duration> {
        bucket.tokens = self.tokens_at(bucket, now);
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second))
    }

    fn tokens_at(&self, bucket: &Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.filled).as_secs_f64() * self.per_second;
        (bucket.tokens + gained).min(self.per_second)
    }

    /// A full bucket says the same as none; when there is none to spare, the one nearest to it goes.
    fn make_room(&self, buckets: &mut HashMap<TenantId, Bucket>, now: Instant) {
        buckets.retain(|_, bucket| self.tokens_at(bucket, now) < self.per_second);
        if buckets.len() < TENANTS_A_SHARD_MAX {
            return;
        }
        let fullest = buckets
            .iter()
            .max_by(|(_, one), (_, other)| self.tokens_at(one, now).total_cmp(&self.tokens_at(other, now)))
            .map(|(tenant, _)| tenant.clone());
        if let Some(tenant) = fullest {
            buckets.remove(&tenant);
        }
    }
}

/// The layer; `None` = no limit.
#[derive(Debug)]
pub(crate) struct RateLimit(pub(crate) Option<Arc<TenantBuckets>>);

impl Step<Admitted> for RateLimit {
    type Out = Admitted;
    type After = ();
    type Error = Failure;

    fn inward(&self, call: Admitted) -> Inward<Admitted, (), Failure> {
        let Some(buckets) = &self.0 else { return Inward::On(call, ()) };
        let (tenant, now) = match &call {
            Admitted::Open { .. } => return Inward::On(call, ()),
            Admitted::Unbilled { traced, caller, .. } => (caller.tenant.as_ref(), traced.facts.arrived),
            Admitted::Billable { traced, tenant, .. } => (Some(tenant), traced.facts.arrived),
        };
        match tenant.map_or(Ok(()), |tenant| buckets.take(tenant, now)) {
            Ok(()) => Inward::On(call, ()),
            Err(retry_after) => Inward::Refused(GatewayError::RateLimited { retry_after }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn a_bucket_refills_and_tenants_do_not_share() {
        let buckets = TenantBuckets::new(2);
        let start = Instant::now();
        let (a, b) = (tenant("a"), tenant("b"));
        assert_eq!([buckets.take(&a, start), buckets.take(&a, start)], [Ok(()), Ok(())]);
        assert_eq!(buckets.take(&a, start), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(&b, start), Ok(()));
        let later = start + Duration::from_millis(500);
        assert_eq!(buckets.take(&a, later), Ok(()));
        assert!(buckets.take(&a, later).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = TenantBuckets::new(1);
        let now = Instant::now();
        for number in 0..SHARDS * TENANTS_A_SHARD_MAX / 8 {
            let _ = buckets.take(&tenant(&number.to_string()), now);
        }
        let mut small = HashMap::new();
        for number in 0..=TENANTS_A_SHARD_MAX {
            small.insert(tenant(&number.to_string()), Bucket { tokens: 0.0, filled: now });
        }
        buckets.make_room(&mut small, now);
        assert!(small.len() <= TENANTS_A_SHARD_MAX);
        small.values_mut().for_each(|bucket| bucket.tokens = 1.0);
        small.extend(
            (0..TENANTS_A_SHARD_MAX).map(|number| (tenant(&format!("x{number}")), Bucket { tokens: 1.0, filled: now })),
        );
        buckets.make_room(&mut small, now);
        assert_eq!(small.len(), 0, "full buckets say nothing");
    }
}
