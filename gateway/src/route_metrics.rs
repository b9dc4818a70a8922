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
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::metrics::{LATENCY_BOUNDS, RequestClass};

/// Patterns that are told apart; the calls of all others are counted together.
const PATTERNS_MAX: usize = 64;
const OTHER_PATTERNS: &str = "other";
/// 1xx to 5xx; what is none of them counts as the last.
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The row of counters of each route. A row once given stays its pattern's, whatever a reload brings.
#[derive(Debug, Clone)]
pub(crate) struct RouteRows {
    names: Arc<Mutex<Vec<RoutePattern>>>,
    cores: Arc<[Arc<[Counters]>]>,
}

/// One core's counters, and the rows of the patterns that it serves.
#[derive(Debug)]
pub(crate) struct RouteCounters {
    rows: HashMap<RoutePattern, usize>,
    counters: Arc<[Counters]>,
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

impl RouteRows {
    /// Makes the counters of all cores and shows their sums.
    pub(crate) fn register(metrics: &Metrics, cores: usize) -> Self {
        let rows = PATTERNS_MAX + 1 + RequestClass::ALL.len();
        let core = |_| std::iter::repeat_with(Counters::default).take(rows).collect();
        let this = Self { names: Arc::default(), cores: (0..cores).map(core).collect() };
        let show = |name, help, read| {
            metrics.register(name, help, Shown { rows: this.clone(), read });
        };
        let requests = "Requests answered, by billable pattern (or class) and class of status";
        show("route_requests", requests, Read::Requests);
        let latency = "From a request's head to its answer's, by billable pattern (or class)";
        show("route_latency_seconds", latency, Read::Latency);
        this
    }

    /// One core's counters for these patterns; those that were there before keep their rows.
    pub(crate) fn counters(&self, core: usize, patterns: &[RoutePattern]) -> Arc<RouteCounters> {
        let mut names = self.names.lock();
        for pattern in patterns {
            if names.len() < PATTERNS_MAX && !names.contains(pattern) {
                names.push(pattern.clone());
            }
        }
        let rows = names.iter().cloned().zip(0..).collect();
        Arc::new(RouteCounters { rows, counters: self.cores.get(core).cloned().unwrap_or_default() })
    }

    /// The rows that have a name now.
    fn shown(&self) -> Vec<(usize, String)> {
        let patterns: Vec<String> = self.names.lock().iter().map(ToString::to_string).collect();
        let others = std::iter::once(OTHER_PATTERNS).chain(RequestClass::ALL.map(RequestClass::as_str));
        let others = others.map(ToString::to_string).enumerate().map(|(row, name)| (PATTERNS_MAX + row, name));
        patterns.into_iter().enumerate().chain(others).collect()
    }
}

impl RouteCounters {
    /// The row of a request of this class, on a billable route of its pattern.
    pub(crate) fn row(&self, class: RequestClass, route: Option<&RoutePattern>) -> Row {
        Row(match route {
            Some(route) => self.rows.get(route).copied().unwrap_or(PATTERNS_MAX),
            None => PATTERNS_MAX + 1 + class as usize,
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

#[derive(Debug, Clone)]
struct Shown {
    rows: RouteRows,
    read: Read,
}

#[derive(Debug, Clone, Copy)]
enum Read {
    Requests,
    Latency,
}

impl Shown {
    fn sum(&self, row: usize, read: impl Fn(&Counters) -> Option<&AtomicU64>) -> u64 {
        let counters = self.rows.cores.iter().filter_map(|core| core.get(row)).filter_map(read);
        counters.map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    fn encode_requests(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (row, route) in self.rows.shown() {
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
        for (row, route) in self.rows.shown() {
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
        let rows = RouteRows::register(&metrics, 2);
        let cores = [0, 1].map(|core| rows.counters(core, &routes));
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
        let core = RouteRows::register(&metrics, 1).counters(0, &routes);
        for pattern in &routes {
            core.answered(core.row(RequestClass::Billable, Some(pattern)), StatusCode::OK, Duration::ZERO);
        }
        let text = metrics.text();
        let shown = text.lines().filter(|line| line.starts_with("goldleaves_route_requests_total{")).count();
        assert_eq!(shown, PATTERNS_MAX + 1);
        assert!(text.contains("goldleaves_route_requests_total{route=\"other\",status=\"2xx\"} 136\n"), "{text}");
    }
}
