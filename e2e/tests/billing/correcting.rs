//! Corrections: what they come to, what is refused, and that they are made once.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, Event, on_both, token};

on_both!(
    a_void_takes_an_event_off_the_bill_once,
    an_adjustment_leaves_nothing_below_nothing,
    an_amount_changes_the_bill_alone,
    a_void_of_a_repeat_is_of_what_it_repeats,
    each_change_is_in_the_audit,
    the_same_put_at_once_is_made_once,
);

async fn correct(api: &Api, id: Uuid, body: &Value) -> (u16, Value) {
    let answer = api.put(&format!("/billing/corrections/{id}"), &token("ops", &["billing:write"]), body).await;
    (answer.status, answer.json())
}

fn void(event: Uuid) -> Value {
    json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "a test call"})
}

fn adjust(event: Uuid, units: &str) -> Value {
    json!({"kind": "adjust", "tenant_id": "acme", "event_id": event, "units": units, "reason": "measured anew"})
}

/// Events, units and cents of March.
async fn totals(api: &Api) -> (i64, f64, i64) {
    let summary = api.get("/billing/usage-summary/acme?month=2026-03", &token("acme", &[])).await.json();
    let number = |name: &str| summary[name].as_i64().unwrap();
    (number("total_events"), summary["total_units"].as_f64().unwrap(), number("total_cost_cents"))
}

async fn a_void_takes_an_event_off_the_bill_once(api: Api) {
    let event = api.used("acme", "/a", "3", "2026-03-03T10:00:00Z").await;
    api.used("acme", "/a", "1", "2026-03-03T10:30:00Z").await;
    let id = Uuid::now_v7();
    let (status, made) = correct(&api, id, &void(event)).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!((&made["events"], &made["units"], &made["cents"]), (&json!(-1), &json!(-3), &json!(0)));
    assert_eq!((&made["route"], &made["ts"]), (&json!("/a"), &json!("2026-03-03T10:00:00.000000Z")));
    assert_eq!(correct(&api, id, &void(event)).await, (200, made.clone()), "the same call again");
    let counted = api.metrics.text();
    for line in [r#"goldleaves_corrections_total{kind="void"} 1"#, "goldleaves_late_changes_total 1"] {
        assert!(counted.contains(line), "{line}: {counted}");
    }
    let (status, problem) = correct(&api, id, &adjust(event, "-1")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("already_exists")), "another content");
    let (status, problem) = correct(&api, Uuid::now_v7(), &void(event)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("already_void")));
    let (status, problem) = correct(&api, Uuid::now_v7(), &adjust(event, "1")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("already_void")));
    assert_eq!(totals(&api).await, (1, 1.0, 25));
    let (status, problem) = correct(&api, Uuid::now_v7(), &void(Uuid::now_v7())).await;
    assert_eq!((status, &problem["code"]), (404, &json!("no_such_event")));
    let mut foreign = void(event);
    foreign["tenant_id"] = json!("other");
    let (status, problem) = correct(&api, Uuid::now_v7(), &foreign).await;
    assert_eq!((status, &problem["code"]), (404, &json!("no_such_event")), "another tenant's event is not told apart");
    let aborted = Event { outcome: "upstream_aborted", ..Event::at("acme", "2026-03-03T11:00:00Z") };
    api.record(std::slice::from_ref(&aborted)).await;
    let (status, problem) = correct(&api, Uuid::now_v7(), &void(aborted.id)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("not_billed")));
    let list = api.get("/billing/corrections/acme?month=2026-03", &token("acme", &[])).await.json();
    assert_eq!(list, json!({"items": [made], "next_cursor": null}));
    let shown = api.get(&format!("/billing/usage-events/acme/{event}"), &token("acme", &[])).await.json();
    assert_eq!(shown["matches"][0]["state"], "void");
    assert_eq!(shown["matches"][0]["corrections"][0]["id"], id.to_string());
    let voids = api.get("/billing/usage-events/acme?month=2026-03&state=void", &token("acme", &[])).await.json();
    assert_eq!(voids["items"][0]["event_id"], event.to_string());
    let late = api.get("/billing/late/acme?month=2026-03", &token("acme", &[])).await.json();
    assert_eq!(late["items"][0]["hour"], "2026-03-03T10:00:00.000000Z");
}

