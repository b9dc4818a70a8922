//! Corrections of single events, as a function of the set of events and of the corrections that name them.
//!
//! A billed row is void when it, or one of its repeats, is named by a void; it is adjusted by what is adjusted of it and
//! of its repeats. Verdicts change when events arrive late, so what a correction comes to may change after it was made:
//! the difference is written as a further row. Nothing here knows how rows are stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::{EventId, Timestamp};

/// Where the numbers of a correction count: where the row that they correct counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CorrectionPlace {
    /// The row's time.
    pub ts: Timestamp,
    /// The matched pattern.
    pub route: String,
    /// The action.
    pub action: String,
    /// The rate card that prices the row.
    pub rate_version: i64,
}

/// A billed row, and the events that repeat it.
#[derive(Debug, Clone)]
pub struct BilledRow {
    /// The row.
    pub event_id: EventId,
    /// Where it counts.
    pub place: CorrectionPlace,
    /// The units that it counts.
    pub units_micro: i64,
    /// Its repeats.
    pub repeats: Vec<EventId>,
}

/// The corrections of a set of events: what they ask for, and what was written for them so far.
#[derive(Debug, Clone, Default)]
pub struct Corrections {
    voids: BTreeSet<EventId>,
    adjusts: BTreeMap<EventId, i128>,
    written: BTreeMap<(EventId, CorrectionPlace), Numbers>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Numbers {
    events: i64,
    units_micro: i128,
}

/// The change that is still to be written at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The event that it is written for.
    pub event_id: EventId,
    /// Where.
    pub place: CorrectionPlace,
    /// Events more, or less.
    pub events: i64,
    /// Millionths of units more, or less.
    pub units_micro: i128,
}

impl Corrections {
    /// Names an event as void.
    pub fn void(&mut self, event_id: EventId) {
        self.voids.insert(event_id);
    }

    /// Adjusts an event.
    pub fn adjust(&mut self, event_id: EventId, units_micro: i64) {
        *self.adjusts.entry(event_id).or_default() += i128::from(units_micro);
    }

    /// Counts numbers that were written before, of whichever kind.
    pub fn wrote(&mut self, change: &Difference) {
        let written = self.written.entry((change.event_id, change.place.clone())).or_default();
        written.events += change.events;
        written.units_micro += change.units_micro;
    }

    /// Returns whether a row is void.
    pub fn is_void(&self, row: &BilledRow) -> bool {
        row.members().any(|id| self.voids.contains(&id))
    }

    /// Returns what is adjusted of a row. A row never counts less than nothing.
    pub fn adjusted(&self, row: &BilledRow) -> i128 {
        let asked: i128 = row.members().filter_map(|id| self.adjusts.get(&id)).sum();
        asked.max(-i128::from(row.units_micro))
    }

    /// The difference between what these rows ask for and what was written, in the order of the places. Every event of the
    /// set has to be a row, or a repeat of one.
    ///
    /// What was written for an event counts where the row of its group counts, and nowhere else: so events that part
    /// later take along what is theirs, and each can be judged without the other.
    pub fn changes(&self, rows: &[BilledRow]) -> Vec<Difference> {
        let groups: BTreeMap<EventId, &BilledRow> =
            rows.iter().flat_map(|row| row.members().map(move |event_id| (event_id, row))).collect();
        let mut open: BTreeMap<(&CorrectionPlace, EventId), Numbers> = BTreeMap::new();
        for row in rows {
            let wanted = match self.is_void(row) {
                true => Numbers { events: -1, units_micro: -i128::from(row.units_micro) },
                false => Numbers { events: 0, units_micro: self.adjusted(row) },
            };
            open.insert((&row.place, row.event_id), wanted);
        }
        for ((event_id, place), written) in &self.written {
            let row = groups.get(event_id).filter(|row| row.place == *place);
            let left = open.entry((place, row.map_or(*event_id, |row| row.event_id))).or_default();
            left.events -= written.events;
            left.units_micro -= written.units_micro;
        }
        let open = open.into_iter().filter(|(_, left)| *left != Numbers::default());
        open.map(|((place, event_id), left)| Difference {
            event_id,
            place: place.clone(),
            events: left.events,
            units_micro: left.units_micro,
        })
        .collect()
    }
}

