//! How fast an address answers: a moving average that a slow answer raises at once and that falls with time.
//!
//! It falls also while nobody asks, so that an address that has recovered is asked again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Moment;

/// The time in which what was seen loses all but a third of its weight.
const DECAY_MILLIS: f64 = 10_000.0;
/// The least time that an address is taken to need: an unknown one is tried, and not by everybody at once.
const LEAST_NANOS: f64 = 50_000.0;

/// The average. Cores write to it at once, and one of two answers that come at the same moment may be lost: it is a hint.
#[derive(Debug, Default)]
pub(crate) struct PeakEwma {
    nanos: AtomicU64,
    at: AtomicU64,
}

impl PeakEwma {
    /// An answer's head came after so long.
    pub(crate) fn observe(&self, now: Moment, took: Duration) {
        let took = took.as_nanos() as f64;
        let weight = self.weight(now);
        let known = self.nanos.load(Ordering::Relaxed) as f64;
        let average = if took > known * weight { took } else { (known - took).mul_add(weight, took) };
        self.nanos.store(average as u64, Ordering::Relaxed);
        self.at.store(now.millis(), Ordering::Relaxed);
    }

    /// Returns what another call is expected to cost, where so many are under way.
    pub(crate) fn cost(&self, now: Moment, outstanding: usize) -> f64 {
        let nanos = self.nanos.load(Ordering::Relaxed) as f64 * self.weight(now);
        (outstanding as f64 + 1.0) * nanos.max(LEAST_NANOS)
    }

    /// The average now, for people.
    pub(crate) fn average(&self, now: Moment) -> Duration {
        Duration::from_nanos((self.nanos.load(Ordering::Relaxed) as f64 * self.weight(now)) as u64)
    }

    fn weight(&self, now: Moment) -> f64 {
        let age = now.millis().saturating_sub(self.at.load(Ordering::Relaxed));
        if age == 0 { 1.0 } else { (-(age as f64) / DECAY_MILLIS).exp() }
    }
}
