//! A token bucket per caller: per tenant and, where there is none (open routes, tokens without a tenant), per client
//! address. The buckets are shared by all cores, in shards; their number is bounded.
//!
//! Buckets count in whole numbers, and their clock never goes back: a core that was preempted between the arrival of a
//! request and its bucket comes with an older moment than another core before it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use goldleaves_domain::TenantId;
use http::HeaderValue;
use parking_lot::Mutex;

use super::{Inward, Step};
use crate::call::{Admitted, Traced};
use crate::error::{Failure, GatewayError};

const SHARDS: usize = 64;
const CALLERS_PER_SHARD_MAX: usize = 4_096;
/// A token, in the unit that buckets count: what a limit of one request per second gains in a nanosecond.
const TOKEN: u64 = 1_000_000_000;

/// The caller whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Limited {
    /// A tenant's, from wherever they come.
    Tenant(TenantId),
    /// The calls of one client address that speak for no tenant.
    Address(HeaderValue),
}

/// The buckets of all callers.
#[derive(Debug)]
pub(crate) struct Buckets {
    per_second: u64,
    shards: Vec<Mutex<HashMap<Limited, Bucket>>>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In parts of a [`TOKEN`].
    level: u64,
    filled: Instant,
}

impl Buckets {
    /// Allows this many requests per second, and as many at once after a second of silence.
    pub(crate) fn new(per_second: u32) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { per_second: u64::from(per_second), shards, hasher: RandomState::new() }
    }

    /// Takes a token, or says how long it takes until there is one.
    pub(crate) fn take(&self, caller: &Limited, now: Instant) -> Result<(), Duration> {
        let hash = usize::try_from(self.hasher.hash_one(caller) % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(hash) else { return Ok(()) };
        let mut buckets = shard.lock();
        if let Some(bucket) = buckets.get_mut(caller) {
            return self.take_from(bucket, now);
        }
        if buckets.len() >= CALLERS_PER_SHARD_MAX {
            self.make_room(&mut buckets, now);
        }
        let mut bucket = Bucket { level: self.full(), filled: now };
        let taken = self.take_from(&mut bucket, now);
        buckets.insert(caller.clone(), bucket);
        taken
    }

    fn take_from(&self, bucket: &mut Bucket, now: Instant) -> Result<(), Duration> {
        bucket.level = self.level_at(bucket, now);
        bucket.filled = bucket.filled.max(now);
        match bucket.level.checked_sub(TOKEN) {
            Some(left) => {
                bucket.level = left;
                Ok(())
            }
            None => Err(Duration::from_nanos((TOKEN - bucket.level).div_ceil(self.per_second))),
        }
    }

    fn level_at(&self, bucket: &Bucket, now: Instant) -> u64 {
        let nanos = u64::try_from(now.saturating_duration_since(bucket.filled).as_nanos()).unwrap_or(u64::MAX);
        bucket.level.saturating_add(nanos.saturating_mul(self.per_second)).min(self.full())
    }

    const fn full(&self) -> u64 {
        self.per_second * TOKEN
    }

    /// A full bucket says the same as none; when there is none to spare, the one nearest to it goes.
    fn make_room(&self, buckets: &mut HashMap<Limited, Bucket>, now: Instant) {
        buckets.retain(|_, bucket| self.level_at(bucket, now) < self.full());
        if buckets.len() < CALLERS_PER_SHARD_MAX {
            return;
        }
        let fullest = buckets.iter().max_by_key(|(_, bucket)| self.level_at(bucket, now));
        if let Some(caller) = fullest.map(|(caller, _)| caller.clone()) {
            buckets.remove(&caller);
        }
    }
}

/// The layer; `None` = no limit.
#[derive(Debug)]
pub(crate) struct RateLimit(pub(crate) Option<Arc<Buckets>>);

impl Step<Admitted> for RateLimit {
    type Out = Admitted;
    type After = ();
    type Error = Failure;

