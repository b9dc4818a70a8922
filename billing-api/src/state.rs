//! What the handlers share.

use std::fmt;
use std::sync::Arc;

use goldleaves_auth::{TokenVerifier, WallClock};
use goldleaves_billing::Billing;
use goldleaves_domain::{Timestamp, TimestampError};
use goldleaves_trace::Tracer;

use crate::metrics::BillingMetrics;
use crate::pulse::Pulse;
use crate::turns::Turns;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct BillingApi {
    inner: Arc<Inner>,
    tracer: Tracer,
}

struct Inner {
    billing: Billing,
    verifier: TokenVerifier,
    clock: WallClock,
    metrics: BillingMetrics,
    pulse: Pulse,
    turns: Turns,
}

impl BillingApi {
    /// Answers from this database whom this verifier lets in.
    pub fn new(billing: Billing, verifier: TokenVerifier, clock: WallClock, metrics: BillingMetrics) -> Self {
        let (pulse, turns) = (Pulse::of(billing.store().clone()), Turns::at(billing.store().connections_max()));
        let inner = Inner { billing, verifier, clock, metrics, pulse, turns };
        Self { inner: Arc::new(inner), tracer: Tracer::off() }
    }

    /// With spans of what it answers.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    pub(crate) fn billing(&self) -> &Billing {
        &self.inner.billing
    }

    pub(crate) fn verifier(&self) -> &TokenVerifier {
        &self.inner.verifier
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.inner.pulse
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.inner.turns
    }

    pub(crate) fn metrics(&self) -> &BillingMetrics {
        &self.inner.metrics
    }

    pub(crate) const fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    pub(crate) fn now(&self) -> Result<Timestamp, TimestampError> {
        self.inner.clock.timestamp()
    }
}

impl fmt::Debug for BillingApi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BillingApi").finish_non_exhaustive()
    }
}
