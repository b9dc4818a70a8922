//! Decides whether an address is in service, and why not: it could not be connected to, it answered badly when others did not, or
//! its health check fails.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Moment;

const CONNECT_PAUSE_MIN: Duration = Duration::from_secs(1);
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(30);
const EJECTED_MIN: Duration = Duration::from_secs(10);
const EJECTED_MAX: Duration = Duration::from_secs(300);

/// The reason an address is out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// No connection could be made.
    Connect,
    /// Its answers were bad and those of others were not.
    Answers,
    /// Its health check fails.
    Health,
}

impl Reason {
    pub(crate) const ALL: [Self; 3] = [Self::Connect, Self::Answers, Self::Health];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Answers => "answers",
            Self::Health => "health",
        }
    }
}

/// The state of one address. All cores write to it.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    /// When it is tried again; 0 = it can be connected to, as far as is known.
    trial_at: AtomicU64,
    connect_failures: AtomicU32,
    ejected_until: AtomicU64,
    ejections: AtomicU32,
    unhealthy: AtomicBool,
    /// When it last failed in any way.
    failed_at: AtomicU64,
}

impl Outage {
    /// Returns the reason it is out of service; `None` = it is in service.
    pub(crate) fn reason(&self, now: Moment) -> Option<Reason> {
        if self.is_unreachable() {
            Some(Reason::Connect)
        } else if self.unhealthy.load(Ordering::Relaxed) {
            Some(Reason::Health)
        } else if self.ejected_until.load(Ordering::Relaxed) > now.millis() {
            Some(Reason::Answers)
        } else {
            None
        }
    }

    /// Returns whether no connection could be made the last time.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.trial_at.load(Ordering::Relaxed) != 0
    }

    /// When it last failed; 0 = never.
    pub(crate) fn failed_at(&self) -> u64 {
        self.failed_at.load(Ordering::Relaxed)
    }

    /// No connection could be made; `true` when that is new.
    pub(crate) fn connect_failed(&self, now: Moment) -> bool {
        let failures = self.connect_failures.fetch_add(1, Ordering::Relaxed);
        let pause = doubled(CONNECT_PAUSE_MIN, failures).min(CONNECT_PAUSE_MAX);
        self.failed_at.store(now.millis(), Ordering::Relaxed);
        self.trial_at.swap(after(now, pause), Ordering::Relaxed) == 0
    }

    /// A connection was made.
    pub(crate) fn connected(&self) {
        if self.is_unreachable() {
            self.trial_at.store(0, Ordering::Relaxed);
            self.connect_failures.store(0, Ordering::Relaxed);
        }
    }

    /// Returns whether somebody should look now whether it can be connected to again.
    pub(crate) fn is_trial_due(&self, now: Moment) -> bool {
        let at = self.trial_at.load(Ordering::Relaxed);
        at != 0 && at <= now.millis()
    }

    /// Takes it out of service for its answers.
    pub(crate) fn eject(&self, now: Moment) {
        let last = self.ejected_until.load(Ordering::Relaxed);
        // What was good for as long as the longest outage begins anew.
        if last != 0 && after(Moment::new(last), EJECTED_MAX) < now.millis() {
            self.ejections.store(0, Ordering::Relaxed);
        }
        let times = self.ejections.fetch_add(1, Ordering::Relaxed);
        let pause = doubled(EJECTED_MIN, times).min(EJECTED_MAX);
        self.failed_at.store(now.millis(), Ordering::Relaxed);
        self.ejected_until.store(after(now, pause), Ordering::Relaxed);
    }

    /// The verdict of its health check; `true` when it changed to bad.
    pub(crate) fn healthy(&self, now: Moment, is_healthy: bool) -> bool {
        if !is_healthy {
            self.failed_at.store(now.millis(), Ordering::Relaxed);
        }
        !self.unhealthy.swap(!is_healthy, Ordering::Relaxed) && !is_healthy
    }
}

fn after(now: Moment, pause: Duration) -> u64 {
    now.millis().saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX))
}

fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(1_u32.checked_shl(times.min(16)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::new(seconds * 1_000)
    }

    #[test]
    fn what_cannot_be_connected_to_is_tried_ever_later() {
        let outage = Outage::default();
        assert!(outage.connect_failed(at(0)));
        assert_eq!(outage.reason(at(0)), Some(Reason::Connect));
        assert!(!outage.is_trial_due(at(0)) && outage.is_trial_due(at(1)));
        let mut now = 1;
        for pause in [2, 4, 8, 16, 30, 30] {
            assert!(!outage.connect_failed(at(now)));
            assert!(!outage.is_trial_due(at(now + pause - 1)) && outage.is_trial_due(at(now + pause)));
            now += pause;
        }
        outage.connected();
        assert_eq!((outage.reason(at(now)), outage.is_trial_due(at(now))), (None, false));
        assert!(outage.connect_failed(at(now)) && outage.is_trial_due(at(now + 1)), "it begins anew");
    }

    #[test]
    fn what_answers_badly_is_out_ever_longer() {
        let outage = Outage::default();
        let mut now = 1_000;
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            outage.eject(at(now));
            assert_eq!(outage.reason(at(now + pause - 1)), Some(Reason::Answers));
            assert_eq!(outage.reason(at(now + pause)), None);
            now += pause;
        }
        outage.eject(at(now + 301));
        assert_eq!(outage.reason(at(now + 311)), None, "it was good for long");
    }
}
