//! Rows that are not simply sent: meters that do not fit, strangers, other keys, customers that are gone, a ledger that
//! went back.

use goldleaves_billing::stripe::Books;
use goldleaves_billing_api::push::{Pacing, Pusher, StripeMetrics};
use goldleaves_runtime::{Metrics, Secret};
use goldleaves_stripe::Stripe;
use goldleaves_testkit::stripe::Faults;
use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER, METER_ID, another_pusher};
use crate::world::{Api, on_both};

const HOUR: i64 = 3_600;

on_both! {
    a_row_that_only_lags_is_not_given_up,
    an_answered_error_is_tried_again_under_another_key,
    a_ledger_that_went_back_is_blocked_and_adopted,
    what_was_sent_before_a_restore_comes_again_under_another_name,
}

async fn blocked(desk: &Desk) -> Value {
    desk.lane().await["blocked"].clone()
}

async fn used_each_hour(desk: &Desk, hours: std::ops::Range<u32>) {
    for hour in hours {
        desk.api.used("acme", "/a", "3", &format!("2026-03-15T{hour}:40:00Z")).await;
        desk.clock.set(&format!("2026-03-15T{}:06:00Z", hour + 1));
        desk.settle().await;
    }
}

#[tokio::test]
async fn a_meter_that_does_not_fit_is_refused_with_the_reason() {
    let desk = Desk::on(Api::start().await).await;
    for (pointer, value, reason) in [
        ("/default_aggregation/formula", json!("last"), "it aggregates by last, not by sum"),
        ("/default_aggregation/formula", json!("count"), "it aggregates by count"),
        ("/event_time_window", json!("hour"), "it has an event_time_window"),
        ("/status", json!("inactive"), "its status is inactive"),
        ("/event_name", json!("other"), "its event_name is other"),
        ("/customer_mapping/event_payload_key", json!("customer"), "its customer key"),
        ("/value_settings/event_payload_key", json!("amount"), "its value key"),
    ] {
        desk.double.add_meter(METER_ID, METER);
        desk.double.set_meter(METER_ID, pointer, value);
        let meter = json!({"event_name": METER, "stripe_meter_id": METER_ID, "places": 6, "reason": "set-up"});
        let answer = desk.put(&format!("meters/{METER}"), &meter).await;
        assert_eq!(answer.refusal(), (422, "meter_unfit".to_owned()));
        assert!(answer.text.contains(reason), "{}", answer.text);
    }
    let missing = json!({"event_name": METER, "stripe_meter_id": "mtr_none", "places": 6, "reason": "set-up"});
    assert_eq!(desk.put(&format!("meters/{METER}"), &missing).await.status, 422);
    // One that is changed later blocks what goes to it, and no more once it is as it was.
    desk.double.add_meter(METER_ID, METER);
    desk.map().await;
    desk.double.set_meter(METER_ID, "/default_aggregation/formula", json!("last"));
    desk.clock.forward(26 * HOUR);
    desk.api.used("acme", "/a", "3", "2026-03-15T12:40:00Z").await;
    desk.settle().await;
    assert_eq!((blocked(&desk).await, desk.double.calls("send")), (json!("meter_unfit"), 0));
    desk.double.set_meter(METER_ID, "/default_aggregation/formula", json!("sum"));
    desk.clock.forward(25 * HOUR);
    desk.settle().await;
    assert_eq!((blocked(&desk).await, desk.double.total(CUSTOMER, METER)), (Value::Null, 3_000_000));
}

#[tokio::test]
async fn somebody_else_s_usage_blocks_the_lane() {
    let desk = Desk::on(Api::start().await).await;
    desk.map().await;
    desk.double.push_foreign(CUSTOMER, METER, desk.clock.now() - HOUR, 7);
    used_each_hour(&desk, 12..13).await;
    assert_eq!((blocked(&desk).await, desk.double.calls("send")), (json!("stripe_has_more"), 0));
    desk.pass_time(3 * HOUR, HOUR).await;
    assert_eq!(desk.double.calls("send"), 0);
    let drift = desk.lane().await["drift_units"].clone();
    assert_eq!(drift, json!(0.000007));
}

