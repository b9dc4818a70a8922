//! The numbers of each upstream. They belong to its name, and go on when a reload makes another upstream of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use goldleaves_runtime::Metrics;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Upstream;
use super::outage::Reason;
use crate::metrics::LATENCY_BOUNDS;

/// The outcome of a call to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallResult {
    /// Its head came.
    Answered,
    /// No connection could be made.
    Unreachable,
    /// It broke off before its head.
    Broke,
    /// Its head did not come in time.
    Silent,
    /// The client broke off its own request.
    ClientLeft,
    /// Too many calls or connections at once.
    Busy,
}

/// The reason a call was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryReason {
    /// No connection could be made.
    Connect,
    /// A reused connection broke before it said anything.
    Reused,
    /// The upstream refused it before it looked at it (HTTP/2).
    Refused,
}

impl CallResult {
    const ALL: [Self; 6] = [Self::Answered, Self::Unreachable, Self::Broke, Self::Silent, Self::ClientLeft, Self::Busy];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::Broke => "broke",
            Self::Silent => "silent",
            Self::ClientLeft => "client_left",
            Self::Busy => "busy",
        }
    }
}

impl RetryReason {
    const ALL: [Self; 3] = [Self::Connect, Self::Reused, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reused => "reused",
            Self::Refused => "refused",
        }
    }
}

/// One upstream's counters.
#[derive(Debug)]
pub(crate) struct UpstreamMetrics {
    /// The counters of each core.
    cores: Box<[PerCore]>,
    ejections: [AtomicU64; Reason::ALL.len()],
    retried: [AtomicU64; RetryReason::ALL.len()],
    denied: AtomicU64,
    look_ups_failed: AtomicU64,
    shown: Mutex<Weak<Upstream>>,
}

#[derive(Debug, Default)]
struct PerCore {
    results: [AtomicU64; CallResult::ALL.len()],
    latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    micros: AtomicU64,
}

