//! How long to wait before the next try, and how seldom to speak of it. Nothing here sleeps or logs.

use std::time::{Duration, Instant};

/// The pauses between tries that failed in a row: doubling, bounded, and jittered so that many processes do not come back
/// in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Before the first failure.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// After so many failures.
    pub const fn after(first: Duration, most: Duration, failures: u32) -> Self {
        Self { first, most, failures }
    }

    /// Counts a failure and returns the pause before the next try: between half and all of the doubled one.
    pub fn pause(&mut self) -> Duration {
        self.pause_by(rand::random())
    }

    /// The same, with the random share in `0.0..1.0` of the half that may be cut.
    pub fn pause_by(&mut self, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// Failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// A try succeeded.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A limit for log lines about one thing that goes on.
#[derive(Debug, Clone)]
pub struct Quiet {
    least: Duration,
    spoke: Option<Instant>,
}

impl Quiet {
    /// The first line at once, the next not before so long has passed.
    pub const fn new(least: Duration) -> Self {
        Self { least, spoke: None }
    }

    /// Returns whether a line may be written now; then one was.
    pub fn may_speak(&mut self, now: Instant) -> bool {
        let quiet = self.spoke.is_some_and(|spoke| now.duration_since(spoke) < self.least);
        if !quiet {
            self.spoke = Some(now);
        }
        !quiet
    }

    /// The thing is over: the next line is the first one again.
    pub const fn reset(&mut self) {
        self.spoke = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_limit_keep_at_least_half_and_start_again() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let (mut longest, mut shortest) = (Backoff::new(first, most), Backoff::new(first, most));
        for whole in [100, 200, 400, 800, 1_000, 1_000] {
            assert_eq!(longest.pause_by(0.0), Duration::from_millis(whole));
            assert_eq!(shortest.pause_by(1.0), Duration::from_millis(whole) / 2);
        }
        assert_eq!(longest.failures(), 6);
        longest.reset();
        assert_eq!(longest.pause_by(0.0), first);
        assert!(Backoff::after(first, most, u32::MAX).pause() <= most);
    }

    #[test]
    fn what_goes_on_is_said_once_and_then_seldom() {
        let (mut quiet, start) = (Quiet::new(Duration::from_secs(30)), Instant::now());
        let mut spoken = |secs| quiet.may_speak(start + Duration::from_secs(secs));
        assert_eq!([0, 1, 29, 30, 31].map(&mut spoken), [true, false, false, true, false]);
        quiet.reset();
        assert!(quiet.may_speak(start + Duration::from_secs(32)));
    }
}
