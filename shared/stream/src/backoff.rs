//! How long to wait before the next try: doubling, bounded, and jittered so that many gateways do not return at once.

use std::time::Duration;

/// Delays between tries that failed in a row.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The delay before the next try: between half and all of the doubled one.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// A try succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The delay before the client's attempt number `attempt` (from 1) to reach a server again.
pub(crate) fn reconnect_delay(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let failures = u32::try_from(attempt - 2).unwrap_or(u32::MAX);
    Backoff { first: Duration::from_millis(50), most: Duration::from_secs(2), failures }.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for whole in [100, 200, 400, 800, 1_000, 1_000] {
            let delay = backoff.next().as_millis();
            assert!((whole / 2..=whole).contains(&delay), "{delay} of {whole}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }

    #[test]
    fn the_first_reconnect_is_immediate_and_no_attempt_overflows() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        assert!(reconnect_delay(usize::MAX) <= Duration::from_secs(2));
    }
}
