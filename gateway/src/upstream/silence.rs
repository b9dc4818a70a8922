//! How long an address has said nothing while calls wait for its answer: less than that none of them will take.
//!
//! An average knows answers alone. Without this, an address that has stopped answering would look as quick as ever until the
//! first of its calls is given up, and one that nobody knows yet would be given every call until its first answer.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::clock::Moment;

/// The calls that wait. Cores write to it at once, and may overwrite a moment by one that is a little older: it is a hint.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    waiting: AtomicUsize,
    /// When something was last heard, or the first of those that wait began to.
    since: AtomicU64,
}

impl Silence {
    /// A call waits for an answer.
    pub(crate) fn begin(&self, now: Moment) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.since.store(now.millis(), Ordering::Relaxed);
        }
    }

    /// A call waits no more. Returns whether none is left.
    pub(crate) fn end(&self) -> bool {
        self.waiting.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Something was heard.
    pub(crate) fn heard(&self, now: Moment) {
        self.since.store(now.millis(), Ordering::Relaxed);
    }

    /// Returns how long nothing was heard, while a call waits.
    pub(crate) fn lasts(&self, now: Moment) -> Duration {
        if self.waiting.load(Ordering::Relaxed) == 0 { Duration::ZERO } else { self.lasted(now) }
    }

    /// Returns how long nothing was heard until the last call ceased to wait. A millisecond that has only begun does not count.
    pub(crate) fn lasted(&self, now: Moment) -> Duration {
        let since = self.since.load(Ordering::Relaxed);
        Duration::from_millis(now.millis().saturating_sub(since).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_lasts_while_a_call_waits_and_nothing_is_heard() {
        let silence = Silence::default();
        let at = |millis| Moment::new(millis);
        assert_eq!(silence.lasts(at(500)), Duration::ZERO, "nobody waits");
        silence.begin(at(1_000));
        silence.begin(at(1_200));
        assert_eq!(silence.lasts(at(1_301)), Duration::from_millis(300));
        silence.heard(at(1_301));
        assert!(!silence.end());
        assert_eq!(silence.lasts(at(1_302)), Duration::ZERO, "a millisecond that has only begun");
        assert_eq!(silence.lasts(at(1_402)), Duration::from_millis(100), "one still waits");
        assert!(silence.end());
        assert_eq!(
            (silence.lasts(at(2_302)), silence.lasted(at(2_302))),
            (Duration::ZERO, Duration::from_millis(1_000))
        );
        silence.begin(at(9_000));
        assert_eq!(silence.lasts(at(9_001)), Duration::ZERO, "it begins anew");
    }
}
