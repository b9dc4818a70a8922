//! The metrics of the push to Stripe.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use goldleaves_billing::stripe::BooksGauges;
use goldleaves_domain::Timestamp;
use goldleaves_runtime::Metrics;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Units are millionths in the database.
const MICRO: f64 = 1_000_000.0;

type Float = Gauge<f64, AtomicU64>;

/// The counters and gauges.
#[derive(Debug, Clone)]
pub struct StripeMetrics {
    calls: Family<Call, Counter>,
    rows: Family<State, Gauge>,
    oldest: Float,
    drift: Float,
    unsealed: Float,
    blocked: Family<Reason, Gauge>,
    webhooks: Family<Webhook, Counter>,
    /// Labels that were shown once: they fall to 0 and do not vanish.
    reasons: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: String,
    result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Webhook {
    r#type: String,
    result: String,
}

impl StripeMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        let unsealed = "Units of the ledger that no row could be made of, or that the nightly look found in no row";
        Self {
            calls: metrics.register("stripe_calls", "Calls to Stripe", Family::default()),
            rows: metrics.register("stripe_rows", "Rows for Stripe by state", Family::default()),
            oldest: metrics.register(
                "stripe_oldest_pending_age_seconds",
                "The age of the oldest row that Stripe has not taken",
                Float::default(),
            ),
            drift: metrics.register(
                "stripe_drift_units",
                "Units by which lanes at Stripe differ from what was pushed",
                Float::default(),
            ),
            unsealed: metrics.register("stripe_unsealed_units", unsealed, Float::default()),
            blocked: metrics.register("stripe_lanes_blocked", "Lanes in which nothing is sent", Family::default()),
            webhooks: metrics.register("stripe_webhooks", "Webhooks of Stripe", Family::default()),
            reasons: Arc::default(),
        }
    }

    pub(crate) fn called(&self, call: &str, result: &str) {
        self.calls.get_or_create(&Call { call: call.to_owned(), result: result.to_owned() }).inc();
    }

    pub(crate) fn hinted(&self, kind: &str, result: &str) {
        self.webhooks.get_or_create(&Webhook { r#type: kind.to_owned(), result: result.to_owned() }).inc();
    }

    pub(crate) fn unsealed(&self, units_micro: i128) {
        self.unsealed.set(units_micro as f64 / MICRO);
    }

    pub(crate) fn show(&self, gauges: &BooksGauges, now: Timestamp) {
        for state in ["unmapped", "pending", "held", "pushed", "failed", "abandoned"] {
            let count = gauges.rows.get(state).copied().unwrap_or_default();
            self.rows.get_or_create(&State { state: state.to_owned() }).set(count);
        }
        let age = gauges.oldest_pending.map_or(0, |oldest| now.unix_micros() - oldest.unix_micros());
        self.oldest.set(age.max(0) as f64 / MICRO);
        self.drift.set(gauges.drift_micro as f64 / MICRO);
        let mut reasons = self.reasons.lock();
        for reason in gauges.blocked.keys().filter(|reason| !reasons.contains(reason)).cloned().collect::<Vec<_>>() {
            reasons.push(reason);
        }
        for reason in reasons.iter() {
            let count = gauges.blocked.get(reason).copied().unwrap_or_default();
            self.blocked.get_or_create(&Reason { reason: reason.clone() }).set(count);
        }
    }
}
