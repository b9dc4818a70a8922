//! Counts of the last ten seconds, in atomics that all cores share.

use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Moment;

const SECONDS: usize = 10;
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The number of them, and of those that were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) total: u64,
    pub(crate) bad: u64,
}

impl Counted {
    /// The share of the bad ones; of none there is none.
    pub(crate) fn share(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.bad as f64 / self.total as f64 }
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self { total: self.total + other.total, bad: self.bad + other.bad }
    }
}

/// One slot per second: the second in the high bits, then the total, then the bad ones. A count that is full stays full.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; SECONDS]);

impl Tally {
    /// One more.
    pub(crate) fn count(&self, now: Moment, bad: bool) {
        let second = now.seconds();
        let Some(slot) = self.0.get(usize::try_from(second % SECONDS as u64).unwrap_or(0)) else { return };
        let more = |packed: u64| {
            let counted = if is_of(packed, second) { unpack(packed) } else { Counted::default() };
            Some(pack(second, Counted { total: counted.total + 1, bad: counted.bad + u64::from(bad) }))
        };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The counts of the last ten seconds.
    pub(crate) fn recent(&self, now: Moment) -> Counted {
        let seconds = (0..SECONDS as u64).filter_map(|back| now.seconds().checked_sub(back));
        seconds.fold(Counted::default(), |sum, second| {
            let slot = self.0.get(usize::try_from(second % SECONDS as u64).unwrap_or(0));
            let packed = slot.map_or(0, |slot| slot.load(Ordering::Relaxed));
            if is_of(packed, second) { sum.and(unpack(packed)) } else { sum }
        })
    }

    /// Forgets them.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }
}

const fn is_of(packed: u64, second: u64) -> bool {
    packed != 0 && packed >> (2 * COUNT_BITS) == second & 0xff_ffff
}

const fn unpack(packed: u64) -> Counted {
    Counted { total: (packed >> COUNT_BITS) & COUNT_MASK, bad: packed & COUNT_MASK }
}

fn pack(second: u64, counted: Counted) -> u64 {
    let Counted { total, bad } = counted;
    (second & 0xff_ffff) << (2 * COUNT_BITS) | total.min(COUNT_MASK) << COUNT_BITS | bad.min(COUNT_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_are_counted_and_no_more() {
        let tally = Tally::default();
        for second in 0..25_u64 {
            let now = Moment::new(second * 1_000);
            tally.count(now, second % 2 == 0);
            tally.count(now, false);
            let seconds = (second + 1).min(10);
            let bad = (second + 1 - seconds..=second).filter(|second| second % 2 == 0).count() as u64;
            assert_eq!(tally.recent(now), Counted { total: 2 * seconds, bad });
        }
        assert_eq!(tally.recent(Moment::new(60_000)), Counted::default());
        tally.count(Moment::new(60_000), true);
        tally.clear();
        assert_eq!(tally.recent(Moment::new(60_000)), Counted::default());
    }
}