#[tokio::test]
async fn a_key_of_the_other_mode_or_none_at_all_sends_nothing() {
    let desk = Desk::on(Api::start().await).await;
    desk.map().await;
    used_each_hour(&desk, 12..13).await;
    desk.double.add_key("rk_live_double", true);
    let live = another_pusher(&desk.api, &desk.double, &desk.clock, "rk_live_double");
    desk.api.used("acme", "/a", "3", "2026-03-15T13:10:00Z").await;
    desk.clock.set("2026-03-15T14:06:00Z");
    live.seal_once().await.unwrap();
    live.pass().await.unwrap();
    assert_eq!((blocked(&desk).await, desk.double.calls("send")), (json!("livemode"), 1));
    // Nor when it is looked at again.
    desk.clock.forward(1_000);
    live.pass().await.unwrap();
    assert_eq!((blocked(&desk).await, desk.double.calls("send")), (json!("livemode"), 1));
    // The right key, after a quarter of an hour.
    desk.clock.forward(1_000);
    let test = another_pusher(&desk.api, &desk.double, &desk.clock, "rk_test_double");
    test.pass().await.unwrap();
    assert_eq!((blocked(&desk).await, desk.double.calls("send")), (Value::Null, 2));
    // A key that is revoked.
    desk.double.revoke_key("rk_test_double");
    desk.api.used("acme", "/a", "3", "2026-03-15T14:10:00Z").await;
    desk.clock.set("2026-03-15T15:06:00Z");
    desk.settle().await;
    assert_eq!(blocked(&desk).await, "key_refused");
    desk.double.add_key("rk_test_double", false);
    desk.clock.forward(1_000);
    desk.settle().await;
    assert_eq!((blocked(&desk).await, desk.double.total(CUSTOMER, METER)), (Value::Null, 9_000_000));
}

#[tokio::test]
async fn a_key_that_does_not_tell_its_mode_is_judged_by_the_meter() {
    let desk = Desk::on(Api::start().await).await;
    desk.map().await;
    used_each_hour(&desk, 12..13).await;
    desk.double.add_key("some_key", true);
    desk.double.set_meter(METER_ID, "/livemode", json!(true));
    let other = another_pusher(&desk.api, &desk.double, &desk.clock, "some_key");
    desk.api.used("acme", "/a", "3", "2026-03-15T13:10:00Z").await;
    desk.clock.set("2026-03-15T14:06:00Z");
    for _ in 0..2 {
        other.seal_once().await.unwrap();
        other.pass().await.unwrap();
        assert_eq!((blocked(&desk).await, desk.double.calls("send")), (json!("livemode"), 1));
        desk.clock.forward(1_000);
    }
}

