//! What recording does to the tables.

use goldleaves_domain::Period;

use crate::events::{at, batch, event, with_client_id};
use crate::harness::{Database, on_both, priced};

on_both!(a_call_is_billed_once_and_costs_its_rate);

async fn a_call_is_billed_once_and_costs_its_rate(database: Database) {
    let ledger = priced(&database).await;
    let events = [event(1), with_client_id(event(2), "a"), with_client_id(event(3), "a"), event(4)];
    let recorded = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((recorded.inserted, recorded.duplicates, recorded.replays), (3, 1, 0));
    assert_eq!(recorded.cost_cents, 75);
    let again = ledger.record(&batch(&events)).await.unwrap();
    assert_eq!((again.inserted, again.duplicates, again.replays), (0, 0, 4));
    let period = Period::new(at("2026-03-10T09:30:00Z"), at("2026-03-10T10:00:04Z")).unwrap();
    let report = ledger.usage_report(&"acme".parse().unwrap(), &period).await.unwrap();
    assert_eq!((report.summary.total_events, report.summary.total_cost_cents.0), (2, 50));
    let month = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    let report = ledger.usage_report(&"acme".parse().unwrap(), &month).await.unwrap();
    assert_eq!((report.summary.total_events, report.summary.total_cost_cents.0), (3, 75));
    assert_eq!(report.summary.total_units.to_string(), "3");
    assert_eq!(report.summary.current_rate.unwrap().to_string(), "25");
    let push = ledger.report_usage(&"acme".parse().unwrap(), &month, at("2026-03-10T11:05:00Z")).await.unwrap();
    assert_eq!(push.reported.to_string(), "3");
}
