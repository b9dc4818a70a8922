//! Sums of Stripe that say nothing, less than they should, or more than a float holds: nothing wrong is sent or decided, and
//! they are asked for again.

use goldleaves_testkit::stripe::{Faults, Garbling};
use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER};
use crate::world::{Api, on_both, token};

const HOUR: i64 = 3_600;

on_both! {
    a_sum_that_says_nothing_sends_nothing,
    a_minute_that_says_nothing_decides_nothing,
    a_lane_that_no_float_holds_is_compared_hour_by_hour,
    drift_sees_usage_that_no_row_says,
}

/// The answers of which no number can be read.
fn without_a_number() -> impl Iterator<Item = Garbling> {
    Garbling::ALL.into_iter().filter(|garbling| *garbling != Garbling::Lower)
}

async fn a_sum_that_says_nothing_sends_nothing(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "3", "2026-03-15T12:40:00Z").await;
    desk.clock.set("2026-03-15T13:06:00Z");
    desk.pusher.seal_once().await.unwrap();
    for garbling in without_a_number() {
        desk.double.garble(Some(garbling));
        let asked = desk.double.calls("summaries");
        desk.pusher.pass().await.unwrap();
        desk.pusher.pass().await.unwrap();
        assert!(desk.double.calls("summaries") > asked, "{garbling:?}: it is asked again");
        let lane = desk.lane().await;
        assert_eq!((desk.double.calls("send"), &lane["blocked"]), (0, &Value::Null), "{garbling:?}");
        assert_eq!(lane["stripe_units"], Value::Null, "{garbling:?}: nothing was learnt");
    }
    desk.double.garble(None);
    desk.settle().await;
    assert_eq!((desk.double.calls("send"), desk.double.total(CUSTOMER, METER)), (1, 3_000_000));
}

async fn a_minute_that_says_nothing_decides_nothing(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "3", "2026-03-15T12:40:00Z").await;
    desk.clock.set("2026-03-15T13:06:00Z");
    desk.settle().await;
    for garbling in without_a_number() {
        desk.double.garble(Some(garbling));
        desk.clock.forward(2 * HOUR);
        let asked = desk.double.calls("summaries");
        desk.pusher.pass().await.unwrap();
        assert!(desk.double.calls("summaries") > asked, "{garbling:?}");
        let row = desk.rows().await.remove(0);
        assert_eq!((&row["state"], &row["confirmed_at"]), (&json!("pushed"), &Value::Null), "{garbling:?}");
    }
    // A sum that is less than what was taken is a row that differs: a person has it looked at again.
    desk.double.garble(Some(Garbling::Lower));
    desk.clock.forward(2 * HOUR);
    desk.settle().await;
    let row = desk.rows().await.remove(0);
    assert_eq!(row["state"], "failed", "{row}");
    assert!(row["last_error"].as_str().unwrap().contains("reads 1500000 at Stripe, not 3000000"), "{row}");
    assert_eq!(desk.lane().await["blocked"], Value::Null);
    desk.double.garble(None);
    let path = format!("pushes/{}/retry", row["id"].as_str().unwrap());
    assert_eq!(desk.post(&path, &json!({"reason": "looked at"})).await.status, 202);
    desk.pass_time(4 * HOUR, HOUR / 2).await;
    let row = desk.rows().await.remove(0);
    assert!(row["confirmed_at"].is_string(), "{row}");
    assert_eq!((desk.double.calls("send"), desk.double.total(CUSTOMER, METER)), (1, 3_000_000));
    assert_eq!(desk.lane().await["drift_units"], 0);
}