impl BilledRow {
    /// The row and its repeats.
    pub fn members(&self) -> impl Iterator<Item = EventId> {
        std::iter::once(self.event_id).chain(self.repeats.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn row(id: u128, second: i64, repeats: &[u128]) -> BilledRow {
        let event = |id| EventId::new(Uuid::from_u128(id));
        let ts = Timestamp::from_unix_micros(second * 1_000_000).unwrap();
        BilledRow {
            event_id: event(id),
            place: CorrectionPlace { ts, route: "/a".to_owned(), action: "read".to_owned(), rate_version: 1 },
            units_micro: 3_000_000,
            repeats: repeats.iter().map(|id| event(*id)).collect(),
        }
    }

    fn write(corrections: &mut Corrections, rows: &[BilledRow]) -> Vec<(u128, i64, i128)> {
        let changes = corrections.changes(rows);
        changes.iter().for_each(|change| corrections.wrote(change));
        assert_eq!(corrections.changes(rows), [], "once written nothing is left");
        changes.iter().map(|change| (change.event_id.as_uuid().as_u128(), change.events, change.units_micro)).collect()
    }

    #[test]
    fn a_void_moves_to_the_row_that_displaces_its_own() {
        let mut corrections = Corrections::default();
        corrections.void(row(2, 0, &[]).event_id);
        assert_eq!(write(&mut corrections, &[row(1, 10, &[2])]), [(1, -1, -3_000_000)], "a repeat voids its first");
        assert_eq!(write(&mut corrections, &[row(3, 5, &[1, 2])]), [(3, -1, -3_000_000), (1, 1, 3_000_000)]);
        // The repeat that was named is billed by itself, and stays void; its first is not named.
        let apart = [row(3, 5, &[1]), row(2, 7, &[])];
        assert_eq!(write(&mut corrections, &apart), [(3, 1, 3_000_000), (2, -1, -3_000_000)]);
    }

    #[test]
    fn events_that_part_take_along_what_is_theirs() {
        let mut corrections = Corrections::default();
        let (first, repeat) = (row(1, 10, &[]), row(2, 20, &[]));
        // The repeat is named, and what that comes to counts where its first does.
        corrections.void(repeat.event_id);
        corrections.wrote(&Difference {
            event_id: repeat.event_id,
            place: first.place.clone(),
            events: -1,
            units_micro: -3_000_000,
        });
        assert_eq!(write(&mut corrections, &[row(1, 10, &[2])]), []);
        assert_eq!(write(&mut corrections, &[first.clone(), repeat]), [(2, 1, 3_000_000), (2, -1, -3_000_000)]);
        // Nothing of it is left with the first: judged alone, it is as if it had never been named.
        let mut alone = Corrections::default();
        let of_first = corrections.written.iter().filter(|((event_id, _), _)| *event_id == first.event_id);
        for ((event_id, place), numbers) in of_first {
            let (event_id, place) = (*event_id, place.clone());
            alone.wrote(&Difference { event_id, place, events: numbers.events, units_micro: numbers.units_micro });
        }
        assert_eq!(alone.changes(&[first]), []);
    }

    #[test]
    fn adjustments_follow_and_end_at_nothing() {
        let mut corrections = Corrections::default();
        corrections.adjust(row(1, 0, &[]).event_id, -2_000_000);
        assert_eq!(write(&mut corrections, &[row(1, 10, &[])]), [(1, 0, -2_000_000)]);
        corrections.adjust(row(2, 0, &[]).event_id, -2_000_000);
        assert_eq!(write(&mut corrections, &[row(3, 5, &[1, 2])]), [(3, 0, -3_000_000), (1, 0, 2_000_000)]);
        corrections.void(row(1, 0, &[]).event_id);
        assert_eq!(write(&mut corrections, &[row(3, 5, &[1, 2])]), [(3, -1, 0)], "what was adjusted is gone already");
    }
}
