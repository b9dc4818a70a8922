//! Attacks and accidents against the rules of bills: prices that change within a month, usage that is committed after
//! its hour was sealed, powerful roles, and lists that are too long to be made.

use std::time::Duration;

use goldleaves_billing::AnswerLimits;
use goldleaves_ledger::StoreOptions;
use goldleaves_testkit::child::wait_for;
use sea_orm::{ConnectionTrait as _, Database, TransactionTrait as _};
use serde_json::json;
use uuid::Uuid;

use crate::stripe_desk::{CUSTOMER, Desk, METER};
use crate::world::{Api, Event, Kind, on_both, token};

on_both! {
    a_price_that_changes_within_a_month_begins_a_new_ladder_and_the_preview_says_so,
    who_may_write_bills_corrects_every_tenant_by_name_and_sets_no_price,
    more_lines_than_an_answer_holds_are_refused,
}

const LADDER: &str =
    r#"{"model":"graduated","tiers":[{"up_to":"5","cents_per_unit":"0"},{"up_to":null,"cents_per_unit":"10"}]}"#;
const PATIENCE: Duration = Duration::from_secs(60);

async fn a_price_that_changes_within_a_month_begins_a_new_ladder_and_the_preview_says_so(api: Api) {
    for (version, from) in [(2, "2026-03-01"), (3, "2026-03-16")] {
        api.execute(&format!(
            "INSERT INTO rate_cards (version, card, rate_micro_cents, effective_from, model, pricing, origin) \
             VALUES ({version}, 'default', 10000000, '{from}T00:00:00.000000Z', 'graduated', '{LADDER}', 'api')"
        ))
        .await;
    }
    for time in ["2026-03-05T10:00:00Z", "2026-03-20T10:00:00Z"] {
        api.used("acme", "/a", "8", time).await;
    }
    let reader = token("ops", &["billing:read"]);
    let report = api.get("/billing/usage-report/acme?month=2026-03&group_by=rate", &reader).await.json();
    assert_eq!(report["total_cost_cents"], 60, "five free units of each card: {report}");
    assert_eq!(report["groups"].as_array().unwrap().len(), 2);
    // One ladder for the whole month: five free units.
    let pricing: serde_json::Value = serde_json::from_str(LADDER).unwrap();
    let body = json!({"pricing": pricing, "start_date": "2026-03-01", "end_date": "2026-04-01"}).to_string();
    let preview = api.call("POST", "/billing/rate-cards/preview", &reader, body).await.json();
    let tenant = &preview["tenants"][0];
    assert_eq!((&tenant["cost_cents_now"], &tenant["cost_cents_with"]), (&json!(60), &json!(110)), "{preview}");
}

async fn who_may_write_bills_corrects_every_tenant_by_name_and_sets_no_price(api: Api) {
    let event = api.used("other", "/a", "1", "2026-03-05T10:00:00Z").await;
    let void = json!({"kind": "void", "tenant_id": "other", "event_id": event, "reason": "a test call"});
    let path = format!("/billing/corrections/{}", Uuid::now_v7());
    assert_eq!(api.put(&path, &token("acme", &[]), &void).await.refusal(), (403, "role_missing".to_owned()));
    assert_eq!(api.put(&path, &token("acme", &["billing:read"]), &void).await.status, 403);
    let writer = token("acme", &["billing:write"]);
    assert_eq!(api.put(&path, &writer, &void).await.status, 201);
    let audit = api.get("/billing/audit?start_date=2026-01-01&end_date=2027-01-01", &token("x", &["admin"])).await;
    let row = audit.json()["items"][0].clone();
    assert_eq!((&row["actor"], &row["tenant_id"]), (&json!("ada"), &json!("other")), "{row}");
    assert!(row["roles"].as_str().unwrap().contains("billing:write"), "{row}");
    let pricing = json!({"model": "per_unit", "cents_per_unit": "0"});
    let card =
        json!({"tenant_id": "acme", "pricing": pricing, "effective_from": "2100-01-01", "reason": "free for us"});
    let mapping = json!({"stripe_customer_id": null, "reason": "nobody pays"});
    let meter = json!({"event_name": "x", "stripe_meter_id": "y", "places": 6, "reason": "elsewhere"});
    for (path, body) in [
        (format!("/billing/rate-cards/{}", Uuid::now_v7()), card),
        (format!("/billing/stripe/mappings/acme/{METER}"), mapping),
        (format!("/billing/stripe/meters/{METER}"), meter),
        ("/billing/tenants/acme".to_owned(), json!({"time_zone": "UTC", "reason": "r"})),
    ] {
        assert_eq!(api.put(&path, &writer, &body).await.refusal(), (403, "role_missing".to_owned()), "{path}");
    }
    assert_eq!(api.number("SELECT COUNT(*) FROM billing_audit").await, 1, "nothing else was written");
}

