//! The repeat rule: the same verdicts over every order of arrival, for a ledger that reads only a few rows.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::{Candidate, EventId, Outcome, RANKED_MAX, Timestamp, Verdict, judge};
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

/// An event of one set as it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrival {
    event_id: EventId,
    ts: Timestamp,
    outcome: Outcome,
}

impl Arrival {
    fn candidate(&self) -> Candidate {
        Candidate { event_id: self.event_id, ts: self.ts, completed: self.outcome == Outcome::Completed }
    }
}

/// A ledger of one tenant, one client id and one fingerprint. It has what the real one has: two tables that are found by
/// id, and an index that gives the first rows of one outcome in one table by (ts, id).
#[derive(Default)]
struct Ledger {
    billed: Vec<Arrival>,
    repeats: Vec<(Arrival, EventId)>,
    rows_read_max: usize,
}

impl Ledger {
    /// One transaction with these newcomers.
    fn record(&mut self, batch: &[Arrival]) {
        let mut newcomers: Vec<Arrival> = Vec::new();
        for arrival in batch {
            let known = self.billed.contains(arrival)
                || self.repeats.iter().any(|(row, _)| row == arrival)
                || newcomers.contains(arrival);
            if !known {
                newcomers.push(*arrival);
            }
        }
        let mut rows: BTreeMap<EventId, Arrival> = BTreeMap::new();
        for outcome in Outcome::ALL.into_iter().filter(|outcome| outcome.is_billable()) {
            let repeats: Vec<Arrival> = self.repeats.iter().map(|(row, _)| *row).collect();
            for table in [&self.billed, &repeats] {
                let mut read: Vec<Arrival> = table.iter().filter(|row| row.outcome == outcome).copied().collect();
                read.sort_by_key(|row| (row.ts, row.event_id));
                read.truncate(RANKED_MAX);
                rows.extend(read.into_iter().map(|row| (row.event_id, row)));
            }
        }
        self.rows_read_max = self.rows_read_max.max(rows.len());
        rows.extend(newcomers.iter().map(|row| (row.event_id, *row)));
        let mut candidates: Vec<Candidate> = rows.values().map(Arrival::candidate).collect();
        for (event_id, verdict) in judge(&mut candidates) {
            self.billed.retain(|row| row.event_id != event_id);
            self.repeats.retain(|(row, _)| row.event_id != event_id);
            match verdict {
                Verdict::Billed => self.billed.push(rows[&event_id]),
                Verdict::RepeatOf(first) => self.repeats.push((rows[&event_id], first)),
            }
        }
    }

    fn verdicts(&self) -> BTreeMap<EventId, Verdict> {
        let billed = self.billed.iter().map(|row| (row.event_id, Verdict::Billed));
        let repeats = self.repeats.iter().map(|(row, first)| (row.event_id, Verdict::RepeatOf(*first)));
        billed.chain(repeats).collect()
    }
}

/// The rule of the design, word by word, over the whole set.
fn by_the_book(set: &[Arrival]) -> BTreeMap<EventId, Verdict> {
    let mut order: Vec<Candidate> = set.iter().map(Arrival::candidate).collect();
    order.sort_by(|one, other| {
        (other.completed.cmp(&one.completed)).then(one.ts.cmp(&other.ts)).then(one.event_id.cmp(&other.event_id))
    });
    let mut verdicts: BTreeMap<EventId, Verdict> = order.iter().map(|one| (one.event_id, Verdict::Billed)).collect();
    let Some((first, others)) = order.split_first() else { return verdicts };
    for other in others.iter().take(3) {
        let apart = (other.ts.unix_micros() - first.ts.unix_micros()).abs();
        if apart < 24 * 60 * 60 * 1_000_000 {
            verdicts.insert(other.event_id, Verdict::RepeatOf(first.event_id));
        }
    }
    verdicts
}

fn arrival(id: usize, micros: i64, outcome: Outcome) -> Arrival {
    let ts = Timestamp::from_unix_micros(1_800_000_000_000_000 + micros).unwrap();
    Arrival { event_id: EventId::new(Uuid::from_u128(id as u128)), ts, outcome }
}

/// Sets that crowd the rule's edges: equal times, exactly 24 h, one microsecond to either side.
fn any_set(most: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let outcome = prop::sample::select(vec![Outcome::Completed, Outcome::ClientAborted, Outcome::GatewayStopped]);
    let moment = (-2_i64..=2, -1_i64..=1).prop_map(|(days, micros)| days * Timestamp::DAY_MICROS + micros);
    let moment = prop_oneof![moment, -200_000_000_000_i64..200_000_000_000];
    vec((moment, outcome), 0..=most).prop_flat_map(|events| {
        let ids: Vec<usize> = (1..=events.len()).collect();
        (Just(events), Just(ids).prop_shuffle())
            .prop_map(|(events, ids)| ids.into_iter().zip(events).map(|(id, (ts, how))| arrival(id, ts, how)).collect())
    })
}

