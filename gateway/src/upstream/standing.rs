//! The standing of one address, and the choice between several: of two that are in service, drawn at random, a call
//! goes to the one that is expected to answer sooner.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use super::clock::Moment;
use super::outage::{Outage, Reason};
use super::score::Score;
use super::silence::Silence;
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
    score: Score,
    silence: Silence,
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

    /// A call waits for an answer from now on.
    pub(crate) fn asked(&self, now: Moment) {
        self.silence.begin(now);
    }

    /// A call does not wait any more, because there is an answer, or will be none.
    pub(crate) fn waited(&self) {
        self.silence.end();
    }

    /// A call does not wait any more, because whoever asked has left.
    pub(crate) fn left(&self, now: Moment) {
        if self.silence.end() {
            self.score.at_least(now, self.silence.lasted(now));
        }
    }

    /// A call was answered, or will not be.
    pub(crate) fn answered(&self, now: Moment, took: Duration, how: Answered) {
        self.silence.heard(now);
        self.score.observe(now, took);
        self.answers.count(now, how == Answered::Badly);
    }

    pub(crate) fn cost(&self, now: Moment) -> f64 {
        self.score.cost(now, self.outstanding(), self.silence.lasts(now))
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
