//! The gateway's numbers. Each core counts in atomics of its own; they are summed when they are read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use goldleaves_runtime::Metrics;
use goldleaves_web::{Buffers, ServeStats};
use http::StatusCode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::limits::GatewayLimits;

const STATUSES: usize = 900;
const CLASSES: usize = RequestClass::ALL.len();

/// Upper bounds of the upstream's latency, in seconds.
pub(crate) const LATENCY_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The class of a request, for the count of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// Answered by the gateway itself.
    Local,
    /// A browser's question before its request.
    Preflight,
    /// To the upstream without a token.
    Open,
    /// To the billing API.
    Billing,
    /// With a token, not billed.
    Unbilled,
    /// On a billable route, whatever its status.
    Billable,
    /// Refused before its route was known.
    Refused,
}

impl RequestClass {
    pub(crate) const ALL: [Self; 7] =
        [Self::Local, Self::Preflight, Self::Open, Self::Billing, Self::Unbilled, Self::Billable, Self::Refused];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Preflight => "preflight",
            Self::Open => "open",
            Self::Billing => "billing",
            Self::Unbilled => "unbilled",
            Self::Billable => "billable",
            Self::Refused => "refused",
        }
    }
}

/// One core's counters.
pub(crate) struct CoreMetrics {
    requests: Vec<AtomicU64>,
    latency: Vec<AtomicU64>,
    latency_micros: AtomicU64,
    tenants_missing: AtomicU64,
    usage_units_bad: AtomicU64,
    upstream_connects: AtomicU64,
    upstream_retries: AtomicU64,
}

impl fmt::Debug for CoreMetrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("CoreMetrics")
    }
}

