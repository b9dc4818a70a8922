//! The account of a run: what clients read, what the upstream served and what the ledger holds, compared as sets both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use crate::load::Receipt;
use crate::tables::TableContents;

/// The calls that may stand between the upstream's count and the ledger's besides what was set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unbilled {
    /// Calls that were announced and left no event.
    pub void: u64,
    /// Calls that the gateway sent to the upstream again.
    pub retries: u64,
    /// Calls that the gateway served without a record and counted, as `available` does while its disk takes none.
    pub unrecorded: u64,
}

impl AddAssign for Unbilled {
    fn add_assign(&mut self, more: Self) {
        self.void += more.void;
        self.retries += more.retries;
        self.unrecorded += more.unrecorded;
    }
}

/// The clients' ids of everything that was recorded.
pub fn client_ids(contents: &TableContents) -> BTreeSet<String> {
    let rows = contents.events.iter().chain(&contents.duplicates).filter_map(|row| row.client_request_id.clone());
    rows.chain(contents.dead_letters.iter().filter_map(|letter| letter.request_id.clone())).collect()
}

/// Everything that is wrong with an account, in words; every request had an id of its client's.
///
/// Each response that names its event has exactly one row, billed or a repeat, and no more than the gateway counted name none.
/// No event stands twice. By id and in all,
/// `billed + repeats <= served <= billed + repeats + set aside + void + retries + unrecorded`.
pub fn complaints(
    contents: &TableContents,
    receipts: &[Receipt],
    served: &[String],
    unbilled: Unbilled,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let twice = contents.occurrences().into_iter().filter(|(_, count)| *count != 1);
    wrong.extend(twice.map(|(id, count)| format!("event {id} stands in {count} rows")));
    wrong.extend(unrecorded_receipts(contents, receipts, unbilled.unrecorded));

    let mut tallies: BTreeMap<&str, IdTally> = BTreeMap::new();
    for id in served {
        tallies.entry(id).or_default().served += 1;
    }
    for row in contents.events.iter().chain(&contents.duplicates) {
        tallies.entry(row.client_request_id.as_deref().unwrap_or("none")).or_default().billed += 1;
    }
    for letter in &contents.dead_letters {
        tallies.entry(letter.request_id.as_deref().unwrap_or("none")).or_default().set_aside += 1;
    }
    let over = tallies.iter().filter(|(_, tally)| tally.billed > tally.served);
    wrong.extend(over.map(|(id, tally)| format!("{id}: more billed than served, {tally:?}")));
    let under: Vec<_> = tallies.iter().filter(|(_, tally)| tally.served > tally.billed + tally.set_aside).collect();
    let missing: u64 = under.iter().map(|(_, tally)| tally.served - tally.billed - tally.set_aside).sum();
    if missing > unbilled.void + unbilled.retries + unbilled.unrecorded {
        wrong.extend(under.iter().map(|(id, tally)| format!("{id}: served and not recorded, {tally:?}, {unbilled:?}")));
    }
    wrong
}

/// The number of times one client's id stands in each place.
#[derive(Debug, Default)]
struct IdTally {
    served: u64,
    billed: u64,
    set_aside: u64,
}

/// Returns the number of responses that say that nothing was recorded: they name no event.
pub fn without_event(receipts: &[Receipt]) -> u64 {
    receipts.iter().filter(|receipt| receipt.event_id.is_none()).count() as u64
}

fn unrecorded_receipts(contents: &TableContents, receipts: &[Receipt], counted: u64) -> Vec<String> {
    let are_counted = without_event(receipts) <= counted;
    let rows = contents.events.iter().chain(&contents.duplicates);
    let rows: BTreeMap<&str, Option<&str>> =
        rows.map(|row| (row.id.as_str(), row.client_request_id.as_deref())).collect();
    let mut wrong = Vec::new();
    for receipt in receipts.iter().filter(|receipt| receipt.event_id.is_some() || !are_counted) {
        let found = receipt.event_id.as_deref().and_then(|id| rows.get(id));
        if found != Some(&Some(receipt.request_id.as_str())) {
            wrong.push(format!("{receipt:?} has no row of its own, but {found:?}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{DeadLetterRow, TableRow};

    fn row(id: &str, client: &str) -> TableRow {
        let text = |text: &str| text.to_owned();
        TableRow {
            id: text(id),
            request_id: text(client),
            client_request_id: Some(text(client)),
            tenant: text("acme"),
            route: text("/x"),
            outcome: text("completed"),
            units_micro: 1,
            metadata: None,
        }
    }

    fn receipt(id: &str, client: &str) -> Receipt {
        Receipt { request_id: client.to_owned(), event_id: Some(id.to_owned()), status: 200 }
    }

    fn count(contents: &TableContents, receipts: &[Receipt], served: &[&str]) -> usize {
        let served: Vec<String> = served.iter().map(|id| (*id).to_owned()).collect();
        complaints(contents, receipts, &served, Unbilled::default()).len()
    }

    #[test]
    fn each_kind_of_mistake_is_named() {
        let letter = |id: &str, of: &str| DeadLetterRow {
            id: id.to_owned(),
            request_id: Some(of.into()),
            reason: "unknown".into(),
        };
        let good = TableContents {
            events: vec![row("1", "a"), row("2", "b")],
            duplicates: vec![row("3", "b")],
            dead_letters: vec![letter("4", "c"), letter("5", "a")],
        };
        let receipts = [receipt("1", "a"), receipt("3", "b")];
        let served = ["a", "a", "b", "b", "c"];
        assert_eq!(count(&good, &receipts, &served), 0);
        assert_eq!(count(&good, &[receipt("9", "a")], &served), 1, "a response without a row");
        assert_eq!(count(&good, &[receipt("4", "c")], &served), 1, "a response that was set aside");
        assert_eq!(count(&good, &[receipt("1", "b")], &served), 1, "a row of another request");
        assert_eq!(count(&good, &receipts, &["a", "a", "b", "c"]), 1, "billed and not served");
        assert_eq!(count(&good, &receipts, &["a", "a", "b", "b", "b", "c"]), 1, "served and not recorded");
        let mut twice = good.clone();
        twice.dead_letters.push(letter("1", "a"));
        assert_eq!(count(&twice, &receipts, &served), 1, "in two tables");
        let one = Unbilled { void: 1, ..Unbilled::default() };
        let more = ["a", "a", "b", "b", "b", "c"].map(str::to_owned);
        assert_eq!(complaints(&good, &receipts, &more, one), Vec::<String>::new(), "void explains one");
    }

    #[test]
    fn what_was_served_without_a_record_is_what_was_counted() {
        let contents = TableContents { events: vec![row("1", "a")], ..TableContents::default() };
        let without = |client: &str| Receipt { event_id: None, ..receipt("", client) };
        let receipts = [receipt("1", "a"), without("b"), without("c")];
        let served = ["a", "b", "c"].map(str::to_owned);
        let count = |unrecorded| {
            let unbilled = Unbilled { unrecorded, ..Unbilled::default() };
            complaints(&contents, &receipts, &served, unbilled).len()
        };
        assert_eq!(without_event(&receipts), 2);
        assert_eq!(count(2), 0);
        assert_eq!(count(1), 4, "both responses and both calls: nobody knows which one was not counted");
        let unbilled = Unbilled { unrecorded: 3, ..Unbilled::default() };
        let unknown = [receipt("9", "a"), without("b"), without("c")];
        assert_eq!(complaints(&contents, &unknown, &served, unbilled).len(), 1, "an event that is named has its row");
    }
}
