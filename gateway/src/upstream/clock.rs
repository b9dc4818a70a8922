//! Moments as numbers, so that several cores can keep them in atomics.

use std::time::Instant;

/// The clock of all upstreams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

/// Milliseconds since the clock was started, and never 0: that means "not".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    pub(crate) fn at(&self, instant: Instant) -> Moment {
        let millis = instant.saturating_duration_since(self.0).as_millis();
        Moment::new(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

impl Moment {
    pub(crate) const fn new(millis: u64) -> Self {
        Self(millis.saturating_add(1))
    }

    pub(crate) const fn millis(self) -> u64 {
        self.0
    }

    pub(crate) const fn seconds(self) -> u64 {
        self.0 / 1_000
    }
}
