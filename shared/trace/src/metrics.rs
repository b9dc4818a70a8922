//! Counts what becomes of spans.

use goldleaves_runtime::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

type Label = [(&'static str, &'static str); 1];

/// The numbers of one program's spans. Cheap to clone; counting takes no lock.
#[derive(Debug, Clone)]
pub(crate) struct TraceMetrics {
    /// Taken by the collector.
    pub(crate) exported: Counter,
    /// Dropped: the queue was full.
    pub(crate) queue_full: Counter,
    /// Dropped: the collector was away or too slow.
    pub(crate) unsent: Counter,
    /// Refused by the collector.
    pub(crate) refused: Counter,
}

impl TraceMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let exported = metrics.register("trace_spans_exported", "Spans the collector took", Counter::default());
        let help = "Spans that were not exported, by reason: the queue was full, the collector did not take them in \
                    time (unsent), or did not want them (refused)";
        let dropped = metrics.register("trace_spans_dropped", help, Family::<Label, Counter>::default());
        let by = |reason| dropped.get_or_create(&[("reason", reason)]).clone();
        Self { exported, queue_full: by("queue_full"), unsent: by("unsent"), refused: by("refused") }
    }
}
