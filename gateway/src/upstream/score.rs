//! How fast an address answers, as two averages: one that a slow answer raises at once, and one that it raises by its share of
//! the time; and what another call there is expected to cost.
//!
//! Both fall also while nobody asks, so that an address that has recovered is asked again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Moment;

/// The time in which what was seen loses all but a third of its weight.
const DECAY_MILLIS: f64 = 10_000.0;
/// The least time that an address is taken to need: an unknown one is tried, and not by everybody at once.
const LEAST_NANOS: f64 = 50_000.0;

/// The averages, in nanoseconds. Cores write to them at once, and one of two answers that come at the same moment may be lost: they
/// are hints.
#[derive(Debug, Default)]
pub(crate) struct Score {
    peak: AtomicU64,
    mean: AtomicU64,
    at: AtomicU64,
}

impl Score {
    /// An answer's head came after so long.
    pub(crate) fn observe(&self, now: Moment, took: Duration) {
        let (took, weight) = (took.as_nanos() as f64, self.weight(now));
        let (peak, mean) = (load(&self.peak), load(&self.mean));
        let moved = |known: f64| (known - took).mul_add(weight, took);
        store(&self.peak, if took > peak * weight { took } else { moved(peak) });
        store(&self.mean, if mean == 0.0 { took } else { moved(mean) });
        self.at.store(now.millis(), Ordering::Relaxed);
    }

    /// A call was given up after so long: its answer would have taken no less.
    pub(crate) fn at_least(&self, now: Moment, took: Duration) {
        if took > self.average(now) {
            self.observe(now, took);
        }
    }

    /// Returns what another call is expected to cost, where so many are under way and nothing was heard for so long.
    ///
    /// The peak says at once that an address has become slow, the mean that it was no single answer. As both count, an address that is
    /// ten times slower is chosen where a quick one has a hundred times as many under way, and gets one call of a thousand: with the
    /// peak alone it would get one of a hundred. A single slow answer moves few calls elsewhere.
    pub(crate) fn cost(&self, now: Moment, outstanding: usize, silent: Duration) -> f64 {
        let (weight, silent) = (self.weight(now), silent.as_nanos() as f64);
        let expected = |average: &AtomicU64| (load(average) * weight).max(silent).max(LEAST_NANOS);
        (outstanding as f64 + 1.0) * expected(&self.peak) * expected(&self.mean)
    }

    /// The peak average now, for people.
    pub(crate) fn average(&self, now: Moment) -> Duration {
        Duration::from_nanos((load(&self.peak) * self.weight(now)) as u64)
    }

    fn weight(&self, now: Moment) -> f64 {
        let age = now.millis().saturating_sub(self.at.load(Ordering::Relaxed));
        if age == 0 { 1.0 } else { (-(age as f64) / DECAY_MILLIS).exp() }
    }
}

fn load(average: &AtomicU64) -> f64 {
    average.load(Ordering::Relaxed) as f64
}

fn store(average: &AtomicU64, nanos: f64) {
    average.store(nanos as u64, Ordering::Relaxed);
}
