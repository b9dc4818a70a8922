//! How fast Stripe is called, and whether it is called at all.

use std::time::Duration;

use goldleaves_domain::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The slowest that a pace becomes, in calls per second.
const SLOWEST: f64 = 0.2;
/// The time for which a pace stays slow after it was told to be.
const SLOW_FOR: Duration = Duration::from_secs(30);
/// By how much it recovers after that, each second.
const RECOVERS: f64 = 1.1;
/// Between two calls that find out whether Stripe is there again.
const PROBE_MICROS: i64 = 60_000_000;

/// Spreads calls evenly over each second, and halves their number after each refusal for being too fast.
#[derive(Debug)]
pub(crate) struct Pace {
    most: Option<f64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rate: f64,
    next: Instant,
    slow_since: Option<Instant>,
}

impl Pace {
    /// Allows this many calls per second; `None` is as many as can be.
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        let most = per_second.map(f64::from);
        let state = State { rate: most.unwrap_or_default(), next: Instant::now(), slow_since: None };
        Self { most, state: Mutex::new(state) }
    }

    /// Waits for the next call's turn.
    pub(crate) async fn turn(&self) {
        let Some(most) = self.most else { return };
        let at = {
            let mut state = self.state.lock();
            let now = Instant::now();
            if let Some(since) = state.slow_since.filter(|since| now.duration_since(*since) > SLOW_FOR) {
                let seconds = now.duration_since(since).as_secs_f64() - SLOW_FOR.as_secs_f64();
                state.rate = (state.rate * RECOVERS.powf(seconds)).min(most);
                state.slow_since = (state.rate < most).then(|| now - SLOW_FOR);
            }
            let at = state.next.max(now);
            state.next = at + Duration::from_secs_f64(1.0 / state.rate);
            at
        };
        sleep_until(at).await;
    }

    /// Stripe said that calls come too fast.
    pub(crate) fn slow_down(&self) {
        let mut state = self.state.lock();
        state.rate = (state.rate / 2.0).max(SLOWEST);
        state.slow_since = Some(Instant::now());
    }
}

/// While Stripe can't be reached one call per minute finds out whether it can again; nothing else is begun.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<Option<Timestamp>>);

impl Breaker {
    /// Returns whether a call may begin now. While Stripe can't be reached, that call is the probe of this minute.
    pub(crate) fn lets_through(&self, now: Timestamp) -> bool {
        let mut probe = self.0.lock();
        match *probe {
            None => true,
            Some(at) if at <= now => {
                *probe = now.plus_micros(PROBE_MICROS);
                true
            }
            Some(_) => false,
        }
    }

    /// Returns whether no call would be let through now.
    pub(crate) fn is_open(&self, now: Timestamp) -> bool {
        self.0.lock().is_some_and(|at| at > now)
    }

    /// There was no connection. Whether that is news.
    pub(crate) fn trip(&self, now: Timestamp) -> bool {
        self.0.lock().replace(now.plus_micros(PROBE_MICROS).unwrap_or(now)).is_none()
    }

    /// There was an answer. Whether that is news.
    pub(crate) fn mend(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_halved_and_recovers() {
        let pace = Pace::new(Some(10));
        let seconds = async |calls: u32| {
            let start = Instant::now();
            for _ in 0..calls {
                pace.turn().await;
            }
            start.elapsed().as_secs_f64()
        };
        let quick = seconds(11).await;
        pace.slow_down();
        let slow = seconds(10).await;
        assert!(quick < 1.1 && slow > 1.7, "{quick} {slow}");
        tokio::time::advance(Duration::from_secs(120)).await;
        let again = seconds(11).await;
        assert!(again < 1.2, "{again}");
    }

    #[test]
    fn one_call_per_minute_probes() {
        let at = |seconds: i64| Timestamp::from_unix_micros(seconds * 1_000_000).unwrap();
        let breaker = Breaker::default();
        assert!(breaker.lets_through(at(0)));
        assert!(breaker.trip(at(0)) && !breaker.trip(at(0)));
        assert_eq!(
            [1, 59, 60, 61, 120].map(|second| breaker.lets_through(at(second))),
            [false, false, true, false, true]
        );
        assert!(breaker.mend() && breaker.lets_through(at(121)));
    }
}
