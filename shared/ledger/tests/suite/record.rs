//! Tests what recording does to the tables.

use bytes::Bytes;
use goldleaves_domain::{Outcome, Period, Timestamp};
use goldleaves_ledger::{Incoming, LedgerError};
use rand::Rng as _;
use rand::seq::SliceRandom as _;

use crate::events::{at, batch, event, id, incoming, incoming_seal, seal_of, with_client_id};
use crate::harness::{Billed, Database, on_both};

on_both!(
    a_call_is_billed_once_and_costs_its_rate,
    a_row_has_the_columns_of_the_guide,
    replays_change_no_row,
    hours_that_ended_are_marked_and_counted,
    a_poison_message_names_itself_and_leaves_the_rest,
    without_a_rate_nothing_is_recorded_and_everything_waits,
    hostile_names_stay_what_they_are,
    the_widest_event_fits_every_column_and_index,
);

async fn a_call_is_billed_once_and_costs_its_rate(database: Database) {
    let ledger = database.priced().await;
    let events = [event(1), with_client_id(event(2), "a"), with_client_id(event(3), "a"), event(4)];
    let recorded = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((recorded.inserted, recorded.duplicates, recorded.replays), (3, 1, 0));
    assert_eq!(recorded.cost_cents.values().sum::<i64>(), 75);
    let again = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((again.inserted, again.duplicates, again.replays, again.cost_cents.values().sum::<i64>()), (0, 0, 4, 0));
    let month = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    let report = ledger.usage_report(&"acme".parse().unwrap(), &month).await.unwrap();
    assert_eq!((report.summary.total_events, report.summary.total_cost_cents.0), (3, 75));
    assert_eq!(report.summary.total_units.to_string(), "3");
    assert_eq!(report.summary.current_rate.unwrap().to_string(), "25");
    database.check_invariants().await;
}

async fn hours_that_ended_are_marked_and_counted(database: Database) {
    let ledger = database.priced().await;
    let mut fresh = event(1);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    fresh.ts = Timestamp::from_unix_micros(since.as_micros().try_into().unwrap()).unwrap();
    // Two events of one hour, one of another; and one of an hour that goes on.
    let late = [event(2), event(3), event(4)];
    let mut events = vec![fresh, late[0].clone(), late[1].clone(), late[2].clone()];
    events[2].ts = events[1].ts;
    events[3].ts = at("2026-03-11T10:00:00Z");
    let recorded = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((recorded.inserted, recorded.late_changes), (4, 2));
    assert_eq!(database.count("usage_late_hours").await, 2);
    assert_eq!(ledger.record(&batch(&events)).await.unwrap().late_changes, 0, "nothing changed");
}

async fn a_row_has_the_columns_of_the_guide(database: Database) {
    let ledger = database.priced().await;
    let mut event = with_client_id(event(7), "abc");
    event.units = "0.5".parse().unwrap();
    ledger.record(&[incoming(&event)]).await.unwrap();
    let sql = "SELECT CAST(id AS text), request_id, tenant_id, user_id, route, action, CAST(units AS text), \
               CAST(cost_cents AS text), metadata, CAST(units_micro AS text), client_request_id, fingerprint, \
               CAST(epoch AS text), CAST(seq AS text), outcome, CAST(rate_version AS text) FROM usage_events \
               WHERE created_at IS NOT NULL AND updated_at IS NOT NULL";
    let row: Vec<String> = database.rows(sql).await.remove(0).into_iter().map(Option::unwrap).collect();
    let units = if database.url.starts_with("postgres") { "0.500000" } else { "0.5" };
    let metadata = event.metadata_json();
    let print = event.fingerprint.as_ref().unwrap().as_str();
    let (event_id, epoch) = (event.event_id.to_string(), event.epoch.to_string());
    let route = "/api/v1/documents";
    let expected: [&str; 16] = [
        &event_id,
        "abc",
        "acme",
        "user-1",
        route,
        "read",
        units,
        "12",
        &metadata,
        "500000",
        "abc",
        print,
        &epoch,
        "7",
        "completed",
        "1",
    ];
    assert_eq!(row, expected);
    let ts = database.one("SELECT CAST(ts AS text) FROM usage_events").await;
    let expected =
        if database.url.starts_with("postgres") { "2026-03-10 10:00:07+00" } else { "2026-03-10T10:00:07.000000Z" };
    assert_eq!(ts, expected);
}

