//! Tests what a tenant is shown and what Stripe is to be told.

use goldleaves_billing::stripe::{METER, PushState};
use goldleaves_domain::{Period, UsageEvent};
use goldleaves_ledger::Ledger;

use crate::events::{at, batch, event, incoming, with_client_id};
use crate::harness::{Billed, Database, on_both};

on_both!(
    a_report_has_a_line_a_route_and_only_the_tenants_own,
    nothing_used_is_zeros,
    a_push_holds_the_settled_hours_and_later_usage_is_a_new_revision,
    a_displacement_after_the_push_is_a_negative_revision,
    the_same_report_at_once_makes_the_same_rows,
    the_state_is_that_of_the_rows,
);

fn period(start: &str, end: &str) -> Period {
    Period::new(at(start), at(end)).unwrap()
}

fn at_time(number: u64, ts: &str, units: &str) -> UsageEvent {
    let mut event = event(number);
    (event.ts, event.units) = (at(ts), units.parse().unwrap());
    event
}

async fn push(ledger: &Ledger, period: &Period, now: &str) -> (String, String, PushState) {
    let push = ledger.report_usage(&"acme".parse().unwrap(), period, at(now)).await;
    (push.reported.to_string(), push.pushed.to_string(), push.state)
}

/// Hour, revision and units of every row.
async fn pushes(database: &Database) -> Vec<(u8, u8, String)> {
    let hour = if database.url.starts_with("postgres") { "to_char(hour, 'HH24')" } else { "substr(hour, 12, 2)" };
    let sql = format!(
        "SELECT {hour}, CAST(revision AS text), CAST(units_micro AS text) FROM stripe_pushes \
         WHERE tenant_id = 'acme' AND meter = '{METER}' ORDER BY hour, revision"
    );
    let rows = database.rows(&sql).await;
    let read = |row: Vec<Option<String>>| {
        let [hour, revision, units] = row.try_into().unwrap();
        (hour.unwrap().parse().unwrap(), revision.unwrap().parse().unwrap(), units.unwrap())
    };
    rows.into_iter().map(read).collect()
}

async fn a_report_has_a_line_a_route_and_only_the_tenants_own(database: Database) {
    let ledger = database.priced().await;
    let mut events = vec![at_time(1, "2026-03-10T10:00:00Z", "0.5"), at_time(2, "2026-03-10T10:59:59.999999Z", "0.02")];
    events.push(at_time(3, "2026-03-10T11:00:00Z", "3"));
    events[1].route = "/api/v1/ai".parse().unwrap();
    events[1].action = "create".parse().unwrap();
    let mut other = at_time(4, "2026-03-10T10:30:00Z", "100");
    other.tenant_id = "acme2".parse().unwrap();
    events.push(other);
    ledger.record(&batch(&events)).await.unwrap();
    let hour = period("2026-03-10T10:00:00Z", "2026-03-10T11:00:00Z");
    let report = ledger.usage_report(&"acme".parse().unwrap(), &hour).await.unwrap();
    let lines: Vec<_> = report
        .routes
        .iter()
        .map(|line| (line.route.as_str(), line.events, line.units.to_string(), line.cost_cents.0))
        .collect();
    // 0.52 × 25 = 13, shared: of 0.5 and 12.5 both are cut, and of the equal remainders the first has the cent.
    let expected = [("/api/v1/ai", 1, "0.02".to_owned(), 1), ("/api/v1/documents", 1, "0.5".to_owned(), 12)];
    assert_eq!(lines, expected);
    let summary = report.summary;
    assert_eq!((summary.total_events, summary.unique_routes, summary.total_cost_cents.0), (2, 2, 13));
    assert_eq!(summary.total_units.to_string(), "0.52");
}

async fn nothing_used_is_zeros(database: Database) {
    let ledger = database.priced().await;
    let period = period("2026-03-10", "2026-03-11");
    let report = ledger.usage_report(&"nobody".parse().unwrap(), &period).await.unwrap();
    assert!(report.routes.is_empty());
    assert_eq!(
        (report.summary.total_events, report.summary.total_units.0, report.summary.total_cost_cents.0),
        (0, 0, 0)
    );
    let push = ledger.report_usage(&"nobody".parse().unwrap(), &period, at("2026-04-01")).await;
    assert_eq!((push.reported.0, push.pushed.0, push.state), (0, 0, PushState::Unmapped));
    assert_eq!(database.count("stripe_pushes").await, 0);
}

