//! How long the relay waits between attempts, and how seldom it speaks of it.

use std::time::{Duration, Instant};

use goldleaves_runtime::{Backoff, Quiet};

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The least time between two log lines of one outage.
const QUIET: Duration = Duration::from_secs(30);
/// Failures in a row after which only one record is sent, as a probe, until it is confirmed.
const PROBE_FAILURES: u32 = 2;

/// One outage, or none.
#[derive(Debug)]
pub(crate) struct OutageWatch {
    pauses: Backoff,
    since: Option<Instant>,
    lines: Quiet,
}

impl Default for OutageWatch {
    fn default() -> Self {
        Self { pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX), since: None, lines: Quiet::new(QUIET) }
    }
}

/// An outage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpoolOutage {
    /// Attempts that failed.
    pub(crate) failures: u32,
    /// From the first failure to the receipt.
    pub(crate) lasted: Duration,
}

impl OutageWatch {
    /// Failures since the last receipt.
    pub(crate) const fn failures(&self) -> u32 {
        self.pauses.failures()
    }

    /// Returns whether the next attempt should be a single record: a receiver that is away need not be shown a whole batch each
    /// time.
    pub(crate) const fn is_probing(&self) -> bool {
        self.pauses.failures() >= PROBE_FAILURES
    }

    /// Counts a failure and says how long to wait: doubling, at most 5 s, of which a random half (`random` in `0.0..1.0`)
    /// is cut so that gateways do not come back in step.
    pub(crate) fn failed(&mut self, now: Instant, random: f64) -> Duration {
        self.since.get_or_insert(now);
        self.pauses.pause_by(random)
    }

    /// Returns whether this failure is worth a log line: the first of an outage, then one every 30 s.
    pub(crate) fn may_speak(&mut self, now: Instant) -> bool {
        self.lines.may_speak(now)
    }

    /// Ends the outage, if there was one.
    pub(crate) fn succeeded(&mut self, now: Instant) -> Option<SpoolOutage> {
        let since = self.since.take()?;
        let outage = SpoolOutage { failures: self.pauses.failures(), lasted: now.duration_since(since) };
        *self = Self::default();
        Some(outage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_ends_the_outage_and_says_how_long_it_was() {
        let mut backoff = OutageWatch::default();
        let start = Instant::now();
        assert_eq!(backoff.succeeded(start), None);
        backoff.failed(start, 0.5);
        assert!(!backoff.is_probing());
        backoff.failed(start, 0.5);
        assert!(backoff.is_probing());
        let end = start + Duration::from_secs(3);
        assert_eq!(backoff.succeeded(end), Some(SpoolOutage { failures: 2, lasted: Duration::from_secs(3) }));
        assert!(!backoff.is_probing());
        assert_eq!(backoff.succeeded(end), None);
    }
}