/// A worker's transaction that began in time and is committed when its hour was sealed: the hour is looked at again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_that_is_committed_after_its_hour_was_sealed_is_pushed_too() {
    let desk = Desk::on(Api::on(Kind::Postgres).await).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2", "2026-03-15T12:31:00Z").await;
    let raw = Database::connect(desk.api.url()).await.unwrap();
    let holding = raw.begin().await.unwrap();
    // The last table that a worker writes.
    holding.execute_unprepared("LOCK TABLE usage_receipts IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let (late, ledger) = (Event::at("acme", "2026-03-15T12:59:59Z").incoming(), desk.api.ledger.clone());
    let recording = tokio::spawn(async move { ledger.record(&[late]).await });
    let waiting =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let is_held = async || Ok((desk.api.number(waiting).await > 0).then_some(()));
    wait_for("the worker to wait", PATIENCE, is_held).await.unwrap();
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 2_000_000, "sealed without what is not committed");
    holding.rollback().await.unwrap();
    assert_eq!(recording.await.unwrap().unwrap().inserted, 1);
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 3_000_000);
    assert_eq!(desk.rows().await.len(), 2);
}

/// A list that the database does not finish in ten seconds is given up, and said to be too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_takes_too_long_is_given_up() {
    let api = Api::on(Kind::Postgres).await;
    api.used("acme", "/a", "2", "2026-03-15T12:31:00Z").await;
    // Nothing else gives a statement up.
    let api = api.anew_with(StoreOptions { work_timeout: 100 * PATIENCE, ..StoreOptions::default() }).await;
    let raw = Database::connect(api.url()).await.unwrap();
    let holding = raw.begin().await.unwrap();
    holding.execute_unprepared("LOCK TABLE usage_rollups IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reader = token("ops", &["billing:read"]);
    for path in ["/billing/tenants?month=2026-03", "/billing/tenants?month=2026-03&format=csv"] {
        let answer = tokio::time::timeout(PATIENCE, api.get(path, &reader)).await.expect("it is given up");
        assert_eq!(answer.refusal(), (503, "too_slow".to_owned()), "{path}");
    }
    holding.rollback().await.unwrap();
    assert_eq!(api.get("/billing/tenants?month=2026-03", &reader).await.json()["items"][0]["tenant_id"], "acme");
}

/// Upstreams say what an action is called: one may call each call another name.
async fn more_lines_than_an_answer_holds_are_refused(api: Api) {
    assert_eq!(AnswerLimits::default().lines, 1_000_000);
    let api = api.limited(AnswerLimits { lines: 100, ..AnswerLimits::default() });
    let own = token("acme", &[]);
    let calls: Vec<Event> = (1..=101)
        .map(|number| Event { action: format!("call-{number}"), ..Event::at("acme", "2026-03-10T10:10:00Z") })
        .collect();
    assert_eq!(api.record(&calls[..100]).await.inserted, 100);
    let grouped = "usage-report/acme?month=2026-03&group_by=action";
    for path in ["invoice/acme", "invoice/acme/1", "invoice/acme?format=csv", grouped] {
        assert_eq!(api.get(&format!("/billing/{path}"), &own).await.status, 200, "{path}");
    }
    assert_eq!(api.record(&calls[100..]).await.inserted, 1);
    for path in ["invoice/acme", "invoice/acme/1", "invoice/acme?format=csv", grouped] {
        let answer = api.get(&format!("/billing/{path}"), &own).await;
        assert_eq!(answer.refusal(), (400, "too_many_rows".to_owned()), "{path}");
        assert!(answer.text.contains("more than 100 lines") && answer.text.contains("shorter range"), "{answer:?}");
    }
    // A sum is one whatever it is made of, and a period is closed all the same.
    for path in ["usage-summary/acme?month=2026-03", "usage-report/acme?month=2026-03"] {
        assert_eq!(api.get(&format!("/billing/{path}"), &own).await.json()["total_events"], 101, "{path}");
    }
    let closed =
        api.put("/billing/periods/acme/1", &token("ops", &["billing:write"]), &json!({"reason": "over"})).await;
    assert_eq!((closed.status, &closed.json()["total_cost_cents"]), (201, &json!(101 * 25)), "{closed:?}");
    let frozen = api.get("/billing/invoice/acme/1", &own).await.json();
    assert_eq!(frozen["lines"].as_array().unwrap().len(), 101);
}
