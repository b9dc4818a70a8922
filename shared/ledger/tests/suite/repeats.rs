//! Tests of which of several equal requests is billed, and what happens to earlier rows when a better one comes late.

use std::collections::BTreeMap;

use goldleaves_domain::{Outcome, UsageEvent};

use crate::events::{at, batch, event, fingerprint, id, incoming, with_client_id};
use crate::harness::{Database, Verdicts, on_both};

on_both!(
    a_late_event_that_ranks_first_displaces_and_gets_the_label,
    of_a_set_at_most_three_are_repeats_and_only_within_a_day,
    labels_are_bare_for_one_row_and_own_for_the_others,
    a_displaced_fourth_repeat_becomes_billed_again,
    what_matches_nothing_is_billed,
);

/// An event of the set "c" at a moment.
fn of_set(number: u64, ts: &str) -> UsageEvent {
    let mut event = with_client_id(event(number), "c");
    event.ts = at(ts);
    event
}

async fn labels(database: &Database) -> BTreeMap<String, String> {
    let rows = database.rows("SELECT CAST(id AS text), request_id FROM usage_events").await;
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
}

async fn a_late_event_that_ranks_first_displaces_and_gets_the_label(database: Database) {
    let ledger = database.priced().await;
    let mut first = of_set(1, "2026-03-10T12:00:00Z");
    first.units = "7".parse().unwrap();
    first.route = "/api/v1/ai".parse().unwrap();
    let better = of_set(2, "2026-03-10T09:00:00Z");
    ledger.record(&[incoming(&first)]).await.unwrap();
    let recorded = ledger.record(&[incoming(&better)]).await.unwrap();
    assert_eq!((recorded.inserted, recorded.displaced, recorded.duplicates), (1, 1, 0));
    assert_eq!(recorded.cost_cents.values().sum::<i64>(), 25 - 7 * 25);
    assert_eq!(labels(&database).await, BTreeMap::from([(id(2).to_string(), "c".to_owned())]));
    let repeat = database.rows("SELECT CAST(id AS text), request_id, CAST(duplicate_of AS text) FROM usage_duplicates");
    assert_eq!(repeat.await, [[Some(id(1).to_string()), Some("c".to_owned()), Some(id(2).to_string())]]);
    assert_eq!(database.verdicts().await, Verdicts::of([&first, &better]));
    database.check_invariants().await;
    // An aborted call ranks behind every completed one, however early it was.
    let mut aborted = of_set(3, "2026-03-10T08:00:00Z");
    aborted.outcome = Outcome::ClientAborted;
    ledger.record(&[incoming(&aborted)]).await.unwrap();
    assert_eq!(database.verdicts().await, Verdicts::of([&first, &better, &aborted]));
    let again = ledger.record(&batch([&first, &better, &aborted])).await.unwrap();
    assert_eq!(again.replays, 3);
}

async fn of_a_set_at_most_three_are_repeats_and_only_within_a_day(database: Database) {
    let ledger = database.priced().await;
    let events = [
        of_set(1, "2026-03-10T10:00:00Z"),
        of_set(2, "2026-03-11T09:59:59.999999Z"),
        of_set(3, "2026-03-11T10:00:00Z"),
        of_set(4, "2026-03-11T10:00:01Z"),
        of_set(5, "2026-03-11T10:00:02Z"),
    ];
    for event in events.iter().rev() {
        ledger.record(&[incoming(event)]).await.unwrap();
        database.check_invariants().await;
    }
    let verdicts = database.verdicts().await;
    assert_eq!(verdicts, Verdicts::of(&events));
    assert_eq!(verdicts.repeats, BTreeMap::from([(id(2).to_string(), id(1).to_string())]));
    database.clear().await;
    let events: Vec<UsageEvent> = (1..=1000).map(|number| with_client_id(event(number), "c")).collect();
    let recorded = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((recorded.inserted, recorded.duplicates), (997, 3));
    assert_eq!(database.verdicts().await, Verdicts::of(&events));
    database.check_invariants().await;
}

async fn labels_are_bare_for_one_row_and_own_for_the_others(database: Database) {
    let ledger = database.priced().await;
    let mine = of_set(1, "2026-03-10T12:00:00Z");
    let mut theirs = of_set(2, "2026-03-10T13:00:00Z");
    theirs.tenant_id = "other".parse().unwrap();
    let mut elsewhere = of_set(3, "2026-03-10T14:00:00Z");
    elsewhere.fingerprint = Some(fingerprint(1));
    for event in [&mine, &theirs, &elsewhere] {
        assert_eq!(ledger.record(&[incoming(event)]).await.unwrap().inserted, 1);
    }
    let own = |number| format!("c~{}", id(number));
    let expected = [(id(1).to_string(), "c".to_owned()), (id(2).to_string(), own(2)), (id(3).to_string(), own(3))];
    assert_eq!(labels(&database).await, BTreeMap::from(expected));
    // The other tenant's row is displaced: it had a label of its own, so the newcomer gets one, too.
    let mut earlier = of_set(4, "2026-03-10T11:00:00Z");
    earlier.tenant_id = theirs.tenant_id.clone();
    ledger.record(&[incoming(&earlier)]).await.unwrap();
    let expected = [(id(1).to_string(), "c".to_owned()), (id(3).to_string(), own(3)), (id(4).to_string(), own(4))];
    assert_eq!(labels(&database).await, BTreeMap::from(expected));
    assert_eq!(database.verdicts().await, Verdicts::of([&mine, &theirs, &elsewhere, &earlier]));
}

async fn a_displaced_fourth_repeat_becomes_billed_again(database: Database) {
    let ledger = database.priced().await;
    let events: Vec<UsageEvent> = (11..=14).map(|number| with_client_id(event(number), "c")).collect();
    ledger.record(&batch(&events)).await.unwrap();
    assert_eq!(database.count("usage_duplicates").await, 3);
    let earlier = with_client_id(event(5), "c");
    let recorded = ledger.record(&[incoming(&earlier)]).await.unwrap();
    assert_eq!((recorded.inserted, recorded.displaced), (1, 2));
    assert_eq!(database.verdicts().await, Verdicts::of(events.iter().chain([&earlier])));
    let expected = [(id(5).to_string(), "c".to_owned()), (id(14).to_string(), format!("c~{}", id(14)))];
    assert_eq!(labels(&database).await, BTreeMap::from(expected));
    database.check_invariants().await;
}

async fn what_matches_nothing_is_billed(database: Database) {
    let ledger = database.priced().await;
    let mut unfinished = [with_client_id(event(1), "c"), with_client_id(event(2), "c")];
    unfinished.iter_mut().for_each(|event| event.fingerprint = None);
    // A gateway's own id that happens to be a client's.
    let mut made = event(3);
    made.request_id = "c".parse().unwrap();
    let events = [unfinished[0].clone(), unfinished[1].clone(), made, with_client_id(event(4), "c")];
    let recorded = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((recorded.inserted, recorded.duplicates), (4, 0));
    assert_eq!(ledger.record(&batch(&events)).await.unwrap().replays, 4);
    assert_eq!(database.verdicts().await, Verdicts::of(&events));
    database.check_invariants().await;
}
