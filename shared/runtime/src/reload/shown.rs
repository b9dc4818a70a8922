//! The metrics of readings of the settings: how many were taken and refused, and whether the last one was.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Metrics;
use crate::settings::Mistakes;

/// The metrics.
#[derive(Clone)]
pub(super) struct ReloadsShown {
    results: Family<[(&'static str, &'static str); 1], Counter>,
    stale: Gauge,
    generation: Gauge<i64, AtomicI64>,
    sha256: Arc<Mutex<String>>,
}

impl ReloadsShown {
    pub(super) fn register(metrics: &Metrics, sha256: String) -> Self {
        let help = "Settings that were taken, the first included";
        let stale = "Whether the last reading was refused, or that of the file of settings was: 1 or 0";
        let shown = Self {
            results: metrics.register("config_reloads", "Readings of the settings, by result", Family::default()),
            stale: metrics.register("config_stale", stale, Gauge::default()),
            generation: metrics.register("config_generation", help, Gauge::default()),
            sha256: Arc::new(Mutex::new(sha256)),
        };
        shown.generation.set(1);
        let help =
            "The settings that are served by, as a hash; programs of one kind that serve by the same have the same";
        metrics.register("config_info", help, Info(Arc::clone(&shown.sha256)));
        shown
    }

    pub(super) fn stale(&self, is_stale: bool) {
        self.stale.set(i64::from(is_stale));
    }

    pub(super) fn taken(&self, sha256: &str) {
        self.generation.inc();
        self.results.get_or_create(&[("result", "taken")]).inc();
        sha256.clone_into(&mut self.sha256.lock());
        tracing::info!(sha256, "the settings were read again and are served by from now on");
    }

    pub(super) fn refused(&self, mistakes: &Mistakes) {
        self.results.get_or_create(&[("result", "refused")]).inc();
        for mistake in mistakes.iter() {
            tracing::error!("{mistake}");
        }
        tracing::error!("the settings have mistakes; those of before stay in force");
    }
}

#[derive(Debug, Clone)]
struct Info(Arc<Mutex<String>>);

impl EncodeMetric for Info {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let sha256 = self.0.lock().clone();
        encoder.encode_family(&[("sha256", sha256.as_str())])?.encode_gauge(&1_i64)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