impl Default for CoreMetrics {
    fn default() -> Self {
        let counters = |count| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Self {
            requests: counters(CLASSES * STATUSES),
            latency: counters(LATENCY_BOUNDS.len() + 1),
            latency_micros: AtomicU64::new(0),
            tenants_missing: AtomicU64::new(0),
            usage_units_bad: AtomicU64::new(0),
            upstream_connects: AtomicU64::new(0),
            upstream_retries: AtomicU64::new(0),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl CoreMetrics {
    /// A request was answered.
    pub(crate) fn request(&self, class: RequestClass, status: StatusCode) {
        if let Some(counter) = self.requests.get(slot(class, status.as_u16())) {
            count(counter);
        }
    }

    /// The upstream's head came after so long.
    pub(crate) fn upstream_answered(&self, after: Duration) {
        let seconds = after.as_secs_f64();
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(counter) = self.latency.get(bucket) {
            count(counter);
        }
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// A valid token without a tenant on a billable route.
    pub(crate) fn tenant_missing(&self) {
        count(&self.tenants_missing);
    }

    /// Units that can't be read.
    pub(crate) fn usage_units_bad(&self) {
        count(&self.usage_units_bad);
    }

    /// A new connection to an upstream.
    pub(crate) fn upstream_connecting(&self) {
        count(&self.upstream_connects);
    }

    /// A request sent again because a reused connection had been closed.
    pub(crate) fn upstream_retried(&self) {
        count(&self.upstream_retries);
    }
}

/// Calls that the upstream served since the start: on billable routes, and on those that no pattern of the billable matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ServedCalls {
    pub(crate) billable: u64,
    pub(crate) unbilled: u64,
}

impl ServedCalls {
    /// Over all cores. What the gateway refuses is not counted; an upstream that answers with the same statuses loses
    /// nothing but a hint.
    pub(crate) fn of(cores: &[Arc<CoreMetrics>]) -> Self {
        let refused = [401, 403, 413, 429, 431, 502, 503, 504];
        let of_class = |class| {
            let statuses = (200..600_u16).filter(|status| !refused.contains(status));
            let slots = statuses.map(|status| slot(class, status));
            slots
                .flat_map(|slot| cores.iter().filter_map(move |core| core.requests.get(slot)))
                .map(|counter| counter.load(Ordering::Relaxed))
                .sum()
        };
        Self { billable: of_class(RequestClass::Billable), unbilled: of_class(RequestClass::Unbilled) }
    }
}

const fn slot(class: RequestClass, status: u16) -> usize {
    let status = if status >= 100 && status < 1_000 { status as usize - 100 } else { 0 };
    class as usize * STATUSES + status
}

/// Makes the counters of all cores and shows their sums.
pub(crate) fn register(metrics: &Metrics, cores: usize) -> Vec<Arc<CoreMetrics>> {
    let all: Arc<[Arc<CoreMetrics>]> = (0..cores).map(|_| Arc::default()).collect();
    let show = |name, help, read| {
        metrics.register(name, help, Summed { cores: Arc::clone(&all), read });
    };
    show("requests", "Requests answered, by route class and status", Read::Requests);
    show("upstream_latency_seconds", "From a request sent to the head of its answer", Read::Latency);
    show(
        "tenant_missing",
        "Valid tokens without a tenant on a billable route",
        Read::One(|core| &core.tenants_missing),
    );
    show("usage_units_bad", "X-Usage-Units that could not be read", Read::One(|core| &core.usage_units_bad));
    show("upstream_connects", "Connections made to an upstream", Read::One(|core| &core.upstream_connects));
    show("upstream_retries", "Requests sent again", Read::One(|core| &core.upstream_retries));
    all.to_vec()
}

/// Shows what the serve loops count.
pub(crate) fn register_connections(
    metrics: &Metrics,
    stats: &ServeStats,
    most: usize,
    limits: &GatewayLimits,
) -> MostShown {
    let help =
        "Connections that are served at once: CONNECTIONS_MAX, or fewer where too few descriptors are left for it";
    let connections = metrics.register("connections_max", help, Gauge::<i64, AtomicI64>::default());
    let rate = Arc::new(AtomicU32::new(0));
    let help = "RATE_LIMIT_PER_SECOND: calls that a tenant may make per second";
    metrics.register("rate_limit_per_second", help, RateShown(Arc::clone(&rate)));
    let shown = MostShown { connections, rate };
    shown.set(most, limits);
    let open: Gauge = metrics.register("connections_open", "Clients' connections open now", Gauge::default());
    let counter = |name, help| metrics.register(name, help, Counter::<u64, AtomicU64>::default());
    let accepted = counter("connections_accepted", "Clients' connections so far");
    let at_limit = counter("connections_at_limit", "Clients' connections that had to wait");
    let reset = counter("streams_reset", "Streams of HTTP/2 reset because their client took nothing of its answer");
    let errors = counter("accept_errors", "Connections that could not be accepted, mostly for want of descriptors");
    let silent = counter("connections_silent", "Clients' connections closed because their first bytes did not come");
    let stats = stats.clone();
    metrics.before_reading(move || {
        errors.inner().store(stats.accept_errors(), Ordering::Relaxed);
        silent.inner().store(stats.first_byte_timeouts(), Ordering::Relaxed);
        reset.inner().store(stats.streams_reset(), Ordering::Relaxed);
        open.set(i64::try_from(stats.open()).unwrap_or(i64::MAX));
        accepted.inner().store(stats.accepted(), Ordering::Relaxed);
        at_limit.inner().store(stats.at_limit(), Ordering::Relaxed);
    });
    shown
}

/// Limits among the metrics that may be others after a reload.
#[derive(Debug, Clone)]
pub(crate) struct MostShown {
    connections: Gauge<i64, AtomicI64>,
    /// 0 = there is none.
    rate: Arc<AtomicU32>,
}

impl MostShown {
    /// Shows these from now on.
    pub(crate) fn set(&self, connections: usize, limits: &GatewayLimits) {
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.rate.store(limits.rate_per_second.unwrap_or(0), Ordering::Relaxed);
    }
}

/// Shown only where there is a limit.
#[derive(Debug, Clone)]
struct RateShown(Arc<AtomicU32>);

impl EncodeMetric for RateShown {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            rate => encoder.encode_gauge(&i64::from(rate)),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Shows how much bodies hold on their way, over all cores.
pub(crate) fn register_buffers(metrics: &Metrics, buffers: Vec<Buffers>) {
    let help = "Bytes of bodies that were read and are not written yet; at most 16 MiB per core";
    let held = metrics.register("buffered_bytes", help, Gauge::<i64, AtomicI64>::default());
    metrics.before_reading(move || {
        held.set(i64::try_from(buffers.iter().map(Buffers::used).sum::<usize>()).unwrap_or(i64::MAX));
    });
}

#[derive(Clone)]
struct Summed {
    cores: Arc<[Arc<CoreMetrics>]>,
    read: Read,
}

#[derive(Clone, Copy)]
enum Read {
    Requests,
    Latency,
    One(fn(&CoreMetrics) -> &AtomicU64),
}

impl fmt::Debug for Summed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Summed")
    }
}

impl Summed {
    fn sum(&self, read: impl Fn(&CoreMetrics) -> Option<&AtomicU64>) -> u64 {
        self.cores.iter().filter_map(|core| read(core)).map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    fn encode_requests(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for class in RequestClass::ALL {
            for status in 100_u16..1_000 {
                let total = self.sum(|core| core.requests.get(slot(class, status)));
                if total > 0 {
                    let labels = [("class", class.as_str().to_owned()), ("status", status.to_string())];
                    encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
                }
            }
        }
        Ok(())
    }

    fn encode_latency(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let bounds = LATENCY_BOUNDS.iter().copied().chain(std::iter::once(f64::INFINITY));
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(index, bound)| (bound, self.sum(|core| core.latency.get(index)))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let micros = self.sum(|core| Some(&core.latency_micros));
        #[expect(clippy::cast_precision_loss, reason = "a sum of microseconds that is shown as seconds")]
        let seconds = micros as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }
}

impl EncodeMetric for Summed {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.read {
            Read::Requests => self.encode_requests(&mut encoder),
            Read::Latency => self.encode_latency(&mut encoder),
            Read::One(read) => encoder.encode_counter::<NoLabelSet, _, f64>(&self.sum(|core| Some(read(core))), None),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.read {
            Read::Latency => MetricType::Histogram,
            Read::Requests | Read::One(_) => MetricType::Counter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed() {
        let metrics = Metrics::new();
        let cores = register(&metrics, 2);
        for core in &cores {
            core.request(RequestClass::Billable, StatusCode::OK);
            core.upstream_answered(Duration::from_millis(3));
            core.upstream_answered(Duration::from_secs(90));
            core.tenant_missing();
            core.usage_units_bad();
            core.upstream_connecting();
            core.upstream_retried();
        }
        let text = metrics.text();
        for line in [
            "goldleaves_requests_total{class=\"billable\",status=\"200\"} 2",
            "goldleaves_upstream_latency_seconds_bucket{le=\"0.0025\"} 0",
            "goldleaves_upstream_latency_seconds_bucket{le=\"0.005\"} 2",
            "goldleaves_upstream_latency_seconds_bucket{le=\"+Inf\"} 4",
            "goldleaves_upstream_latency_seconds_count 4",
            "goldleaves_tenant_missing_total 2",
            "goldleaves_usage_units_bad_total 2",
            "goldleaves_upstream_connects_total 2",
            "goldleaves_upstream_retries_total 2",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}
