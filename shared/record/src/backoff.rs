//! How long the relay waits between attempts, and how seldom it speaks of it.

use std::time::{Duration, Instant};

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The least time between two log lines of one outage.
const QUIET: Duration = Duration::from_secs(30);
/// Failures in a row after which only one record is sent, as a probe, until it is confirmed.
const PROBE_FAILURES: u32 = 2;

/// One outage, or none.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    since: Option<Instant>,
    spoke: Option<Instant>,
}

/// An outage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    /// Attempts that failed.
    pub(crate) failures: u32,
    /// From the first failure to the receipt.
    pub(crate) lasted: Duration,
}

impl Backoff {
    /// Failures since the last receipt.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the next attempt should be a single record: a receiver that is away need not be shown a whole batch each
    /// time.
    pub(crate) const fn is_probing(&self) -> bool {
        self.failures >= PROBE_FAILURES
    }

    /// Counts a failure and says how long to wait: doubling, at most 5 s, of which a random half (`random` in `0.0..1.0`)
    /// is cut so that gateways do not come back in step.
    pub(crate) fn failed(&mut self, now: Instant, random: f64) -> Duration {
        self.since.get_or_insert(now);
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(PAUSE_MAX).mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// Whether this failure is worth a log line: the first of an outage, then one every 30 s.
    pub(crate) fn may_speak(&mut self, now: Instant) -> bool {
        let quiet = self.spoke.is_some_and(|spoke| now.duration_since(spoke) < QUIET);
        if !quiet {
            self.spoke = Some(now);
        }
        !quiet
    }

    /// Ends the outage, if there was one.
    pub(crate) fn succeeded(&mut self, now: Instant) -> Option<Outage> {
        let since = self.since.take()?;
        let outage = Outage { failures: self.failures, lasted: now.duration_since(since) };
        *self = Self::default();
        Some(outage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_limit_and_keep_at_least_half() {
        let (mut longest, mut shortest) = (Backoff::default(), Backoff::default());
        let now = Instant::now();
        let pauses: Vec<_> = (0..40).map(|_| (longest.failed(now, 0.0), shortest.failed(now, 1.0))).collect();
        assert_eq!(pauses[0].0, PAUSE_MIN);
        assert_eq!(pauses[1].0, PAUSE_MIN * 2);
        assert_eq!(pauses[39].0, PAUSE_MAX);
        assert!(pauses.iter().all(|(long, short)| *short * 2 == *long));
    }

    #[test]
    fn an_outage_speaks_once_and_then_every_half_minute() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        let spoken = |backoff: &mut Backoff, secs: u64| backoff.may_speak(start + Duration::from_secs(secs));
        assert!(spoken(&mut backoff, 0));
        assert!(!spoken(&mut backoff, 1));
        assert!(!spoken(&mut backoff, 29));
        assert!(spoken(&mut backoff, 30));
        assert!(!spoken(&mut backoff, 31));
    }

    #[test]
    fn a_receipt_ends_the_outage_and_says_how_long_it_was() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        assert_eq!(backoff.succeeded(start), None);
        backoff.failed(start, 0.5);
        assert!(!backoff.is_probing());
        backoff.failed(start, 0.5);
        assert!(backoff.is_probing());
        let end = start + Duration::from_secs(3);
        assert_eq!(backoff.succeeded(end), Some(Outage { failures: 2, lasted: Duration::from_secs(3) }));
        assert!(!backoff.is_probing());
        assert_eq!(backoff.succeeded(end), None);
    }
}
