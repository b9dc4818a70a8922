//! The state that all handlers share.

use std::fmt;
use std::sync::Arc;

use goldleaves_auth::{TokenVerifier, WallClock};
use goldleaves_billing::Billing;
use goldleaves_billing::stripe::{Books, BooksClock};
use goldleaves_domain::{Timestamp, TimestampError};
use goldleaves_stripe::Secrets;
use goldleaves_trace::Tracer;
use parking_lot::Mutex;

use crate::metrics::BillingMetrics;
use crate::pulse::Pulse;
use crate::push::Pusher;
use crate::turns::Turns;

/// The state that all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct BillingApi {
    inner: Arc<ApiInner>,
    tracer: Tracer,
    stripe: Option<Arc<StripeDesk>>,
}

/// The parts that handlers need of the push to Stripe, where there is one.
#[derive(Debug)]
pub struct StripeDesk {
    /// The task that pushes.
    pub pusher: Pusher,
    /// The secrets that webhooks are signed with; without them no webhook is taken.
    pub webhook: Option<Secrets>,
}

struct ApiInner {
    billing: Billing,
    verifier: Mutex<TokenVerifier>,
    clock: WallClock,
    metrics: BillingMetrics,
    pulse: Pulse,
    turns: Turns,
}

impl BillingApi {
    /// Answers from this database whom this verifier lets in.
    pub fn new(billing: Billing, verifier: TokenVerifier, clock: WallClock, metrics: BillingMetrics) -> Self {
        let (pulse, turns) = (Pulse::of(billing.store().clone()), Turns::at(billing.store().connections_max()));
        let verifier = Mutex::new(verifier);
        let inner = ApiInner { billing, verifier, clock, metrics, pulse, turns };
        Self { inner: Arc::new(inner), tracer: Tracer::off(), stripe: None }
    }

    /// With spans of what it answers.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// With the push to Stripe.
    #[must_use]
    pub fn pushing(self, desk: StripeDesk) -> Self {
        Self { stripe: Some(Arc::new(desk)), ..self }
    }

    pub(crate) fn stripe(&self) -> Option<&StripeDesk> {
        self.stripe.as_deref()
    }

    /// Returns the books of the push; rows are made without a key, too.
    pub(crate) fn books(&self) -> Books {
        match &self.stripe {
            Some(desk) => desk.pusher.books().clone(),
            None => Books::new(self.inner.billing.clone(), BooksClock::Database),
        }
    }

    pub(crate) fn billing(&self) -> &Billing {
        &self.inner.billing
    }

    /// Lets in whom this verifier lets in, from now on.
    pub fn verify_with(&self, verifier: TokenVerifier) {
        *self.inner.verifier.lock() = verifier;
    }

    pub(crate) fn verifier(&self) -> TokenVerifier {
        self.inner.verifier.lock().clone()
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
