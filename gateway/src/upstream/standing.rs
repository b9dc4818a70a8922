//! The standing of one address, and the choice between several: of two that are in service, drawn at random, a call
//! goes to the one that is expected to answer sooner.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use super::clock::Moment;
use super::outage::{Outage, Reason};
use super::score::PeakEwma;
use super::tally::{Counted, Tally};

/// Fewer answers than these say nothing.
const ANSWERS_MIN: u64 = 10;
const BAD_SHARE_MIN: f64 = 0.5;
/// The factor by which an address's share of bad answers must exceed the others': what is bad everywhere is nobody's
/// fault here.
const TIMES_THE_OTHERS: f64 = 3.0;

/// Everything that is known of one address. All cores read and write it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) outage: Outage,
    pub(crate) answers: Tally,
    score: PeakEwma,
    outstanding: AtomicUsize,
    /// Health checks in a row that passed, and that failed.
    pub(crate) passes: AtomicU32,
    pub(crate) fails: AtomicU32,
}

/// The outcome of a call over an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// With a head that says nothing against the address.
    Well,
    /// 502, 503, 504, silence, or a broken connection.
    Badly,
}

impl Standing {
    pub(crate) fn begin(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// Calls that are under way.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// A call was answered, or will not be.
    pub(crate) fn answered(&self, now: Moment, took: Duration, how: Answered) {
        self.score.observe(now, took);
        self.answers.count(now, how == Answered::Badly);
    }

    pub(crate) fn cost(&self, now: Moment) -> f64 {
        self.score.cost(now, self.outstanding())
    }

    pub(crate) fn average(&self, now: Moment) -> Duration {
        self.score.average(now)
    }
}

/// Addresses among which is chosen, by their number.
pub(crate) trait Choices {
    /// Returns the number of them.
    fn count(&self) -> usize;
    /// Returns what is known of one.
    fn standing(&self, index: usize) -> Option<&Standing>;
    /// Returns whether this call was there already.
    fn is_tried(&self, index: usize) -> bool;
}

/// Chooses the address that a call goes to; `None` when there is none at all. `dice` gives a number below its argument.
///
/// Where all are out of service, the one whose last failure is the longest ago is tried anyway.
pub(crate) fn choose(choices: &impl Choices, now: Moment, mut dice: impl FnMut(usize) -> usize) -> Option<usize> {
    let count = choices.count();
    if count <= 1 {
        return (count == 1).then_some(0);
    }
    let serves = |index: &usize| {
        !choices.is_tried(*index) && choices.standing(*index).is_some_and(|one| one.outage.reason(now).is_none())
    };
    let in_service = (0..count).filter(serves).count();
    let nth = |wanted: usize| (0..count).filter(serves).nth(wanted);
    match in_service {
        0 => least_recently_failed(choices),
        1 => nth(0).or_else(|| least_recently_failed(choices)),
        _ => {
            let first = dice(in_service);
            let second = (first + 1 + dice(in_service - 1)) % in_service;
            let cost = |index: usize| choices.standing(index).map_or(f64::INFINITY, |one| one.cost(now));
            match (nth(first), nth(second)) {
                (Some(one), Some(other)) => Some(if cost(other) < cost(one) { other } else { one }),
                (one, other) => one.or(other).or_else(|| least_recently_failed(choices)),
            }
        }
    }
}

fn least_recently_failed(choices: &impl Choices) -> Option<usize> {
    let failed_at = |index: &usize| choices.standing(*index).map_or(0, |one| one.outage.failed_at());
    let all = || 0..choices.count();
    all().filter(|index| !choices.is_tried(*index)).min_by_key(failed_at).or_else(|| all().min_by_key(failed_at))
}

/// Takes an address out of service whose answers are bad while those of the others are not; `true` when it did.
///
/// Called after a bad answer. Never more than half of all addresses are out for their answers.
pub(crate) fn judge(choices: &impl Choices, index: usize, now: Moment) -> bool {
    let Some(judged) = choices.standing(index) else { return false };
    let own = judged.answers.recent(now);
    if own.total < ANSWERS_MIN || own.share() < BAD_SHARE_MIN || judged.outage.reason(now).is_some() {
        return false;
    }
    let others = || (0..choices.count()).filter(|other| *other != index).filter_map(|other| choices.standing(other));
    let of_others = others().fold(Counted::default(), |sum, other| sum.and(other.answers.recent(now)));
    let ejected = others().filter(|other| other.outage.reason(now) == Some(Reason::Answers)).count();
    if choices.count() < 2 || (ejected + 1) * 2 > choices.count() || own.share() < TIMES_THE_OTHERS * of_others.share()
    {
        return false;
    }
    judged.outage.eject(now);
    judged.answers.clear();
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    struct Some4([Standing; 4]);

    impl Choices for Some4 {
        fn count(&self) -> usize {
            4
        }

        fn standing(&self, index: usize) -> Option<&Standing> {
            self.0.get(index)
        }

        fn is_tried(&self, _: usize) -> bool {
            false
        }
    }

    /// Calls at 400 per second over four addresses. `serve` says how long an answer takes in ms and how good it is.
    fn simulate(
        seed: u64,
        calls: u64,
        mut serve: impl FnMut(usize, &mut SmallRng) -> (u64, Answered),
    ) -> (Some4, [u64; 4], u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let all = Some4(std::array::from_fn(|_| Standing::default()));
        let mut under_way: BinaryHeap<(std::cmp::Reverse<u64>, u64, usize, bool)> = BinaryHeap::new();
        let (mut to, mut ejections) = ([0; 4], 0);
        for call in 0..calls {
            let now_ms = call * 5 / 2;
            while let Some(&(std::cmp::Reverse(end), began, index, is_bad)) = under_way.peek()
                && end <= now_ms
            {
                under_way.pop();
                let how = if is_bad { Answered::Badly } else { Answered::Well };
                let now = Moment::new(end);
                all.0[index].end();
                all.0[index].answered(now, Duration::from_millis(end - began), how);
                if is_bad && judge(&all, index, now) {
                    ejections += 1;
                }
            }
            let chosen = choose(&all, Moment::new(now_ms), |below| random.random_range(0..below)).unwrap();
            let (millis, how) = serve(chosen, &mut random);
            all.0[chosen].begin();
            to[chosen] += 1;
            under_way.push((std::cmp::Reverse(now_ms + millis), now_ms, chosen, how == Answered::Badly));
        }
        (all, to, ejections)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn a_slow_address_gets_few_calls(seed: u64) {
            let (_, to, _) = simulate(seed, 8_000, |index, random| {
                let millis = random.random_range(10..50);
                (if index == 0 { millis * 10 } else { millis }, Answered::Well)
            });
            let share = to[0] as f64 / 8_000.0;
            prop_assert!(share < 0.03, "the slow one got {share}");
            prop_assert!(to[1..].iter().all(|calls| *calls > 1_200), "{to:?}");
        }

        #[test]
        fn an_address_that_fails_at_once_is_put_out(seed: u64) {
            let (_, to, ejections) = simulate(seed, 8_000, |index, random| {
                if index == 0 { (1, Answered::Badly) } else { (random.random_range(10..50), Answered::Well) }
            });
            prop_assert!(ejections >= 1);
            prop_assert!(to[0] as f64 / 8_000.0 < 0.02, "{to:?}");
        }

        #[test]
        fn a_tenant_whose_calls_fail_everywhere_puts_nobody_out(seed: u64, percent in 5_u32..=80) {
            let (_, _, ejections) = simulate(seed, 8_000, |_, random| {
                let is_bad = random.random_range(0..100) < percent;
                (random.random_range(10..50), if is_bad { Answered::Badly } else { Answered::Well })
            });
            // At the very beginning the ten answers that count may all be bad by chance.
            prop_assert!(ejections <= 1, "{ejections}");
        }
    }

    #[test]
    fn never_more_than_half_are_out_for_their_answers() {
        let all = Some4(std::array::from_fn(|_| Standing::default()));
        let now = Moment::new(5_000);
        for (index, is_bad) in [(0, true), (1, true), (2, true), (3, false)] {
            // Ever fewer good answers of others are left to compare with.
            for _ in 0..1_000 {
                all.0[3].answers.count(now, false);
            }
            for _ in 0..20 {
                all.0[index].answers.count(now, is_bad);
            }
        }
        assert_eq!([0, 1, 2, 3].map(|index| judge(&all, index, now)), [true, true, false, false]);
        for index in 0..4 {
            all.0[index].outage.healthy(Moment::new(1_000 + index as u64), false);
        }
        assert_eq!(choose(&all, Moment::new(6_000), |_| 0), Some(0), "all are out: the longest ago is tried");
    }
}
