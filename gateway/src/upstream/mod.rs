//! Upstreams: the addresses that each has, which of them a call goes to, and what is done to keep that known.
//!
//! Nothing here speaks HTTP to an upstream but health checks; [`crate::proxy`] does, over connections that the addresses
//! keep for each core.

mod address;
mod clock;
mod health;
mod known;
mod metrics;
mod outage;
mod score;
mod shown;
mod silence;
mod standing;
mod tally;
#[cfg(test)]
mod tests;
mod upkeep;
mod workshop;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use goldleaves_web::Buffers;
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::destination::Destination;
use crate::transport::{ConnectError, Origin, PoolOptions, Slots, Speaks, Tls};

pub(crate) use address::{Address, UnderWay};
pub(crate) use clock::Clock;
pub(crate) use health::Health;
use known::Known;
pub(crate) use metrics::{CallResult, RetryReason, UpstreamMetrics, Upstreams};
pub(crate) use standing::Answered;
use standing::{Choices, Standing, choose, judge};
use tally::Tally;
pub(crate) use upkeep::first_look_up;
pub(crate) use workshop::Workshop;

/// The most times a call is sent again.
pub(crate) const RETRIES_MAX: usize = 2;
/// A fifth of the calls of the last ten seconds may be sent again, and three per second.
const RETRIED_SHARE: u64 = 5;
const RETRIED_ANYWAY: u64 = 30;

/// The settings of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamSpec {
    pub(crate) name: String,
    pub(crate) whom: Destination,
    pub(crate) origins: Vec<Arc<Origin>>,
    /// Calls that may be under way at once in this process.
    pub(crate) requests_max: Option<usize>,
    pub(crate) connect_timeout: Duration,
    pub(crate) health: Option<Health>,
    pub(crate) protocol: Option<Speaks>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) pool: PoolOptions,
}

impl UpstreamSpec {
    /// Returns whether connections are made in the same way, so that those that are open can be kept.
    fn connects_like(&self, other: &Self) -> bool {
        let way = |spec: &Self| (spec.connect_timeout, spec.tls.clone(), spec.protocol, spec.pool);
        way(self) == way(other)
    }
}

/// The parts that the connections of all upstreams have in common.
#[derive(Clone)]
pub(crate) struct Plumbing {
    /// Each core's own.
    pub(crate) buffers: Vec<Buffers>,
    pub(crate) slots: Slots,
    /// One for all, for what is known of an address outlives upstreams.
    pub(crate) clock: Clock,
}

/// The addresses that calls may go to now.
type List = Arc<[Arc<Address>]>;

/// One upstream. All cores share it; what a call looks at is in atomics, or behind a lock of its core alone.
pub(crate) struct Upstream {
    spec: UpstreamSpec,
    plumbing: Plumbing,
    clock: Clock,
    /// One per core, written when the addresses change.
    lists: Box<[Mutex<List>]>,
    known: Mutex<Known>,
    calls: Tally,
    retries: Tally,
    /// Counted only where there is a limit.
    requests: AtomicUsize,
    metrics: Arc<UpstreamMetrics>,
    /// Wakes the upkeep.
    attention: Arc<Notify>,
    /// Cancelled when nobody needs it any more.
    over: CancellationToken,
}

/// The reason a call goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPick {
    /// No address is known.
    NoAddress,
    /// `requests_max` calls are under way.
    Busy,
}