fn count(counter: Option<&AtomicU64>) {
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl UpstreamMetrics {
    fn new(cores: usize) -> Self {
        Self {
            cores: (0..cores).map(|_| PerCore::default()).collect(),
            ejections: Default::default(),
            retried: Default::default(),
            denied: AtomicU64::new(0),
            look_ups_failed: AtomicU64::new(0),
            shown: Mutex::new(Weak::new()),
        }
    }

    /// Its addresses are those that are shown from now on.
    pub(super) fn shows(&self, upstream: &Arc<Upstream>) {
        *self.shown.lock() = Arc::downgrade(upstream);
    }

    /// A call is over, or has its head.
    pub(crate) fn called(&self, core: usize, result: CallResult) {
        count(self.cores.get(core).and_then(|core| core.results.get(result as usize)));
    }

    /// A head came after so long.
    pub(crate) fn answered(&self, core: usize, after: Duration) {
        let Some(core) = self.cores.get(core) else { return };
        let seconds = after.as_secs_f64();
        count(core.results.get(CallResult::Answered as usize));
        count(core.latency.get(LATENCY_BOUNDS.partition_point(|bound| *bound < seconds)));
        core.micros.fetch_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn retried(&self, reason: RetryReason) {
        count(self.retried.get(reason as usize));
    }

    pub(super) fn ejected(&self, reason: Reason) {
        count(self.ejections.get(reason as usize));
    }

    pub(super) fn retry_denied(&self) {
        count(Some(&self.denied));
    }

    pub(super) fn look_up_failed(&self) {
        count(Some(&self.look_ups_failed));
    }

    fn sum(&self, read: impl Fn(&PerCore) -> Option<&AtomicU64>) -> u64 {
        self.cores.iter().filter_map(read).map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    fn addresses(&self) -> Vec<Arc<super::Address>> {
        self.shown.lock().upgrade().map(|upstream| upstream.addresses().to_vec()).unwrap_or_default()
    }

    fn in_state(&self, reason: Option<Reason>) -> u64 {
        let Some(upstream) = self.shown.lock().upgrade() else { return 0 };
        let now = upstream.clock.now();
        let list = upstream.addresses();
        list.iter().filter(|address| address.standing.outage.reason(now) == reason).count() as u64
    }
}

/// The counters of all upstreams, by name. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Upstreams {
    cores: usize,
    all: Arc<Mutex<BTreeMap<String, Arc<UpstreamMetrics>>>>,
}

impl Upstreams {
    /// Shows the counters of all upstreams that there will be.
    pub(crate) fn register(metrics: &Metrics, cores: usize) -> Self {
        let this = Self { cores, all: Arc::default() };
        let show = |name, help, read| metrics.register(name, help, Shown { upstreams: this.clone(), read });
        show("upstream_calls", "Calls to an upstream, by how they went", Read::Calls);
        show("upstream_call_seconds", "From a call sent to an upstream to the head of its answer", Read::Seconds);
        show("upstream_addresses", "Addresses of an upstream, in service or why not", Read::Addresses);
        show("upstream_outstanding", "Calls under way to an upstream", Read::Outstanding);
        show("upstream_ejections", "Addresses put out of service, by reason", Read::Ejections);
        show("upstream_calls_retried", "Calls sent again to an upstream, by reason", Read::Retried);
        show("upstream_retries_denied", "Calls not sent again, since too many were", Read::Denied);
        show("upstream_resolve_failures", "Look-ups of an upstream's names that gave no address", Read::LookUps);
        this
    }

    /// The counters of an upstream by this name.
    pub(crate) fn of(&self, name: &str) -> Arc<UpstreamMetrics> {
        let mut all = self.all.lock();
        let new = || Arc::new(UpstreamMetrics::new(self.cores));
        Arc::clone(all.entry(name.to_owned()).or_insert_with(new))
    }
}

#[derive(Debug, Clone)]
struct Shown {
    upstreams: Upstreams,
    read: Read,
}

#[derive(Debug, Clone, Copy)]
enum Read {
    Calls,
    Seconds,
    Addresses,
    Outstanding,
    Ejections,
    Retried,
    Denied,
    LookUps,
}

impl Shown {
    fn encode_one(&self, name: &str, of: &UpstreamMetrics, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        match self.read {
            Read::Calls => {
                let totals =
                    CallResult::ALL.map(|result| (result.as_str(), of.sum(|core| core.results.get(result as usize))));
                counters(encoder, name, "result", &totals)
            }
            Read::Seconds => seconds(encoder, name, of),
            Read::Addresses => {
                let states = Reason::ALL.map(|reason| (reason.as_str(), of.in_state(Some(reason))));
                let states = std::iter::once(("in_service", of.in_state(None))).chain(states);
                for (state, count) in states {
                    let labels = [("upstream", name), ("state", state)];
                    encoder.encode_family(&labels)?.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
                }
                Ok(())
            }
            Read::Outstanding => {
                let all: usize = of.addresses().iter().map(|address| address.standing.outstanding()).sum();
                let labels = [("upstream", name)];
                encoder.encode_family(&labels)?.encode_gauge(&i64::try_from(all).unwrap_or(i64::MAX))
            }
            Read::Ejections => {
                let totals =
                    Reason::ALL.map(|reason| (reason.as_str(), of.ejections.get(reason as usize).map_or(0, load)));
                counters(encoder, name, "reason", &totals)
            }
            Read::Retried => {
                let totals =
                    RetryReason::ALL.map(|reason| (reason.as_str(), of.retried.get(reason as usize).map_or(0, load)));
                counters(encoder, name, "reason", &totals)
            }
            Read::Denied => counter(encoder, name, load(&of.denied)),
            Read::LookUps => counter(encoder, name, load(&of.look_ups_failed)),
        }
    }
}

fn counters(encoder: &mut MetricEncoder<'_>, name: &str, label: &str, totals: &[(&str, u64)]) -> fmt::Result {
    for (word, total) in totals {
        let labels = [("upstream", name), (label, word)];
        encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(total, None)?;
    }
    Ok(())
}

fn counter(encoder: &mut MetricEncoder<'_>, name: &str, total: u64) -> fmt::Result {
    let labels = [("upstream", name)];
    encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&total, None)
}

fn seconds(encoder: &mut MetricEncoder<'_>, name: &str, of: &UpstreamMetrics) -> fmt::Result {
    let bounds = LATENCY_BOUNDS.iter().copied().chain(std::iter::once(f64::INFINITY));
    let buckets: Vec<(f64, u64)> =
        bounds.enumerate().map(|(index, bound)| (bound, of.sum(|core| core.latency.get(index)))).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    #[expect(clippy::cast_precision_loss, reason = "a sum of microseconds that is shown as seconds")]
    let seconds = of.sum(|core| Some(&core.micros)) as f64 / 1e6;
    let labels = [("upstream", name)];
    encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
}

impl EncodeMetric for Shown {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let all = self.upstreams.all.lock().clone();
        all.iter().try_for_each(|(name, of)| self.encode_one(name, of, &mut encoder))
    }

    fn metric_type(&self) -> MetricType {
        match self.read {
            Read::Seconds => MetricType::Histogram,
            Read::Addresses | Read::Outstanding => MetricType::Gauge,
            _ => MetricType::Counter,
        }
    }
}
