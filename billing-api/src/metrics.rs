//! The metrics of the billing API.

use goldleaves_runtime::{LATE_CHANGES, LATE_CHANGES_HELP, Metrics};
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// The billing API's counters.
#[derive(Debug, Clone)]
pub struct BillingMetrics {
    answers: Family<AnswerLabels, Counter>,
    corrections: Family<CorrectionLabels, Counter>,
    periods_closed: Counter,
    late_changes: Counter,
}

/// One kind of correction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CorrectionLabels {
    kind: String,
}

/// One kind of answer. The route is the pattern, so that the labels stay few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    route: String,
    status: u16,
}

impl BillingMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            answers: metrics.register("billing_requests", "Calls answered by the billing API", Family::default()),
            corrections: metrics.register("corrections", "Corrections made", Family::default()),
            periods_closed: metrics.register("periods_closed", "Periods closed", Counter::default()),
            late_changes: metrics.shared_counter(LATE_CHANGES, LATE_CHANGES_HELP),
        }
    }

    pub(crate) fn corrected(&self, kind: &str, late_changes: u64) {
        self.corrections.get_or_create(&CorrectionLabels { kind: kind.to_owned() }).inc();
        self.late_changes.inc_by(late_changes);
    }

    pub(crate) fn closed(&self, periods: u64) {
        self.periods_closed.inc_by(periods);
    }

    pub(crate) fn answered(&self, route: Option<&str>, status: StatusCode) {
        let answer = AnswerLabels { route: route.unwrap_or("none").to_owned(), status: status.as_u16() };
        self.answers.get_or_create(&answer).inc();
    }
}