/// A total beyond 2^53 has no exact float: each of its hours has.
async fn a_lane_that_no_float_holds_is_compared_hour_by_hour(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    for hour in 9..22 {
        desk.api.used("acme", "/a", "999999999.000001", &format!("2026-03-15T{hour:02}:31:00Z")).await;
    }
    desk.api.execute("UPDATE stripe_mappings SET from_hour = '2026-03-15T00:00:00.000000Z'").await;
    desk.clock.set("2026-03-15T22:06:00Z");
    desk.settle().await;
    let total = 13 * 999_999_999_000_001_i128;
    assert!(total > 1 << 53);
    assert_eq!(desk.double.total(CUSTOMER, METER), total);
    // Compared a day later, and by a program that has just started: what is used then is pushed as well.
    desk.clock.set("2026-03-16T23:00:00Z");
    desk.api.used("acme", "/a", "0.000001", "2026-03-16T22:10:00Z").await;
    desk.clock.set("2026-03-16T23:06:00Z");
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), total + 1);
    desk.pass_time(26 * HOUR, 2 * HOUR).await;
    let lane = desk.lane().await;
    assert_eq!((&lane["blocked"], &lane["drift_units"], &lane["unsealed"]), (&Value::Null, &json!(0), &json!(0)));
    let drift = desk.api.get("/billing/stripe/drift", &token("any", &["billing:read"])).await.text;
    assert!(drift.contains(r#""stripe_units":12999999987.000014,"#), "{drift}");
    assert!(desk.rows().await.iter().all(|row| row["confirmed_at"].is_string()));
    // One unit more than was sent is seen in all that.
    desk.double.push_foreign(CUSTOMER, METER, desk.clock.now() - 2 * HOUR, 1);
    desk.pass_time(26 * HOUR, 2 * HOUR).await;
    assert_eq!(desk.lane().await["blocked"], "stripe_has_more");
}

/// The ledger's units are read from the ledger itself, so that a row that was never made is seen.
async fn drift_sees_usage_that_no_row_says(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    for hour in [12, 13] {
        desk.api.used("acme", "/a", "3", &format!("2026-03-15T{hour}:40:00Z")).await;
    }
    desk.clock.set("2026-03-15T14:06:00Z");
    desk.settle().await;
    // Of the hour that goes on nothing is settled yet.
    desk.api.used("acme", "/a", "9", "2026-03-15T14:01:00Z").await;
    let seen = async || {
        let lane = desk.lane().await;
        ["ledger_units", "unsealed", "pushed", "stripe_units", "drift_units"].map(|name| lane[name].clone())
    };
    assert_eq!(seen().await, [json!(6), json!(0), json!(6), json!(6), json!(0)]);
    desk.api.execute("DELETE FROM stripe_pushes WHERE hour < '2026-03-15T13:00:00.000000Z'").await;
    desk.api.execute("UPDATE usage_late_hours SET sealed = changes").await;
    assert_eq!(seen().await[..3], [json!(6), json!(3), json!(3)]);
    // Before the mapping nothing goes there.
    desk.api.used("acme", "/a", "5", "2026-03-15T09:01:00Z").await;
    assert_eq!(seen().await[0], json!(6));
}

#[tokio::test]
async fn nothing_is_taken_over_of_a_customer_that_nobody_goes_to() {
    let desk = Desk::on(Api::start().await).await;
    desk.map().await;
    desk.double.push_foreign("cus_other", METER, desk.clock.now() - HOUR, 7);
    let adopt = async |customer: &str, name: &str| {
        let body = json!({"stripe_customer_id": customer, "event_name": name, "reason": "restored"});
        desk.post("lanes/adopt", &body).await
    };
    let answer = adopt("cus_other", METER).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    assert!(answer.text.contains("goes to cus_other: map one first"), "{}", answer.text);
    assert_eq!(adopt(CUSTOMER, "other_name").await.status, 404);
    assert_eq!(desk.double.calls("summaries"), 0, "Stripe is not asked");
    assert_eq!(adopt(CUSTOMER, METER).await.status, 200);
}

/// The answer to who takes a lane over says what keeps that from being done, and the lane stays as it is.
#[tokio::test]
async fn an_adoption_that_can_t_be_done_says_why() {
    let body = json!({"stripe_customer_id": CUSTOMER, "event_name": METER, "reason": "restored"});
    // A program that pushes nothing has no key to read with.
    let api = Api::start().await;
    let admin = token("any", &["admin"]);
    let answer = api.call("POST", "/billing/stripe/lanes/adopt", &admin, body.to_string()).await;
    assert_eq!(answer.refusal(), (503, "stripe_unavailable".to_owned()), "{}", answer.text);
    let detail = "STRIPE_API_KEY is not set: nothing is pushed, and nothing is read of Stripe";
    assert_eq!(answer.json()["detail"], detail);
    let desk = Desk::on(api).await;
    desk.map().await;
    let generation = "SELECT COUNT(DISTINCT generation) FROM stripe_state WHERE generation IS NOT NULL";
    let before = desk.api.number(generation).await;
    let refused = async |wanted: &str| {
        let answer = desk.post("lanes/adopt", &body).await;
        assert_eq!(answer.refusal(), (503, "stripe_unavailable".to_owned()), "{}", answer.text);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(wanted), "{detail:?} lacks {wanted:?}");
    };
    desk.double.push_foreign(CUSTOMER, METER, desk.clock.now() - HOUR, 7);
    desk.double.garble(Some(Garbling::Fraction));
    refused("a sum at Stripe is not a whole number below 2^53").await;
    desk.double.garble(Some(Garbling::Html));
    refused("Stripe does not answer, or refuses; try again later").await;
    desk.double.garble(None);
    desk.double.set_faults(Faults { outage: Some(false), ..Faults::default() });
    refused("Stripe does not answer, or refuses; try again later").await;
    desk.double.set_faults(Faults::default());
    desk.double.revoke_key("rk_test_double");
    refused("Stripe answered 401: STRIPE_API_KEY is not valid, or may not read sums").await;
    desk.double.add_key("rk_test_double", false);
    assert_eq!((desk.rows().await.len(), desk.api.number(generation).await), (0, before), "nothing was taken over");
    let answer = desk.post("lanes/adopt", &body).await;
    assert_eq!((answer.status, &answer.json()["adopted"]), (200, &json!(1)), "{}", answer.text);
}

/// Faults in the middle of a day that a ledger went back in leave nothing that is not as it should be.
#[tokio::test]
async fn garbled_sums_among_others_leave_both_sides_equal() {
    let desk = Desk::on(Api::start().await).await;
    desk.map().await;
    desk.double.set_faults(Faults { share: 0.2, garbled: 0.5, lag_max: HOUR, ..Faults::default() });
    for hour in 12..23 {
        desk.api.used("acme", "/a", "3", &format!("2026-03-15T{hour}:40:00Z")).await;
        desk.clock.set(&format!("2026-03-15T{hour}:59:00Z"));
        desk.clock.forward(500);
        desk.pusher.seal_once().await.unwrap();
        desk.pusher.pass().await.unwrap();
    }
    desk.double.set_faults(Faults::default());
    for _ in 0..3 {
        desk.pass_time(30 * HOUR, HOUR).await;
        for row in desk.rows().await.iter().filter(|row| row["state"] == "failed") {
            let path = format!("pushes/{}/retry", row["id"].as_str().unwrap());
            assert_eq!(desk.post(&path, &json!({"reason": "looked at"})).await.status, 202);
        }
    }
    assert_eq!(desk.double.total(CUSTOMER, METER), 33_000_000);
    let lane = desk.lane().await;
    assert_eq!((&lane["drift_units"], &lane["blocked"]), (&json!(0), &Value::Null));
    assert_eq!(desk.double.violations(), [""; 0]);
}
