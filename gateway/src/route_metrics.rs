//! Requests and their latency by route pattern, counted by each core in atomics of its own and summed when they are read.
//!
//! Labels are settings and never what a client writes, so that they stay few: the billable patterns, then a word for each
//! class of the rest, which no pattern can be (patterns begin with `/`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use goldleaves_domain::RoutePattern;
use goldleaves_runtime::Metrics;
use http::StatusCode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::metrics::{LATENCY_BOUNDS, RequestClass};

/// Patterns that are told apart; the calls of all others are counted together.
const PATTERNS_MAX: usize = 64;
const OTHER_PATTERNS: &str = "other";
/// 1xx to 5xx; what is none of them counts as the last.
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Which row of counters a route has.
#[derive(Debug)]
struct Rows {
    names: Vec<String>,
    patterns: HashMap<RoutePattern, usize>,
}

/// One core's counters.
#[derive(Debug)]
pub(crate) struct RouteCounters {
    rows: Arc<Rows>,
    counters: Vec<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    statuses: [AtomicU64; STATUS_CLASSES.len()],
    latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    latency_micros: AtomicU64,
}

/// A route's place among the counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row(usize);

impl Rows {
    fn new(routes: &[RoutePattern]) -> Self {
        let patterns: HashMap<RoutePattern, usize> = routes.iter().take(PATTERNS_MAX).cloned().zip(0..).collect();
        let mut names: Vec<String> = routes.iter().take(PATTERNS_MAX).map(ToString::to_string).collect();
        names.push(OTHER_PATTERNS.to_owned());
        names.extend(RequestClass::ALL.map(|class| class.as_str().to_owned()));
        Self { names, patterns }
    }
}

impl RouteCounters {
    /// The row of a request of this class, on a billable route of its pattern.
    pub(crate) fn row(&self, class: RequestClass, route: Option<&RoutePattern>) -> Row {
        let others = self.rows.patterns.len();
        Row(match route {
            Some(route) => self.rows.patterns.get(route).copied().unwrap_or(others),
            None => others + 1 + class as usize,
        })
    }

