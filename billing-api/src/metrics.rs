//! What the billing API counts.

use goldleaves_runtime::Metrics;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// The billing API's counters.
#[derive(Debug, Clone)]
pub struct BillingMetrics {
    answers: Family<Answer, Counter>,
}

/// One kind of answer. The route is the pattern, so that the labels stay few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: String,
    status: u16,
}

impl BillingMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        let answers = Family::default();
        Self { answers: metrics.register("billing_requests", "Calls answered by the billing API", answers) }
    }

    pub(crate) fn answered(&self, route: Option<&str>, status: StatusCode) {
        let answer = Answer { route: route.unwrap_or("none").to_owned(), status: status.as_u16() };
        self.answers.get_or_create(&answer).inc();
    }
}