    fn inward(&self, call: Admitted) -> Inward<Admitted, (), Failure> {
        let Some(buckets) = &self.0 else { return Inward::On(call, ()) };
        let (traced, tenant) = match &call {
            Admitted::Open { traced, .. } => (traced, None),
            Admitted::Unbilled { traced, caller, .. } => (traced, caller.tenant.as_ref()),
            Admitted::Billable { traced, caller, .. } => (traced, Some(&caller.tenant)),
        };
        match buckets.take(&limited(traced, tenant), traced.facts.arrived) {
            Ok(()) => Inward::On(call, ()),
            Err(retry_after) => Inward::Refused(GatewayError::RateLimited { retry_after }.into()),
        }
    }
}

fn limited(traced: &Traced, tenant: Option<&TenantId>) -> Limited {
    tenant.map_or_else(|| Limited::Address(traced.facts.peer.clone()), |tenant| Limited::Tenant(tenant.clone()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> Limited {
        Limited::Tenant(name.parse().unwrap())
    }

    #[test]
    fn a_bucket_refills_and_callers_do_not_share() {
        let buckets = Buckets::new(2);
        let start = Instant::now();
        let (a, b, address) = (tenant("a"), tenant("b"), Limited::Address(HeaderValue::from_static("a")));
        assert_eq!([buckets.take(&a, start), buckets.take(&a, start)], [Ok(()), Ok(())]);
        assert_eq!(buckets.take(&a, start), Err(Duration::from_millis(500)));
        assert_eq!((buckets.take(&b, start), buckets.take(&address, start)), (Ok(()), Ok(())));
        let later = start + Duration::from_millis(500);
        assert_eq!(buckets.take(&a, later), Ok(()));
        assert!(buckets.take(&a, later).is_err());
    }

    proptest! {
        /// Callers come in any order of their moments, as when cores are preempted: never more than a full bucket and
        /// what came into it until the latest moment so far.
        #[test]
        fn no_order_of_callers_gets_more(per_second in 1_u32..1_000, moments in prop::collection::vec(0_u64..5_000_000, 1..400)) {
            let buckets = Buckets::new(per_second);
            let start = Instant::now();
            let (mut latest, mut granted) = (0, 0_u64);
            for micros in moments {
                latest = latest.max(micros);
                if buckets.take(&tenant("a"), start + Duration::from_micros(micros)).is_ok() {
                    granted += 1;
                }
                let allowed = u64::from(per_second) * (1_000_000 + latest) / 1_000_000;
                prop_assert!(granted <= allowed, "{granted} of {allowed} after {latest} µs");
            }
        }

        /// Callers whose moments only grow get all of it: none is lost to rounding.
        #[test]
        fn steady_callers_get_what_is_theirs(per_second in 1_u32..1_000, seconds in 1_u64..5) {
            let buckets = Buckets::new(per_second);
            let start = Instant::now();
            let every = Duration::from_micros(250);
            let calls = seconds * 4_000;
            let granted = (0..=calls)
                .filter(|index| buckets.take(&tenant("a"), start + every * u32::try_from(*index).unwrap()).is_ok())
                .count() as u64;
            prop_assert_eq!(granted, u64::from(per_second) * (1 + seconds));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = Buckets::new(1);
        let now = Instant::now();
        for number in 0..SHARDS * CALLERS_PER_SHARD_MAX / 8 {
            let _ = buckets.take(&tenant(&number.to_string()), now);
        }
        let mut small = HashMap::new();
        for number in 0..=CALLERS_PER_SHARD_MAX {
            small.insert(tenant(&number.to_string()), Bucket { level: 0, filled: now });
        }
        buckets.make_room(&mut small, now);
        assert!(small.len() <= CALLERS_PER_SHARD_MAX);
        small.values_mut().for_each(|bucket| bucket.level = TOKEN);
        small.extend(
            (0..CALLERS_PER_SHARD_MAX)
                .map(|number| (tenant(&format!("x{number}")), Bucket { level: TOKEN, filled: now })),
        );
        buckets.make_room(&mut small, now);
        assert_eq!(small.len(), 0, "full buckets say nothing");
    }
}
