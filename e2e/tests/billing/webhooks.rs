//! Webhooks of Stripe: the signature decides, and nothing is done for a call that is not Stripe's.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use goldleaves_testkit::stripe::Faults;
use hmac::{Hmac, KeyInit, Mac};
use http::Request;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::stripe_desk::{Desk, METER_ID};
use crate::world::{Answer, Api, on_both};

const REPORT: &str = "v1.billing.meter.error_report_triggered";

on_both! {
    a_webhook_starts_a_reading_once,
    a_webhook_has_rows_read_that_were_sent_just_now,
    a_program_works_a_webhook_off_once,
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn signed(secret: &str, time: i64, body: &str) -> String {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn post(desk: &Desk, header: Option<&str>, body: &str) -> Answer {
    let mut request = Request::post("/billing/stripe/webhook").header("content-type", "application/json");
    if let Some(header) = header {
        request = request.header("stripe-signature", header);
    }
    desk.api.ask(request.body(Body::from(body.to_owned())).unwrap()).await
}

/// A webhook of Stripe that is as it should be, posted.
pub(crate) async fn post_signed(desk: &Desk) -> Answer {
    let body = desk.double.core_event(REPORT, METER_ID, Value::Null);
    let header = format!("t={},v1={}", now(), signed("whsec_new", now(), &body));
    post(desk, Some(&header), &body).await
}

async fn a_webhook_starts_a_reading_once(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2.5", "2026-03-15T12:31:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    let reads = desk.double.calls("summaries");
    desk.settle().await;
    assert_eq!(desk.double.calls("summaries"), reads, "it is not due yet");
    let identifier = desk.rows().await[0]["identifier"].as_str().unwrap().to_owned();
    let data = json!({"reason": {"error_types": [{
        "code": "meter_event_no_customer_defined",
        "sample_errors": [{"error_message": "no customer", "request": {"identifier": format!("{identifier}.1")}}],
    }]}});
    let body = desk.double.core_event(REPORT, METER_ID, data);
    let header = format!("t={},v1={}", now(), signed("whsec_new", now(), &body));
    assert_eq!(post(&desk, Some(&header), &body).await.status, 200);
    assert_eq!(post(&desk, Some(&header), &body).await.status, 200, "a known one");
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM stripe_events").await, 1);
    desk.clock.forward(600);
    desk.settle().await;
    assert_eq!(desk.double.calls("event"), 1);
    assert!(desk.rows().await[0]["confirmed_at"].is_string());
    // Played back after it was worked off, it starts nothing more.
    assert_eq!(post(&desk, Some(&header), &body).await.status, 200);
    desk.settle().await;
    assert_eq!(desk.double.calls("event"), 1);
}

async fn a_webhook_has_rows_read_that_were_sent_just_now(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2.5", "2026-03-15T12:31:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    let seen = async || {
        let lane = desk.lane().await;
        ["pushed", "stripe_units", "drift_units"].map(|name| lane[name].clone())
    };
    assert_eq!(seen().await, [json!(2.5), json!(2.5), json!(0)]);
    assert_eq!(post_signed(&desk).await.status, 200);
    desk.settle().await;
    assert!(desk.rows().await[0]["confirmed_at"].is_string());
    assert_eq!(seen().await, [json!(2.5), json!(2.5), json!(0)]);
    // What Stripe takes and loses is missing as soon as it was read.
    desk.double.set_faults(Faults { dropped: 1.0, ..Faults::default() });
    for minute in ["32", "33"] {
        desk.api.used("acme", "/a", "4", &format!("2026-03-15T12:{minute}:00Z")).await;
        desk.settle().await;
    }
    assert_eq!(seen().await, [json!(10.5), json!(10.5), json!(0)]);
    let reads = desk.double.calls("summaries");
    assert_eq!(post_signed(&desk).await.status, 200);
    desk.settle().await;
    assert!(desk.double.calls("summaries") > reads);
    assert_eq!(seen().await, [json!(10.5), json!(2.5), json!(-8)]);
}

/// The sender and the reader look for webhooks at the same time.
async fn a_program_works_a_webhook_off_once(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    for count in 1..4 {
        assert_eq!(post_signed(&desk).await.status, 200);
        tokio::try_join!(desk.pusher.pass(), desk.pusher.pass()).unwrap();
        desk.settle().await;
        assert_eq!(desk.double.calls("event"), count);
    }
}

#[tokio::test]
async fn no_work_is_done_for_a_call_that_is_not_stripe_s() {
    let desk = Desk::on(Api::start().await).await;
    let body = desk.double.core_event(REPORT, METER_ID, Value::Null);
    let (time, right) = (now(), signed("whsec_old", now(), &body));
    let old = signed("whsec_old", time - 400, &body);
    let forged = signed("whsec_other", time, &body);
    let text = body.as_str();
    for (header, body) in [
        (None, text),
        (Some(format!("t={time}")), text),
        (Some(format!("t={time},v1={forged}")), text),
        (Some(format!("t={},v1={old}", time - 400)), text),
        (Some(format!("t={time},v1={right}")), "{}"),
        (Some(format!("t={},v1={right}", time + 1)), text),
    ] {
        let answer = post(&desk, header.as_deref(), body).await;
        assert_eq!(answer.refusal(), (400, "signature_invalid".to_owned()), "{header:?}");
        assert_eq!(answer.json()["detail"], "this is no webhook of Stripe");
    }
    let long = "x".repeat(256 * 1024 + 1);
    let header = format!("t={time},v1={}", signed("whsec_old", time, &long));
    let answer = post(&desk, Some(&header), &long).await;
    assert_eq!(answer.refusal(), (413, "body_too_large".to_owned()));
    assert!(answer.text.contains("the body is longer than 262144 bytes, the most that is read here"), "{answer:?}");
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM stripe_events").await, 0);
    // While a secret is rolled Stripe signs with both.
    let header = format!("t={time},v1={forged},v1={right}");
    assert_eq!(post(&desk, Some(&header), &body).await.status, 200);
    // What nothing follows from is taken and forgotten.
    let other = desk.double.core_event("v1.billing.meter.created", METER_ID, Value::Null);
    let header = format!("t={time},v1={}", signed("whsec_new", time, &other));
    assert_eq!(post(&desk, Some(&header), &other).await.status, 200);
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM stripe_events").await, 1);
}

/// The caller who has the secret is told what is wrong with a body.
#[tokio::test]
async fn a_signed_body_that_is_no_event_is_named_as_that() {
    let desk = Desk::on(Api::start().await).await;
    let signed_post = async |body: &str| {
        let header = format!("t={},v1={}", now(), signed("whsec_new", now(), body));
        post(&desk, Some(&header), body).await
    };
    let long = "x".repeat(256);
    let report =
        |id: &str, related: &str| json!({"id": id, "type": REPORT, "related_object": {"id": related}}).to_string();
    for (body, what) in [
        (String::new(), "no event of Stripe as JSON"),
        ("not JSON".to_owned(), "no event of Stripe as JSON"),
        ("[]".to_owned(), "no event of Stripe as JSON"),
        (json!({"type": REPORT}).to_string(), "missing field `id`"),
        (json!({"id": "evt_1"}).to_string(), "missing field `type`"),
        (json!({"id": 7, "type": REPORT}).to_string(), "invalid type: integer `7`, expected a string"),
        (report("", METER_ID), "id: must have 1 to 255 bytes and no NUL"),
        (report(&long, METER_ID), "id: must have 1 to 255 bytes"),
        (report("evt_1", ""), "related_object.id: must have 1 to 255 bytes"),
        (report("evt_1", "a\0b"), "related_object.id: must have 1 to 255 bytes"),
    ] {
        let answer = signed_post(&body).await;
        assert_eq!(answer.refusal(), (400, "body_invalid".to_owned()), "{body}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(what), "{body}: {}", answer.text);
    }
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM stripe_events").await, 0);
    // Of other events, snapshots too, nothing is expected.
    for body in [
        json!({"id": "evt_1", "object": "event", "type": "customer.created", "data": {"object": {"id": "cus_1"}}}),
        json!({"id": "evt_2", "type": "v2.something", "related_object": "odd"}),
        json!({"id": long, "type": "v2.something", "related_object": null}),
    ] {
        assert_eq!(signed_post(&body.to_string()).await.status, 200, "{body}");
    }
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM stripe_events").await, 0);
}
