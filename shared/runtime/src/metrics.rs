//! The numbers a process shows, as OpenMetrics text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeGaugeValue, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::{MetricType, gauge};
use prometheus_client::registry::{Metric, Registry};

/// The counter that the worker and the billing API share.
pub const LATE_CHANGES: &str = "late_changes";
/// The help of the metric.
pub const LATE_CHANGES_HELP: &str =
    "Hours marked because they changed after their end, by late usage or by corrections, once for each transaction";

type Refresh = Box<dyn Fn() + Send + Sync>;

/// A registry of metrics. Clones share it.
///
/// The metrics themselves (`prometheus_client::metrics`) are atomics: counting never takes this registry's lock.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Mutex<MetricsInner>>,
}

#[derive(Default)]
struct MetricsInner {
    registry: Registry,
    shared: BTreeMap<String, Counter>,
    refreshes: Vec<Refresh>,
}

impl Metrics {
    /// The `Content-Type` of the text.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// An empty registry whose names start with `goldleaves_`.
    pub fn new() -> Self {
        let registry = Registry::with_prefix("goldleaves");
        Self { inner: Arc::new(Mutex::new(MetricsInner { registry, ..MetricsInner::default() })) }
    }

    /// Registers a metric and hands it back. A counter's name gets `_total` when it is written.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.lock().registry.register(name, help, metric.clone());
        metric
    }

    /// The counter of this name, which several parts of a program add to; the first registers it.
    pub fn shared_counter(&self, name: &str, help: &str) -> Counter {
        let mut inner = self.lock();
        if let Some(counter) = inner.shared.get(name) {
            return counter.clone();
        }
        let counter = Counter::default();
        inner.registry.register(name, help, counter.clone());
        inner.shared.insert(name.to_owned(), counter.clone());
        counter
    }

    /// Registers a gauge that is 1 while `is` says so and 0 otherwise. It must not block.
    pub fn show(&self, name: &str, help: &str, is: impl Fn() -> bool + Send + Sync + 'static) {
        let shown = self.register(name, help, gauge::Gauge::<i64>::default());
        self.before_reading(move || {
            shown.set(is().into());
        });
    }

    /// Runs `refresh` before each reading, to set gauges from what is known elsewhere. It must not block.
    pub fn before_reading(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.lock().refreshes.push(Box::new(refresh));
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> String {
        let inner = self.lock();
        inner.refreshes.iter().for_each(|refresh| refresh());
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &inner.registry) {
            Ok(()) => text,
            Err(fmt::Error) => "# EOF\n".to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MetricsInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A gauge that has no sample while its value is not known. Clones share it.
#[derive(Debug, Clone)]
pub struct KnownGauge<N>(Arc<Mutex<Option<N>>>);

impl<N> KnownGauge<N> {
    /// Sets it; `None`: nobody knows.
    pub fn set(&self, value: Option<N>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<N> Default for KnownGauge<N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<N: EncodeGaugeValue + Copy> EncodeMetric for KnownGauge<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let value = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        value.map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn parts_of_a_program_share_a_counter() {
        let metrics = Metrics::new();
        metrics.shared_counter("late_changes", "Hours marked").inc();
        metrics.shared_counter("late_changes", "Hours marked").inc_by(2);
        let text = metrics.text();
        assert_eq!(text.matches("# TYPE goldleaves_late_changes counter").count(), 1, "{text}");
        assert!(text.contains("goldleaves_late_changes_total 3"), "{text}");
    }

    #[test]
    fn counts_and_refreshes() {
        let metrics = Metrics::new();
        let calls: Counter = metrics.register("calls", "Calls seen", Counter::default());
        let open: Gauge = metrics.register("open", "Connections open", Gauge::default());
        metrics.before_reading(move || {
            open.set(7);
        });
        calls.inc_by(3);
        let text = metrics.clone().text();
        assert!(text.contains("goldleaves_calls_total 3\n"), "{text}");
        assert!(text.contains("goldleaves_open 7\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn what_nobody_knows_has_no_sample() {
        let metrics = Metrics::new();
        let lag = metrics.register("lag", "Behind", KnownGauge::<u64>::default());
        metrics.show("ready", "Ready", || true);
        let text = metrics.text();
        assert!(!text.contains("goldleaves_lag") && text.contains("goldleaves_ready 1\n"), "{text}");
        lag.set(Some(3));
        assert!(metrics.text().contains("goldleaves_lag 3\n"));
        lag.set(None);
        assert!(!metrics.text().contains("goldleaves_lag"));
    }
}