/// A set, and the batches in which it arrives: any order, any cut, some of it again and again.
fn any_history() -> impl Strategy<Value = (Vec<Arrival>, Vec<Vec<Arrival>>)> {
    any_set(14).prop_flat_map(|set| {
        let again = if set.is_empty() {
            Just(Vec::new()).boxed()
        } else {
            vec(prop::sample::select(set.clone()), 0..12).boxed()
        };
        let deliveries = again.prop_map({
            let set = set.clone();
            move |again| set.iter().copied().chain(again).collect::<Vec<_>>()
        });
        (Just(set), deliveries.prop_shuffle(), 1_usize..6).prop_map(|(set, deliveries, size)| {
            let batches = deliveries.chunks(size).map(<[Arrival]>::to_vec).collect();
            (set, batches)
        })
    })
}

fn judged(set: &[Arrival]) -> BTreeMap<EventId, Verdict> {
    let mut candidates: Vec<Candidate> = set.iter().map(Arrival::candidate).collect();
    judge(&mut candidates).into_iter().collect()
}

proptest! {
    #[test]
    fn the_rule_is_the_design_s(set in any_set(10)) {
        prop_assert_eq!(judged(&set), by_the_book(&set));
    }

    #[test]
    fn any_order_of_arrival_ends_in_the_same_verdicts((set, batches) in any_history()) {
        let mut ledger = Ledger::default();
        batches.iter().for_each(|batch| ledger.record(batch));
        prop_assert_eq!(ledger.verdicts(), judged(&set));
        // A full replay, in the order of the first delivery, changes nothing.
        batches.iter().for_each(|batch| ledger.record(batch));
        prop_assert_eq!(ledger.verdicts(), judged(&set));
        prop_assert!(ledger.rows_read_max <= RANKED_MAX * 3 * 2);
    }

    #[test]
    fn no_set_has_more_than_three_repeats(set in any_set(30)) {
        let verdicts = judged(&set);
        let firsts: BTreeSet<EventId> =
            verdicts.values().filter_map(|verdict| if let Verdict::RepeatOf(id) = verdict { Some(*id) } else { None }).collect();
        prop_assert!(verdicts.values().filter(|verdict| **verdict != Verdict::Billed).count() < RANKED_MAX);
        prop_assert!(firsts.len() <= 1);
        prop_assert!(firsts.iter().all(|id| verdicts[id] == Verdict::Billed));
    }
}

/// Calls `visit` with every order of `items` (Heap's algorithm).
fn permutations<T>(items: &mut [T], size: usize, visit: &mut impl FnMut(&[T])) {
    if size <= 1 {
        return visit(items);
    }
    for index in 0..size {
        permutations(items, size - 1, visit);
        items.swap(if size.is_multiple_of(2) { index } else { 0 }, size - 1);
    }
}

#[test]
fn every_order_of_six_is_the_same() {
    let hour = Timestamp::HOUR_MICROS;
    let mut set = [
        arrival(3, 0, Outcome::Completed),
        arrival(1, 0, Outcome::Completed),
        arrival(2, -23 * hour, Outcome::ClientAborted),
        arrival(4, 24 * hour, Outcome::Completed),
        arrival(5, 24 * hour - 1, Outcome::Completed),
        arrival(6, 30 * hour, Outcome::GatewayStopped),
    ];
    let verdicts = judged(&set);
    let id = |number: u128| EventId::new(Uuid::from_u128(number));
    let repeats = [3, 5].map(|number| (id(number), Verdict::RepeatOf(id(1))));
    let billed = [1, 2, 4, 6].map(|number| (id(number), Verdict::Billed));
    assert_eq!(verdicts, repeats.into_iter().chain(billed).collect());
    let mut orders = 0;
    permutations(&mut set, 6, &mut |order| {
        orders += 1;
        let mut ledger = Ledger::default();
        order.iter().for_each(|arrival| ledger.record(&[*arrival]));
        assert_eq!(ledger.verdicts(), verdicts, "{order:?}");
    });
    assert_eq!(orders, 720);
}

#[test]
fn one_constant_id_buys_three_calls_and_no_more() {
    let set: Vec<Arrival> = (1..=10_000).map(|id| arrival(id, id as i64, Outcome::Completed)).collect();
    let repeats = judged(&set).into_values().filter(|verdict| *verdict != Verdict::Billed).count();
    assert_eq!(repeats, 3);
}

#[test]
fn an_event_given_twice_is_judged_once() {
    let one = arrival(1, 0, Outcome::Completed).candidate();
    assert_eq!(judge(&mut [one, one, one]), vec![(one.event_id, Verdict::Billed)]);
    assert_eq!(judge(&mut []), vec![]);
}