async fn a_push_holds_the_settled_hours_and_later_usage_is_a_new_revision(database: Database) {
    let ledger = database.priced().await;
    let times = ["09:59:59Z", "10:00:00Z", "10:30:00Z", "11:59:59Z", "12:00:00Z"];
    let events: Vec<UsageEvent> = times
        .iter()
        .zip(1_u64..)
        .map(|(time, number)| at_time(number, &format!("2026-03-10T{time}"), &format!("{number}")))
        .collect();
    ledger.record(&batch(&events)).await.unwrap();
    let ragged = period("2026-03-10T09:30:00Z", "2026-03-10T12:30:00Z");
    // The hour from 10 on is over at 11, and settled five minutes later.
    assert_eq!(push(&ledger, &ragged, "2026-03-10T11:04:59.999999Z").await.0, "0");
    assert_eq!(push(&ledger, &ragged, "2026-03-10T11:05:00Z").await, ("5".into(), "0".into(), PushState::Unmapped));
    assert_eq!(pushes(&database).await, [(10, 0, "5000000".to_owned())]);
    // 9 and 12 lie only partly in the period.
    assert_eq!(push(&ledger, &ragged, "2026-03-11").await.0, "9");
    let both = vec![(10, 0, "5000000".to_owned()), (11, 0, "4000000".to_owned())];
    for _ in 0..2 {
        assert_eq!(pushes(&database).await, both);
        let again = ledger.report_usage(&"acme".parse().unwrap(), &ragged, at("2026-03-11")).await;
        let id = ledger.report_usage(&"acme".parse().unwrap(), &ragged, at("2026-03-12")).await.report_id;
        assert_eq!(again.report_id, id);
    }
    ledger.record(&[incoming(&at_time(6, "2026-03-10T10:10:00Z", "0.25"))]).await.unwrap();
    assert_eq!(push(&ledger, &ragged, "2026-03-11").await.0, "9.25");
    let revised = [(10, 0, "5000000".to_owned()), (10, 1, "250000".to_owned()), (11, 0, "4000000".to_owned())];
    assert_eq!(pushes(&database).await, revised);
    // A longer period adds its own hours only.
    assert_eq!(push(&ledger, &period("2026-03-10", "2026-03-11"), "2026-03-12").await.0, "15.25");
    assert_eq!(pushes(&database).await.len(), 5);
}

async fn a_displacement_after_the_push_is_a_negative_revision(database: Database) {
    let ledger = database.priced().await;
    let day = period("2026-03-10", "2026-03-11");
    let late = with_client_id(at_time(1, "2026-03-10T12:00:00Z", "5"), "c");
    ledger.record(&[incoming(&late)]).await.unwrap();
    assert_eq!(push(&ledger, &day, "2026-03-12").await.0, "5");
    let early = with_client_id(at_time(2, "2026-03-10T08:00:00Z", "2"), "c");
    ledger.record(&[incoming(&early)]).await.unwrap();
    assert_eq!(push(&ledger, &day, "2026-03-12").await.0, "2");
    let rows = [(8, 0, "2000000".to_owned()), (12, 0, "5000000".to_owned()), (12, 1, "-5000000".to_owned())];
    assert_eq!(pushes(&database).await, rows);
}

async fn the_same_report_at_once_makes_the_same_rows(database: Database) {
    let ledger = database.priced().await;
    let events: Vec<UsageEvent> =
        (0..24).map(|hour| at_time(hour + 1, &format!("2026-03-10T{hour:02}:00:00Z"), "1")).collect();
    ledger.record(&batch(&events)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let ledger = database.ledger().await;
        tasks.spawn(async move { push(&ledger, &period("2026-03-10", "2026-03-11"), "2026-03-12").await.0 });
    }
    assert!(tasks.join_all().await.iter().all(|units| units == "24"));
    assert_eq!(database.count("stripe_pushes").await, 24);
}

async fn the_state_is_that_of_the_rows(database: Database) {
    let ledger = database.priced().await;
    let day = period("2026-03-10", "2026-03-11");
    ledger
        .record(&batch(&[at_time(1, "2026-03-10T08:00:00Z", "1"), at_time(2, "2026-03-10T09:00:00Z", "2")]))
        .await
        .unwrap();
    assert_eq!(push(&ledger, &day, "2026-03-12").await.2, PushState::Unmapped);
    for (change, expected) in [
        ("pending' WHERE revision = 0", PushState::Pending),
        ("pushed' WHERE CAST(units_micro AS text) = '2000000'", PushState::Pending),
        ("pushed'", PushState::Pushed),
        ("failed' WHERE CAST(units_micro AS text) = '1000000'", PushState::Failed),
    ] {
        database.execute(&format!("UPDATE stripe_pushes SET state = '{change}")).await;
        let pushed = if expected == PushState::Pushed { "3" } else { "2" };
        let now = push(&ledger, &day, "2026-03-12").await;
        assert_eq!(now.2, expected, "{change}");
        assert!(now.1 == pushed || change.starts_with("pending"), "{change}: {now:?}");
    }
}