    /// A request was answered with this head, so long after its own.
    pub(crate) fn answered(&self, Row(row): Row, status: StatusCode, after: Duration) {
        let Some(counters) = self.counters.get(row) else { return };
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        let seconds = after.as_secs_f64();
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < seconds);
        let counted = [counters.statuses.get(class), counters.latency.get(bucket)];
        for counter in counted.into_iter().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        counters.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Makes the counters of all cores and shows their sums.
pub(crate) fn register(metrics: &Metrics, routes: &[RoutePattern], cores: usize) -> Vec<Arc<RouteCounters>> {
    let rows = Arc::new(Rows::new(routes));
    let core = || RouteCounters {
        rows: Arc::clone(&rows),
        counters: std::iter::repeat_with(Counters::default).take(rows.names.len()).collect(),
    };
    let cores: Arc<[Arc<RouteCounters>]> = (0..cores).map(|_| Arc::new(core())).collect();
    let show = |name, help, read| {
        metrics.register(name, help, Shown { rows: Arc::clone(&rows), cores: Arc::clone(&cores), read });
    };
    let requests = "Requests answered, by billable pattern (or class) and class of status";
    show("route_requests", requests, Read::Requests);
    let latency = "From a request's head to its answer's, by billable pattern (or class)";
    show("route_latency_seconds", latency, Read::Latency);
    cores.to_vec()
}

#[derive(Debug, Clone)]
struct Shown {
    rows: Arc<Rows>,
    cores: Arc<[Arc<RouteCounters>]>,
    read: Read,
}

#[derive(Debug, Clone, Copy)]
enum Read {
    Requests,
    Latency,
}

impl Shown {
    fn sum(&self, row: usize, read: impl Fn(&Counters) -> Option<&AtomicU64>) -> u64 {
        let counters = self.cores.iter().filter_map(|core| core.counters.get(row)).filter_map(read);
        counters.map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    fn encode_requests(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (row, route) in self.rows.names.iter().enumerate() {
            for (class, status) in STATUS_CLASSES.into_iter().enumerate() {
                let total = self.sum(row, |counters| counters.statuses.get(class));
                if total > 0 {
                    let labels = [("route", route.as_str()), ("status", status)];
                    encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
                }
            }
        }
        Ok(())
    }

    fn encode_latency(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (row, route) in self.rows.names.iter().enumerate() {
            let bounds = LATENCY_BOUNDS.iter().copied().chain(std::iter::once(f64::INFINITY));
            let of_bucket = |bucket: usize| self.sum(row, |counters| counters.latency.get(bucket));
            let buckets: Vec<(f64, u64)> =
                bounds.enumerate().map(|(bucket, bound)| (bound, of_bucket(bucket))).collect();
            let count: u64 = buckets.iter().map(|(_, count)| count).sum();
            if count > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a sum of microseconds that is shown as seconds")]
                let seconds = self.sum(row, |counters| Some(&counters.latency_micros)) as f64 / 1e6;
                let labels = [("route", route.as_str())];
                let mut encoder = encoder.encode_family(&labels)?;
                encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

impl EncodeMetric for Shown {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.read {
            Read::Requests => self.encode_requests(&mut encoder),
            Read::Latency => self.encode_latency(&mut encoder),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.read {
            Read::Requests => MetricType::Counter,
            Read::Latency => MetricType::Histogram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed_by_pattern_and_by_class() {
        let metrics = Metrics::new();
        let routes = ["/api/v1/documents".parse().unwrap(), "/api".parse().unwrap()];
        let cores = register(&metrics, &routes, 2);
        let pattern = "/api/v1/documents".parse().unwrap();
        for core in &cores {
            let billed = core.row(RequestClass::Billable, Some(&pattern));
            core.answered(billed, StatusCode::OK, Duration::from_millis(3));
            core.answered(billed, StatusCode::BAD_GATEWAY, Duration::from_secs(90));
            core.answered(core.row(RequestClass::Unbilled, None), StatusCode::NOT_FOUND, Duration::from_millis(1));
        }
        let text = metrics.text();
        for line in [
            "goldleaves_route_requests_total{route=\"/api/v1/documents\",status=\"2xx\"} 2",
            "goldleaves_route_requests_total{route=\"/api/v1/documents\",status=\"5xx\"} 2",
            "goldleaves_route_requests_total{route=\"unbilled\",status=\"4xx\"} 2",
            "goldleaves_route_latency_seconds_bucket{le=\"0.0025\",route=\"/api/v1/documents\"} 0",
            "goldleaves_route_latency_seconds_bucket{le=\"0.005\",route=\"/api/v1/documents\"} 2",
            "goldleaves_route_latency_seconds_bucket{le=\"+Inf\",route=\"/api/v1/documents\"} 4",
            "goldleaves_route_latency_seconds_count{route=\"/api/v1/documents\"} 4",
            "goldleaves_route_latency_seconds_count{route=\"unbilled\"} 2",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("route=\"/api\""), "{text}");
    }

    #[test]
    fn labels_stay_few() {
        let metrics = Metrics::new();
        let routes: Vec<RoutePattern> = (0..200).map(|number| format!("/r{number}").parse().unwrap()).collect();
        let core = register(&metrics, &routes, 1).remove(0);
        for pattern in &routes {
            core.answered(core.row(RequestClass::Billable, Some(pattern)), StatusCode::OK, Duration::ZERO);
        }
        let text = metrics.text();
        let shown = text.lines().filter(|line| line.starts_with("goldleaves_route_requests_total{")).count();
        assert_eq!(shown, PATTERNS_MAX + 1);
        assert!(text.contains("goldleaves_route_requests_total{route=\"other\",status=\"2xx\"} 136\n"), "{text}");
    }
}
