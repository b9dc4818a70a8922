//! Accidents that would bill an hour twice or not at all: rows of one hour of which each fared otherwise, a row that is decided after
//! its period was closed, a program whose own clock is ahead, a ledger that was built anew.

use std::time::{Duration, SystemTime};

use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use goldleaves_billing_api::{BillingApi, BillingMetrics, Docs, StripeDesk};
use goldleaves_runtime::Metrics;
use goldleaves_testkit::stripe::Faults;
use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER, METER_ID, seconds, text};
use crate::world::{Api, SECRET, on_both, token};

const HOUR: i64 = 3_600;

on_both! {
    rows_of_one_hour_are_told_apart,
    a_row_that_is_decided_after_its_period_was_closed_goes_to_a_minute_of_now,
    a_program_whose_clock_is_ahead_makes_no_row_of_an_hour_that_goes_on,
    a_ledger_that_was_built_anew_pushes_nothing_by_itself,
}

async fn members(desk: &Desk, name: &str) -> Vec<Value> {
    desk.rows().await.iter().map(|row| row[name].clone()).collect()
}

/// Stripe has the first of an hour's rows, took the second and dropped it, and never heard of the third.
async fn rows_of_one_hour_are_told_apart(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    let use_some = async |units: &str, minute: &str| {
        desk.api.used("acme", "/a", units, &format!("2026-03-15T13:{minute}:00Z")).await;
        desk.clock.forward(60);
        desk.pusher.seal_once().await.unwrap();
        desk.pusher.pass().await.unwrap();
    };
    desk.clock.set("2026-03-15T14:05:00Z");
    use_some("3", "10").await;
    desk.double.set_faults(Faults { dropped: 1.0, ..Faults::default() });
    use_some("4", "20").await;
    desk.double.set_faults(Faults { outage: Some(false), ..Faults::default() });
    use_some("5", "30").await;
    assert_eq!(members(&desk, "state").await, [json!("pushed"), json!("pushed"), json!("pending")]);
    // Until nobody sends it any more.
    desk.clock.forward(23 * HOUR);
    desk.double.set_faults(Faults::default());
    desk.pass_time(30 * HOUR, HOUR).await;
    let states = members(&desk, "state").await;
    assert_eq!(states, [json!("pushed"), json!("failed"), json!("abandoned"), json!("pushed")]);
    let failed = desk.rows().await.remove(1);
    let path = format!("pushes/{}/retry", failed["id"].as_str().unwrap());
    assert_eq!(desk.post(&path, &json!({"reason": "looked at"})).await.status, 202);
    desk.pass_time(6 * HOUR, HOUR / 2).await;
    let states = members(&desk, "state").await;
    assert_eq!(states, [json!("pushed"), json!("abandoned"), json!("abandoned"), json!("pushed"), json!("pushed")]);
    let values = members(&desk, "value").await;
    assert_eq!(values, [3, 4, 5, 5, 4].map(|units| json!(units * 1_000_000)));
    let mut minutes: Vec<String> = members(&desk, "event_timestamp").await.iter().map(Value::to_string).collect();
    minutes.sort_unstable();
    minutes.dedup();
    assert_eq!(minutes.len(), 5, "no two rows share a minute");
    assert_eq!(desk.double.total(CUSTOMER, METER), 12_000_000);
    assert_eq!(desk.double.violations(), [""; 0]);
}

