//! Hours of more usage than one row can say: they are split into rows of a minute each, and what takes more rows than an hour has
//! minutes is for another meter.

use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER};
use crate::world::{Api, Event, on_both, token};

/// The most that a call can be worth.
const MOST: &str = "999999999.999999";
const MOST_MICRO: i128 = 999_999_999_999_999;
const HOUR: i64 = 3_600;

on_both! {
    an_hour_of_more_rows_than_minutes_is_for_another_meter,
    an_hour_of_many_rows_is_compared_confirmed_and_adopted,
}

async fn use_most(desk: &Desk, day_and_hour: &str, calls: usize) {
    let event = |number: usize| Event {
        units: MOST.to_owned(),
        ..Event::at("acme", &format!("{day_and_hour}:{:02}:{:02}Z", number % 60, number / 60))
    };
    let events: Vec<Event> = (0..calls).map(event).collect();
    assert_eq!(desk.api.record(&events).await.inserted, calls as u64);
}

async fn lane_of(desk: &Desk, name: &str) -> Value {
    let lanes = desk.get("drift").await;
    lanes["items"].as_array().unwrap().iter().find(|lane| lane["event_name"] == name).cloned().unwrap_or_default()
}

async fn map(desk: &Desk, meter: &str, customer: Option<&str>, from: &str) {
    let mapping = json!({"stripe_customer_id": customer, "from_hour": from, "reason": "too much for millionths"});
    let answer = desk.put(&format!("mappings/acme/{meter}"), &mapping).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

async fn state_of_report(desk: &Desk) -> Value {
    let range = r#"{"tenant_id":"acme","start_date":"2026-03-15T13:00:00Z","end_date":"2026-03-15T14:00:00Z"}"#;
    let made = desk.api.report_usage(&token("any", &["billing:write"]), range).await.json();
    let path = "/billing/report-usage/acme?start_date=2026-03-15T13:00:00Z&end_date=2026-03-15T14:00:00Z";
    let read = desk.api.get(path, &token("any", &["billing:read"])).await.json();
    assert_eq!(made, read);
    made["state"].clone()
}

async fn an_hour_of_more_rows_than_minutes_is_for_another_meter(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "1", "2026-03-15T12:31:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    use_most(&desk, "2026-03-15T13", 61).await;
    desk.clock.set("2026-03-15T14:05:00Z");
    desk.settle().await;
    assert_eq!(lane_of(&desk, METER).await["blocked"], "meter_unfit");
    assert_eq!(state_of_report(&desk).await, "failed");
    // It stays so, and what is used later waits.
    desk.api.used("acme", "/a", "5", "2026-03-15T14:31:00Z").await;
    desk.clock.set("2026-03-15T15:05:00Z");
    desk.pass_time(HOUR, 600).await;
    let lane = lane_of(&desk, METER).await;
    assert_eq!((&lane["blocked"], &lane["pending"]), (&json!("meter_unfit"), &json!(5)), "{lane}");
    assert_eq!((desk.rows().await.len(), desk.double.calls("send")), (2, 1), "no row is made of the hour");
    // As the guide says: another meter counts that hour, and it alone.
    desk.double.add_meter("mtr_whole", "whole_units");
    let meter = json!({"event_name": "whole_units", "stripe_meter_id": "mtr_whole", "places": 0, "reason": "large"});
    assert_eq!(desk.put("meters/whole", &meter).await.status, 201);
    map(&desk, "whole", None, "2026-03-15T14:00:00Z").await;
    map(&desk, "whole", Some(CUSTOMER), "2026-03-15T13:00:00Z").await;
    map(&desk, METER, Some(CUSTOMER), "2026-03-15T14:00:00Z").await;
    map(&desk, METER, None, "2026-03-15T13:00:00Z").await;
    desk.pass_time(HOUR, 600).await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 6_000_000);
    assert_eq!(desk.double.total(CUSTOMER, "whole_units"), 61 * MOST_MICRO / 1_000_000);
    for name in [METER, "whole_units"] {
        let lane = lane_of(&desk, name).await;
        assert_eq!((&lane["blocked"], &lane["unsealed"]), (&Value::Null, &json!(0)), "{lane}");
    }
    assert_eq!(desk.double.violations(), [""; 0]);
}

/// Twenty rows of an hour are each exact, and their sum is more than a float holds.
async fn an_hour_of_many_rows_is_compared_confirmed_and_adopted(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    use_most(&desk, "2026-03-15T13", 20).await;
    desk.clock.set("2026-03-15T14:05:00Z");
    desk.settle().await;
    let total = 20 * MOST_MICRO;
    assert_eq!(desk.double.total(CUSTOMER, METER), total);
    desk.pass_time(2 * HOUR, 600).await;
    assert!(desk.rows().await.iter().all(|row| row["confirmed_at"].is_string()));
    // Compared a day later, what is used then goes out.
    desk.clock.set("2026-03-16T15:00:00Z");
    desk.api.used("acme", "/a", "0.000001", "2026-03-16T14:10:00Z").await;
    desk.clock.set("2026-03-16T15:06:00Z");
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), total + 1);
    // A millionth that somebody else adds to that hour is seen, and taken over.
    let minute = 13 * HOUR + 45 * 60;
    desk.double.push_foreign(CUSTOMER, METER, crate::stripe_desk::seconds("2026-03-15T00:00:00Z") + minute, 1);
    desk.pass_time(26 * HOUR, 2 * HOUR).await;
    assert_eq!(lane_of(&desk, METER).await["blocked"], "stripe_has_more");
    let body = json!({"stripe_customer_id": CUSTOMER, "event_name": METER, "reason": "somebody else's"});
    let answer = desk.post("lanes/adopt", &body).await;
    assert_eq!((answer.status, &answer.json()["adopted"]), (200, &json!(1)), "{}", answer.text);
    desk.pass_time(3 * HOUR, HOUR).await;
    assert_eq!(desk.double.total(CUSTOMER, METER), total + 1, "it is made up for");
    let lane = lane_of(&desk, METER).await;
    assert_eq!((&lane["blocked"], &lane["drift_units"]), (&Value::Null, &json!(0)), "{lane}");
    assert_eq!(desk.double.violations(), [""; 0]);
}
