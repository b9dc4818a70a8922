//! Tests what is set aside, and how it comes back.

use bytes::Bytes;
use goldleaves_domain::Outcome;
use goldleaves_domain::wire::encode_event;
use goldleaves_ledger::{Incoming, Ledger};

use crate::events::{batch, event, id, incoming, with_client_id};
use crate::harness::{Database, on_both};

on_both!(
    a_dead_letter_gives_way_only_to_what_outranks_it,
    an_upgraded_event_is_judged_like_any_other,
    what_can_not_be_read_is_kept_with_its_bytes,
    good_and_bad_in_one_batch,
    an_event_from_a_clock_that_is_far_ahead_is_set_aside,
);

/// The same event as a newer gateway would send it.
fn newer(number: u64) -> Incoming {
    let text = String::from_utf8(encode_event(&event(number)).to_vec()).unwrap();
    Incoming::parse(text.replace("goldleaves.usage.v1", "goldleaves.usage.v2").into())
}

fn with_outcome(number: u64, outcome: Outcome) -> Incoming {
    let mut event = event(number);
    event.outcome = outcome;
    incoming(&event)
}

async fn reasons(database: &Database) -> Vec<String> {
    let rows = database.rows("SELECT reason FROM usage_dead_letters ORDER BY reason").await;
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

async fn set_aside(ledger: &Ledger, message: Incoming) -> (u64, u64, u64) {
    let recorded = ledger.record(&[message]).await.unwrap();
    (recorded.set_aside.values().sum(), recorded.inserted, recorded.replays)
}

async fn a_dead_letter_gives_way_only_to_what_outranks_it(database: Database) {
    let ledger = database.priced().await;
    let unreadable = newer(1);
    assert!(unreadable.parsed.is_err());
    assert_eq!(set_aside(&ledger, unreadable.clone()).await, (1, 0, 0));
    assert_eq!(reasons(&database).await, ["newer_version"]);
    assert_eq!(set_aside(&ledger, unreadable.clone()).await, (0, 0, 1));
    assert_eq!(set_aside(&ledger, with_outcome(1, Outcome::Unknown)).await, (1, 0, 0));
    assert_eq!(reasons(&database).await, ["unknown"]);
    assert_eq!(set_aside(&ledger, unreadable.clone()).await, (0, 0, 1));
    assert_eq!(set_aside(&ledger, with_outcome(1, Outcome::UpstreamAborted)).await, (1, 0, 0));
    assert_eq!(reasons(&database).await, ["upstream_aborted"]);
    assert_eq!(set_aside(&ledger, with_outcome(1, Outcome::Unknown)).await, (0, 0, 1));
    assert_eq!(database.count("usage_events").await, 0);
    assert_eq!(set_aside(&ledger, with_outcome(1, Outcome::Completed)).await, (0, 1, 0));
    for message in [unreadable, with_outcome(1, Outcome::Unknown), with_outcome(1, Outcome::UpstreamAborted)] {
        assert_eq!(set_aside(&ledger, message).await, (0, 0, 1));
    }
    assert_eq!(reasons(&database).await, [""; 0]);
    database.check_invariants().await;
    // All of them at once: the one that ranks highest stays.
    let all = [newer(2), with_outcome(2, Outcome::Unknown), with_outcome(2, Outcome::UpstreamAborted)];
    ledger.record(&all).await.unwrap();
    assert_eq!(reasons(&database).await, ["upstream_aborted"]);
    let all: Vec<_> = all.into_iter().chain([with_outcome(2, Outcome::GatewayStopped)]).collect();
    assert_eq!(ledger.record(&all).await.unwrap().inserted, 1);
    database.check_invariants().await;
}

async fn an_upgraded_event_is_judged_like_any_other(database: Database) {
    let ledger = database.priced().await;
    let events: Vec<_> = (1..=3).map(|number| with_client_id(event(number), "c")).collect();
    let mut lost = events[0].clone();
    lost.outcome = Outcome::Unknown;
    ledger.record(&[incoming(&lost)]).await.unwrap();
    ledger.record(&batch(&events[1..])).await.unwrap();
    let recorded = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((recorded.inserted, recorded.displaced, recorded.replays), (1, 1, 2));
    assert_eq!(database.verdicts().await, crate::harness::Verdicts::of(&events));
    assert_eq!(database.one("SELECT request_id FROM usage_events").await, "c");
    database.check_invariants().await;
}

async fn what_can_not_be_read_is_kept_with_its_bytes(database: Database) {
    let ledger = database.priced().await;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let payloads: [Vec<u8>; 5] =
        [b"".to_vec(), b"\0\xff\xfe".to_vec(), b"{}".to_vec(), vec![b'['; 100_000], "{\"id\":\"\u{0}🦀\"}".into()];
    let messages: Vec<_> = payloads.iter().map(|payload| Incoming::parse(Bytes::from(payload.clone()))).collect();
    assert_eq!(ledger.record(&messages).await.unwrap().set_aside.values().sum::<u64>(), 5);
    assert_eq!(ledger.record(&messages).await.unwrap().replays, 5);
    let sql = match database.kind {
        crate::harness::Kind::Postgres => "SELECT id, upper(encode(payload, 'hex')) FROM usage_dead_letters",
        crate::harness::Kind::Sqlite => "SELECT id, hex(payload) FROM usage_dead_letters",
    };
    let rows = database.rows(sql).await;
    for payload in &payloads {
        assert!(rows.iter().any(|row| row[1].as_deref() == Some(hex(payload).as_str())));
    }
    // SHA-256 of nothing.
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert!(rows.iter().any(|row| row[0].as_deref() == Some(nothing)));
}

async fn good_and_bad_in_one_batch(database: Database) {
    let ledger = database.priced().await;
    let mut messages: Vec<_> = (1..=500).map(|number| incoming(&event(number))).collect();
    messages.insert(250, Incoming::parse(Bytes::from_static(b"poison")));
    messages.insert(100, with_outcome(501, Outcome::UpstreamAborted));
    let recorded = ledger.record(&messages).await.unwrap();
    assert_eq!((recorded.inserted, recorded.set_aside.len()), (500, 2));
    assert_eq!(database.count("usage_dead_letters").await, 2);
    let letter = database.rows("SELECT id, tenant_id, request_id, CAST(seq AS text) FROM usage_dead_letters WHERE reason = 'upstream_aborted'").await;
    let expected = [id(501).to_string(), "acme".to_owned(), "made-501".to_owned(), "501".to_owned()];
    assert_eq!(letter, [expected.map(Some)]);
}

async fn an_event_from_a_clock_that_is_far_ahead_is_set_aside(database: Database) {
    const HOURS_48_MICROS: i64 = 48 * 3_600 * 1_000_000;
    let ledger = database.priced().await;
    let stored_before = |number: u64, micros: i64| {
        let event = event(number);
        incoming(&event).stored(event.ts.plus_micros(-micros).unwrap())
    };
    // Late is no mistake of a clock: it waited in a spool.
    assert_eq!(set_aside(&ledger, stored_before(1, -100 * HOURS_48_MICROS)).await, (0, 1, 0));
    assert_eq!(set_aside(&ledger, stored_before(2, HOURS_48_MICROS)).await, (0, 1, 0));
    assert_eq!(set_aside(&ledger, stored_before(3, HOURS_48_MICROS + 1)).await, (1, 0, 0));
    assert_eq!(reasons(&database).await, ["clock"]);
    assert_eq!(set_aside(&ledger, stored_before(3, HOURS_48_MICROS + 1)).await, (0, 0, 1));
    database.check_invariants().await;
    // Handed over again when its time has come, or by hand: it is billed and takes the letter's place.
    assert_eq!(set_aside(&ledger, stored_before(3, 0)).await, (0, 1, 0));
    assert_eq!(set_aside(&ledger, stored_before(3, HOURS_48_MICROS + 1)).await, (0, 0, 1), "for ever");
    assert_eq!(reasons(&database).await, [""; 0]);
    database.check_invariants().await;
}
