//! Decides which of several equal requests is billed, and which are its repeats.
//!
//! The rule is a function of the *set* of events: neither the order they arrive in, nor who records them, nor how often
//! they are delivered changes a verdict. It speaks of one tenant's billable events with one client request id and one
//! fingerprint; whoever calls it has selected those.

use crate::{EventId, Timestamp};

/// Only so many events of a set, in rank order, are compared: the one that is billed and at most three repeats. So one
/// constant id does not buy a thousand calls, and the ledger never reads more rows than this per outcome and table.
pub const RANKED_MAX: usize = 4;

/// The part of an event that the rule needs: one tenant's, of one client id and one fingerprint, with a billable
/// outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The event.
    pub event_id: EventId,
    /// When its request arrived.
    pub ts: Timestamp,
    /// True if its outcome is `completed`; those rank before the others.
    pub completed: bool,
}

impl Candidate {
    /// Orders a set: completed before other outcomes, then by time, then by id.
    pub fn rank(&self) -> impl Ord + use<> {
        (!self.completed, self.ts, self.event_id)
    }

    /// Less than 24 hours apart, before or after.
    fn is_near(&self, other: &Self) -> bool {
        self.ts.unix_micros().abs_diff(other.ts.unix_micros()) < Timestamp::DAY_MICROS.unsigned_abs()
    }
}

/// The verdict on an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is a usage event.
    Billed,
    /// It repeats this event, which is billed.
    RepeatOf(EventId),
}

/// Sorts the set by rank and judges every event of it once; the verdicts come in rank order.
///
/// The first is billed. Of the next three, those less than 24 h from the first are its repeats. All others are billed.
/// Since no verdict beyond the first [`RANKED_MAX`] can be a repeat, a part of the set that holds those and the newcomer
/// gives the same verdicts for its members as the whole set does.
pub fn judge(candidates: &mut [Candidate]) -> Vec<(EventId, Verdict)> {
    candidates.sort_unstable_by_key(Candidate::rank);
    let mut verdicts: Vec<(EventId, Verdict)> = Vec::with_capacity(candidates.len());
    let mut first: Option<Candidate> = None;
    for candidate in candidates.iter() {
        if verdicts.last().is_some_and(|(id, _)| *id == candidate.event_id) {
            continue;
        }
        let first = *first.get_or_insert(*candidate);
        let ranked = (1..RANKED_MAX).contains(&verdicts.len());
        let verdict =
            if ranked && candidate.is_near(&first) { Verdict::RepeatOf(first.event_id) } else { Verdict::Billed };
        verdicts.push((candidate.event_id, verdict));
    }
    verdicts
}