/// Stripe takes the last attempt of a row within its 23 hours, does not say so, and shows it ten hours later: nothing but a
/// younger row that is there could say before that it is not.
async fn a_row_that_only_lags_is_not_given_up(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    used_each_hour(&desk, 12..13).await;
    desk.pass_time(HOUR / 2, 600).await;
    desk.api.used("acme", "/a", "3", "2026-03-15T13:40:00Z").await;
    desk.clock.set("2026-03-15T14:06:00Z");
    desk.double.set_faults(Faults { outage: Some(false), ..Faults::default() });
    desk.settle().await;
    desk.clock.set("2026-03-16T12:50:00Z");
    desk.double.set_faults(Faults { outage: Some(true), lag_min: 10 * HOUR, lag_max: 10 * HOUR, ..Faults::default() });
    desk.settle().await;
    assert_eq!((desk.double.calls("send"), desk.double.total(CUSTOMER, METER)), (3, 6_000_000));
    desk.double.set_faults(Faults::default());
    desk.clock.set("2026-03-16T13:10:00Z");
    desk.pass_time(8 * HOUR, 1_200).await;
    let states = async || desk.rows().await.iter().map(|row| row["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states().await, [json!("pushed"), json!("pending")]);
    desk.pass_time(4 * HOUR, 1_200).await;
    assert_eq!(states().await, [json!("pushed"), json!("pushed")]);
    assert_eq!((desk.double.calls("send"), desk.double.total(CUSTOMER, METER)), (3, 6_000_000));
    assert_eq!(desk.double.violations(), [""; 0]);
}

/// An error that Stripe answered is replayed under its key for a day: the row goes out under another key.
async fn an_answered_error_is_tried_again_under_another_key(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    used_each_hour(&desk, 12..13).await;
    desk.api.used("acme", "/a", "3", "2026-03-15T13:40:00Z").await;
    desk.clock.set("2026-03-15T14:06:00Z");
    desk.double.fail_next_sends(2);
    desk.settle().await;
    desk.pass_time(HOUR, 600).await;
    let row = desk.rows().await.pop().unwrap();
    assert_eq!((&row["state"], &row["attempts"]), (&json!("pushed"), &json!(3)), "{row}");
    assert_eq!(desk.double.total(CUSTOMER, METER), 6_000_000);
}

#[tokio::test]
async fn a_customer_that_is_gone_blocks_its_lane_alone() {
    let desk = Desk::on(Api::start().await).await;
    desk.map().await;
    used_each_hour(&desk, 12..13).await;
    desk.double.delete_customer(CUSTOMER);
    used_each_hour(&desk, 13..14).await;
    assert_eq!(blocked(&desk).await, "no_such_customer");
    let row = desk.rows().await.pop().unwrap();
    assert_eq!(row["state"], "pending");
    assert!(row["last_error"].as_str().unwrap().contains("No such customer"), "{row}");
    desk.double.add_customer(CUSTOMER);
    desk.clock.forward(1_000);
    desk.settle().await;
    assert_eq!((blocked(&desk).await, desk.double.total(CUSTOMER, METER)), (Value::Null, 6_000_000));
}

async fn a_ledger_that_went_back_is_blocked_and_adopted(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    used_each_hour(&desk, 12..15).await;
    for table in ["stripe_pushes", "stripe_lanes", "stripe_state"] {
        desk.api.execute(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    used_each_hour(&desk, 15..19).await;
    desk.api.used("acme", "/a", "4", "2026-03-15T17:41:00Z").await;
    desk.settle().await;
    let total = desk.double.total(CUSTOMER, METER);
    assert_eq!(total, 25_000_000);
    for table in ["stripe_pushes", "stripe_lanes", "stripe_state"] {
        desk.api.execute(&format!("DELETE FROM {table}")).await;
        desk.api.execute(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
    }
    desk.clock.forward(60);
    desk.settle().await;
    assert_eq!(blocked(&desk).await, "stripe_has_more", "the program that goes on notices it");
    let sent = desk.double.calls("send");
    let again = another_pusher(&desk.api, &desk.double, &desk.clock, "rk_test_double");
    desk.clock.forward(25 * HOUR);
    again.seal_once().await.unwrap();
    again.pass().await.unwrap();
    assert_eq!((blocked(&desk).await, desk.double.calls("send")), (json!("stripe_has_more"), sent));
    let body = json!({"stripe_customer_id": CUSTOMER, "event_name": METER, "reason": "restored"});
    let answer = desk.post("lanes/adopt", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["left"], 0);
    desk.pass_time(3 * HOUR, HOUR).await;
    assert_eq!((desk.double.total(CUSTOMER, METER), desk.double.calls("send")), (total, sent));
    let lane = desk.lane().await;
    assert_eq!((&lane["blocked"], &lane["drift_units"], &lane["ledger_units"]), (&Value::Null, &json!(0), &json!(25)));
    // What is used from now on is pushed as ever.
    desk.clock.set("2026-03-17T13:00:00Z");
    desk.api.used("acme", "/a", "2", "2026-03-17T12:40:00Z").await;
    desk.clock.forward(HOUR);
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), total + 2_000_000);
    assert_eq!(desk.double.violations(), [""; 0]);
}

/// Rows of so many lanes, each of a tenant of its own.
async fn lanes(desk: &Desk, count: usize) {
    let meter = json!({"event_name": METER, "stripe_meter_id": METER_ID, "places": 6, "reason": "set-up"});
    assert_eq!(desk.put(&format!("meters/{METER}"), &meter).await.status, 201);
    for number in 0..count {
        desk.double.add_customer(&format!("cus_{number}"));
        let mapping = json!({
            "stripe_customer_id": format!("cus_{number}"), "from_hour": "2026-03-15T12:00:00Z", "reason": "set-up",
        });
        assert_eq!(desk.put(&format!("mappings/tenant-{number}/{METER}"), &mapping).await.status, 201);
        desk.api.used(&format!("tenant-{number}"), "/a", "1", "2026-03-15T12:40:00Z").await;
    }
    desk.clock.set("2026-03-15T13:06:00Z");
    desk.pusher.seal_once().await.unwrap();
}

#[tokio::test]
async fn one_call_per_minute_probes_a_stripe_that_can_t_be_reached() {
    let desk = Desk::on(Api::start().await).await;
    lanes(&desk, 4).await;
    desk.pusher.pass().await.unwrap();
    let sent = desk.double.calls("send");
    assert_eq!(sent, 4, "all is well at first, and meter and lanes were looked at");
    for number in 0..4 {
        desk.api.used(&format!("tenant-{number}"), "/a", "1", "2026-03-15T13:40:00Z").await;
    }
    desk.clock.set("2026-03-15T14:06:00Z");
    desk.pusher.seal_once().await.unwrap();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stripe =
        Stripe::new(format!("http://{gone}").parse().unwrap(), Secret::new("rk_test_double".to_owned())).unwrap();
    let books = Books::new(desk.api.billing.clone(), desk.clock.books());
    let metrics = Metrics::new();
    let cut_off = Pusher::new(books, stripe, StripeMetrics::register(&metrics), Pacing::UNLIMITED);
    let calls = || {
        let text = metrics.text();
        let counted =
            |line: &str| line.strip_prefix("goldleaves_stripe_calls_total{")?.rsplit_once(' ')?.1.parse::<u64>().ok();
        text.lines().filter_map(counted).sum::<u64>()
    };
    let mut seen = Vec::new();
    for _ in 0..6 {
        cut_off.pass().await.unwrap();
        seen.push(calls());
        desk.clock.forward(20);
    }
    // What is open when the first call fails may fail with it; after that one call per minute is made.
    let first = seen[0];
    assert!((1..=4).contains(&first), "{seen:?}");
    assert_eq!(seen, [first, first, first, first + 1, first + 1, first + 1]);
    let begun = desk.api.number("SELECT COUNT(*) FROM stripe_pushes WHERE state = 'pending' AND attempts > 0").await;
    assert_eq!(begun, 0, "no row has begun its 23 hours");
    // Stripe is there again.
    desk.clock.forward(60);
    desk.settle().await;
    assert_eq!(desk.double.calls("send"), sent + 4);
    assert_eq!(desk.double.violations(), [""; 0]);
}

#[tokio::test]
async fn all_lanes_together_call_at_the_rate_that_is_set() {
    let desk = Desk::on(Api::start().await).await;
    lanes(&desk, 10).await;
    let stripe = Stripe::new(desk.double.url().parse().unwrap(), Secret::new("rk_test_double".to_owned())).unwrap();
    let books = Books::new(desk.api.billing.clone(), desk.clock.books());
    let metrics = StripeMetrics::register(&Metrics::new());
    let paced = Pusher::new(books, stripe, metrics, Pacing::per_second(10));
    let begun = tokio::time::Instant::now();
    while desk.double.calls("send") < 10 {
        paced.pass().await.unwrap();
    }
    // The meter, a comparison and a row of each lane: never faster, however slow the machine is.
    let calls = desk.double.calls("send") + desk.double.calls("summaries");
    assert!(begun.elapsed().as_secs_f64() >= (calls - 1) as f64 / 10.0, "{calls} calls in {:?}", begun.elapsed());
    assert_eq!(desk.double.violations(), [""; 0]);
}

/// Usage that a forgotten row was sent for, and that Stripe dropped: after the adoption it is sent under another identifier,
/// because the old one was first sent more than 23 hours ago.
async fn what_was_sent_before_a_restore_comes_again_under_another_name(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    used_each_hour(&desk, 12..14).await;
    for table in ["stripe_pushes", "stripe_lanes", "stripe_state"] {
        desk.api.execute(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    desk.double.set_faults(Faults { dropped: 1.0, ..Faults::default() });
    used_each_hour(&desk, 14..15).await;
    desk.double.set_faults(Faults::default());
    used_each_hour(&desk, 15..16).await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 9_000_000, "three hours of four");
    for table in ["stripe_pushes", "stripe_lanes", "stripe_state"] {
        desk.api.execute(&format!("DELETE FROM {table}")).await;
        desk.api.execute(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
    }
    let again = another_pusher(&desk.api, &desk.double, &desk.clock, "rk_test_double");
    desk.clock.forward(26 * HOUR);
    again.seal_once().await.unwrap();
    again.pass().await.unwrap();
    assert_eq!(blocked(&desk).await, "stripe_has_more");
    let body = json!({"stripe_customer_id": CUSTOMER, "event_name": METER, "reason": "restored"});
    let answer = desk.post("lanes/adopt", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    desk.pass_time(3 * HOUR, HOUR).await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 12_000_000);
    assert_eq!(desk.double.violations(), [""; 0]);
}