/// Stripe's invoice of a closed period may be final: what is found to be missing is billed in the next cycle.
async fn a_row_that_is_decided_after_its_period_was_closed_goes_to_a_minute_of_now(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2", "2026-03-15T12:31:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    desk.api.used("acme", "/a", "3", "2026-03-15T13:31:00Z").await;
    desk.clock.set("2026-03-15T14:05:00Z");
    desk.double.set_faults(Faults { outage: Some(false), ..Faults::default() });
    desk.pusher.seal_once().await.unwrap();
    desk.pusher.pass().await.unwrap();
    assert_eq!(members(&desk, "attempts").await, [1, 1]);
    desk.clock.set("2026-03-16T14:00:00Z");
    let period = json!({"starts_at": "2026-03-15T00:00:00Z", "ends_at": "2026-03-16T00:00:00Z", "reason": "the end"});
    let closed = desk.api.put("/billing/periods/acme/1", &token("any", &["admin"]), &period).await;
    assert_eq!(closed.status, 201, "{}", closed.text);
    desk.double.set_faults(Faults::default());
    let before = desk.clock.now();
    desk.pass_time(30 * HOUR, HOUR).await;
    assert_eq!(members(&desk, "state").await, [json!("pushed"), json!("abandoned"), json!("pushed")]);
    let minute = seconds(desk.rows().await[2]["event_timestamp"].as_str().unwrap());
    assert!(minute > before - HOUR && minute < desk.clock.now(), "{} is of now", text(minute));
    assert_eq!(desk.double.total(CUSTOMER, METER), 5_000_000);
}

/// The clock of the database, which all programs share, says when an hour is over.
async fn a_program_whose_clock_is_ahead_makes_no_row_of_an_hour_that_goes_on(api: Api) {
    let mut desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2", "2026-03-15T12:31:00Z").await;
    let clock = desk.clock.clone();
    let ahead = move || SystemTime::UNIX_EPOCH + Duration::from_secs((clock.now() + 25 * HOUR).unsigned_abs());
    let verifier = TokenVerifier::new(TokenOptions::new(SECRET), crate::world::clock());
    let metrics = BillingMetrics::register(&Metrics::new());
    let program = BillingApi::new(desk.api.billing.clone(), verifier, WallClock::new(ahead), metrics);
    let pushing = StripeDesk { pusher: desk.pusher.clone(), webhook: None };
    desk.api.service = program.pushing(pushing).service(Docs::Served);
    let body = r#"{"tenant_id":"acme","start_date":"2026-03-15","end_date":"2026-03-17"}"#;
    let report = desk.api.report_usage(&token("any", &["billing:write"]), body).await;
    assert_eq!((report.status, &report.json()["reported_quantity"]), (202, &json!(0)), "{}", report.text);
    desk.settle().await;
    assert_eq!((desk.rows().await.len(), desk.double.calls("send")), (0, 0));
    desk.clock.set("2026-03-15T13:05:00Z");
    let report = desk.api.report_usage(&token("any", &["billing:write"]), body).await;
    assert_eq!(report.json()["reported_quantity"], json!(2));
}

/// A new ledger knows no mapping, and one that is set begins with the next hour: what Stripe has of the old one is not sent again.
async fn a_ledger_that_was_built_anew_pushes_nothing_by_itself(api: Api) {
    let desk = Desk::on(api).await;
    for hour in ["09", "10", "11"] {
        desk.api.used("acme", "/a", "1", &format!("2026-03-15T{hour}:31:00Z")).await;
    }
    desk.settle().await;
    assert_eq!(desk.rows().await.len(), 0, "without a meter there are no rows");
    let meter = json!({"event_name": METER, "stripe_meter_id": METER_ID, "places": 6, "reason": "anew"});
    assert_eq!(desk.put(&format!("meters/{METER}"), &meter).await.status, 201);
    desk.pass_time(26 * HOUR, HOUR).await;
    assert_eq!(members(&desk, "state").await, ["unmapped"; 3]);
    let mapping = json!({"stripe_customer_id": CUSTOMER, "reason": "anew"});
    let mapped = desk.put(&format!("mappings/acme/{METER}"), &mapping).await;
    assert_eq!((mapped.status, &mapped.json()["from_hour"]), (201, &json!("2026-03-16T15:00:00.000000Z")));
    desk.pass_time(26 * HOUR, HOUR).await;
    assert_eq!(members(&desk, "state").await, ["unmapped"; 3]);
    assert_eq!(desk.double.calls("send"), 0);
}