/// One of `requests_max`.
#[derive(Debug)]
pub(crate) struct Request(Option<Arc<Upstream>>);

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(upstream) = &self.0 {
            upstream.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Upstream {
    /// An upstream of which only those addresses are known that need no look-up.
    /// Those of the one that it takes the place of are kept, with what is known of them.
    pub(crate) fn new(spec: UpstreamSpec, workshop: &Workshop, before: Option<&Self>) -> Arc<Self> {
        let (plumbing, metrics) = (workshop.plumbing.clone(), workshop.counters.of(&spec.name));
        let lists = plumbing.buffers.iter().map(|_| Mutex::new(List::default())).collect();
        let upstream = Arc::new(Self {
            known: Mutex::new(Known::new(&spec, &plumbing, before)),
            spec,
            clock: plumbing.clock,
            plumbing,
            lists,
            calls: Tally::default(),
            retries: Tally::default(),
            requests: AtomicUsize::new(0),
            metrics,
            attention: Arc::default(),
            over: CancellationToken::new(),
        });
        if let Some(tls) = &upstream.spec.tls {
            tls.warn_of_open_key();
        }
        upstream.learn_what_is_written();
        upstream.refresh();
        upstream.metrics.shows(&upstream);
        upstream
    }

    pub(crate) const fn spec(&self) -> &UpstreamSpec {
        &self.spec
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) const fn whom(&self) -> Destination {
        self.spec.whom
    }

    pub(crate) fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    /// The version of HTTP that its calls go over, but for gRPC where no entry says it.
    pub(crate) fn speaks(&self) -> Speaks {
        self.spec.protocol.unwrap_or(Speaks::One)
    }

    /// For `Host` of requests that had none.
    pub(crate) fn origin(&self) -> Option<&Arc<Origin>> {
        self.spec.origins.first()
    }

    /// A place among those of `requests_max`.
    pub(crate) fn request(self: &Arc<Self>) -> Result<Request, NoPick> {
        let Some(max) = self.spec.requests_max else { return Ok(Request(None)) };
        let request = Request(Some(Arc::clone(self)));
        // The place is taken first, and given back by its drop where there was none.
        if self.requests.fetch_add(1, Ordering::Relaxed) < max { Ok(request) } else { Err(NoPick::Busy) }
    }

    /// The address that a call goes to; those that it was at already only when there is no other.
    pub(crate) fn pick(&self, core: usize, tried: &[Arc<Address>]) -> Result<UnderWay, NoPick> {
        let list = self.list(core);
        let candidates = Candidates { list: &list, tried };
        if let [address] = &*list {
            return Ok(UnderWay::alone(Arc::clone(address)));
        }
        let now = self.clock.now();
        let index = choose(&candidates, now, |below| rand::rng().random_range(0..below));
        let address = index.and_then(|index| list.get(index)).ok_or(NoPick::NoAddress)?;
        Ok(UnderWay::chosen(Arc::clone(address), self.clock, now))
    }

    /// Returns whether there is an address that a call was not at.
    pub(crate) fn has_untried(&self, core: usize, tried: &[Arc<Address>]) -> bool {
        let list = self.list(core);
        let candidates = Candidates { list: &list, tried };
        (0..list.len()).any(|index| !candidates.is_tried(index))
    }

    /// A call begins, however often it will be sent.
    pub(crate) fn called(&self, now: Instant) {
        self.calls.count(self.clock.at(now), false);
    }

    /// Returns whether one more call may be sent again; it counts as sent again then.
    pub(crate) fn may_retry(&self) -> bool {
        let now = self.clock.now();
        let most = self.calls.recent(now).total / RETRIED_SHARE + RETRIED_ANYWAY;
        let may = self.retries.recent(now).total < most;
        if may {
            self.retries.count(now, false);
        } else {
            self.metrics.retry_denied();
        }
        may
    }

    /// No connection could be made.
    pub(crate) fn connect_failed(&self, address: &Address, error: &ConnectError) {
        if address.standing.outage.connect_failed(self.clock.now()) {
            self.metrics.ejected(outage::Reason::Connect);
            let (upstream, address, why) = (self.name(), address.target(), error.why());
            tracing::warn!(upstream, %address, why, "can't connect; calls go elsewhere");
        }
        // The other family of the name may be the one that answers.
        self.refresh();
        self.attention.notify_one();
    }

    /// A connection was made.
    pub(crate) fn connected(&self, address: &Address) {
        if address.standing.outage.is_unreachable() {
            address.standing.outage.connected();
            self.refresh();
        }
    }

    /// A call over an address was answered, or will not be.
    pub(crate) fn answered(&self, core: usize, address: &Arc<Address>, took: Duration, how: Answered) {
        let list = self.list(core);
        if list.len() < 2 {
            return;
        }
        let now = self.clock.now();
        address.standing.answered(now, took, how);
        if how == Answered::Badly
            && let Some(index) = list.iter().position(|other| Arc::ptr_eq(other, address))
            && judge(&Candidates { list: &list, tried: &[] }, index, now)
        {
            self.metrics.ejected(outage::Reason::Answers);
            tracing::warn!(upstream = self.name(), address = %address.target(), "answers badly, others don't; calls go elsewhere");
        }
    }

    /// Closes what has not been used for too long.
    fn sweep(&self) {
        self.known.lock().all().iter().flat_map(|address| address.pools()).for_each(|pool| pool.sweep());
    }

    fn list(&self, core: usize) -> List {
        self.lists.get(core).map(|list| Arc::clone(&list.lock())).unwrap_or_default()
    }

    /// The addresses, whichever core asks.
    fn addresses(&self) -> List {
        self.list(0)
    }

    /// Gives every core the addresses that calls may go to now.
    fn refresh(&self) {
        let list: List = self.known.lock().in_use().into();
        for core in &self.lists {
            *core.lock() = Arc::clone(&list);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Upstream").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The addresses among which one call's is chosen.
struct Candidates<'a> {
    list: &'a [Arc<Address>],
    tried: &'a [Arc<Address>],
}

impl Choices for Candidates<'_> {
    fn count(&self) -> usize {
        self.list.len()
    }

    fn standing(&self, index: usize) -> Option<&Standing> {
        self.list.get(index).map(|address| &*address.standing)
    }

    fn is_tried(&self, index: usize) -> bool {
        let Some(address) = self.list.get(index) else { return true };
        self.tried.iter().any(|tried| Arc::ptr_eq(tried, address))
    }
}