async fn an_adjustment_leaves_nothing_below_nothing(api: Api) {
    let event = api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    assert_eq!(correct(&api, Uuid::now_v7(), &adjust(event, "-0.5")).await.0, 201);
    assert_eq!(totals(&api).await, (1, 1.5, 38));
    let (status, problem) = correct(&api, Uuid::now_v7(), &adjust(event, "-1.500001")).await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("units"), "{problem}");
    assert_eq!(correct(&api, Uuid::now_v7(), &adjust(event, "-1.5")).await.0, 201);
    assert_eq!(totals(&api).await, (1, 0.0, 0));
    // A void takes what is left.
    let (_, made) = correct(&api, Uuid::now_v7(), &void(event)).await;
    assert_eq!((&made["events"], &made["units"]), (&json!(-1), &json!(0)));
    assert_eq!(totals(&api).await, (0, 0.0, 0));
}

async fn an_amount_changes_the_bill_alone(api: Api) {
    api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let body =
        json!({"kind": "amount", "tenant_id": "acme", "cents": -30, "ts": "2026-03-04T00:00:00Z", "reason": "sorry"});
    let (status, made) = correct(&api, Uuid::now_v7(), &body).await;
    assert_eq!((status, &made["cents"], &made["route"]), (201, &json!(-30), &Value::Null));
    let report = api.get("/billing/usage-report/acme?month=2026-03", &token("acme", &[])).await.json();
    assert_eq!((&report["adjustments_cents"], &report["total_cost_cents"]), (&json!(-30), &json!(20)));
    assert_eq!(report["route_breakdown"][0]["cost_cents"], 50, "breakdown and adjustments are the total");
}

async fn a_void_of_a_repeat_is_of_what_it_repeats(api: Api) {
    let call =
        |time: &str| Event { request: Some("order-7".to_owned()), units: "3".to_owned(), ..Event::at("acme", time) };
    let (first, repeat) = (call("2026-03-03T10:00:00Z"), call("2026-03-03T10:05:00Z"));
    api.record(&[first.clone(), repeat.clone()]).await;
    assert_eq!(totals(&api).await, (1, 3.0, 75));
    let (status, made) = correct(&api, Uuid::now_v7(), &void(repeat.id)).await;
    assert_eq!((status, &made["ts"], &made["events"]), (201, &json!("2026-03-03T10:00:00.000000Z"), &json!(-1)));
    assert_eq!(totals(&api).await, (0, 0.0, 0));
    let (status, problem) = correct(&api, Uuid::now_v7(), &void(first.id)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("already_void")));
}

async fn each_change_is_in_the_audit(api: Api) {
    let event = api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    correct(&api, Uuid::now_v7(), &void(event)).await;
    correct(&api, Uuid::now_v7(), &void(event)).await;
    let admin = token("ops", &["admin"]);
    let today = "start_date=2026-01-01&end_date=2027-01-01";
    let audit = api.get(&format!("/billing/audit?{today}&tenant_id=acme"), &admin).await.json();
    let items = audit["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "what is refused changes nothing: {audit}");
    assert_eq!((&items[0]["actor"], &items[0]["roles"]), (&json!("ada"), &json!("billing:write")));
    assert!(items[0]["body"].as_str().unwrap().contains(&event.to_string()));
    let writer = token("ops", &["billing:write"]);
    assert_eq!(api.get("/billing/audit", &writer).await.refusal(), (403, "role_missing".to_owned()));
}

async fn the_same_put_at_once_is_made_once(api: Api) {
    let event = api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let (id, body) = (Uuid::now_v7(), void(event));
    let answers = futures_util::future::join_all((0..6).map(|_| correct(&api, id, &body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.0 == 201).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.0 == 200).count(), 5, "{answers:?}");
    assert_eq!(totals(&api).await, (0, 0.0, 0));
}