async fn replays_change_no_row(database: Database) {
    let ledger = database.priced().await;
    let mut events: Vec<_> = (1..=60).map(event).collect();
    for (at, event) in events.iter_mut().enumerate() {
        match at % 6 {
            0 | 1 => *event = with_client_id(event.clone(), &format!("c{}", at / 12)),
            2 => event.outcome = Outcome::UpstreamAborted,
            3 => event.outcome = Outcome::Unknown,
            _ => {}
        }
    }
    let mut messages = batch(&events);
    messages.push(Incoming::parse(Bytes::from_static(b"no JSON")));
    messages.push(Incoming::parse(Bytes::from_static(br#"{"specversion":"1.0","type":"goldleaves.usage.v9"}"#)));
    messages.push(incoming_seal(&seal_of(&events)));
    for piece in messages.chunks(7) {
        ledger.record(piece).await.unwrap();
    }
    let before = database.dump().await;
    assert_eq!(database.count("usage_dead_letters").await, 22);
    for size in [1, 9, 63, 63] {
        messages.shuffle(&mut rand::rng());
        for piece in messages.chunks(size) {
            let again = ledger.record(piece).await.unwrap();
            assert_eq!(again.inserted + again.duplicates + again.displaced, 0);
            assert!(again.set_aside.is_empty());
        }
        let doubled: Vec<_> = messages.iter().chain(&messages).cloned().collect();
        ledger.record(&doubled).await.unwrap();
        assert_eq!(database.dump().await, before);
    }
    database.check_invariants().await;
}

async fn a_poison_message_names_itself_and_leaves_the_rest(database: Database) {
    let ledger = database.priced().await;
    let mut events: Vec<_> = (1..=5).map(event).collect();
    events[2].seq = u64::MAX;
    let error = ledger.record(&batch(&events)).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(
        matches!(&error, LedgerError::Unstorable { message_id, .. } if *message_id == id(3).to_string()),
        "{error:?}"
    );
    assert_eq!(database.count("usage_events").await, 0);
    let poison = incoming(&events.remove(2));
    assert_eq!(ledger.record(&batch(&events)).await.unwrap().inserted, 4);
    let refused = ledger.refuse(&poison, &error.to_string()).await.unwrap();
    assert_eq!(refused.set_aside["refused"], 1);
    assert_eq!(ledger.refuse(&poison, "again").await.unwrap().replays, 1);
    let letter = database.rows("SELECT id, tenant_id, reason, CAST(seq AS text) FROM usage_dead_letters").await;
    let expected = [Some(id(3).to_string()), Some("acme".to_owned()), Some("refused".to_owned()), None];
    assert_eq!(letter, [expected]);
}

async fn without_a_rate_nothing_is_recorded_and_everything_waits(database: Database) {
    let ledger = database.ledger().await;
    let error = ledger.record(&batch(&[event(1)])).await.unwrap_err();
    assert!(matches!(error, LedgerError::NoRate) && error.is_transient(), "{error:?}");
    ledger.set_rate("0.000001".parse().unwrap(), at("2030-01-01")).await.unwrap();
    assert_eq!(ledger.record(&batch(&[event(1)])).await.unwrap().inserted, 1);
}

async fn hostile_names_stay_what_they_are(database: Database) {
    let ledger = database.priced().await;
    let names = [
        "o'brien",
        "a\"b",
        "$1",
        "{\"a\":[1]}",
        "'; DROP TABLE usage_events; --",
        "日本語",
        "🦀",
        "NULL",
        " ",
        "\\",
        "%_",
        "a~b",
        "e\u{301}",
        "\u{202e}x",
        "?1",
        ":name",
    ];
    let long = "ü".repeat(255);
    for (number, name) in names.iter().copied().chain([long.as_str()]).enumerate() {
        let mut event = event(u64::try_from(number).unwrap() + 1);
        event.tenant_id = name.parse().unwrap();
        event.user_id = name.parse().unwrap();
        event.metadata.user_agent = Some(format!("{name}\u{0}\n").repeat(500));
        ledger.record(&[incoming(&event)]).await.unwrap();
        let period = Period::new(at_hour(10), at_hour(11)).unwrap();
        let summary = ledger.usage_report(&event.tenant_id, &period).await.unwrap().summary;
        assert_eq!(summary.total_events, 1, "{name}");
        let push = ledger.report_usage(&event.tenant_id, &period, at("2026-04-01")).await;
        assert_eq!(push.reported.to_string(), "1", "{name}");
        let there = database.rows("SELECT tenant_id, user_id, metadata FROM usage_events").await;
        let expected = [Some(name.to_owned()), Some(name.to_owned()), Some(event.metadata_json())];
        assert!(there.contains(&expected.to_vec()), "{name}");
    }
}

fn at_hour(hour: u8) -> Timestamp {
    at(&format!("2026-03-10T{hour}:00:00Z"))
}

async fn the_widest_event_fits_every_column_and_index(database: Database) {
    let ledger = database.priced().await;
    // Nothing here can be compressed, which PostgreSQL would do before it measures an index row.
    let mut random = rand::rng();
    let mut text = |chars: usize, wide: bool| -> String {
        let range = if wide { 0x1_f300..0x1_f5ff } else { u32::from('0')..u32::from('z') };
        (0..chars).map(|_| char::from_u32(random.random_range(range.clone())).unwrap()).collect()
    };
    let mut message = String::new();
    for number in 1..=2 {
        let mut event = with_client_id(event(number), &"x".repeat(128));
        (event.tenant_id, event.user_id) = (text(255, true).parse().unwrap(), text(255, true).parse().unwrap());
        event.action = text(255, false).parse().unwrap();
        event.metadata.user_agent = Some(text(5_000, true));
        let route = format!("/{}", text(499, false));
        event.route = goldleaves_domain::RoutePattern::recorded(&route).unwrap();
        let sent = incoming(&event);
        message = String::from_utf8(sent.payload.to_vec()).unwrap();
        let received = Incoming::parse(sent.payload);
        assert!(received.parsed.is_ok(), "{:?}", received.parsed);
        assert_eq!(ledger.record(&[received]).await.unwrap().inserted, 1);
    }
    let newer =
        message.replace("goldleaves.usage.v1", "goldleaves.usage.v2").replace(&id(2).to_string(), &id(3).to_string());
    let recorded = ledger.record(&[Incoming::parse(newer.into())]).await.unwrap();
    assert_eq!(recorded.set_aside["newer_version"], 1);
    database.check_invariants().await;
}
