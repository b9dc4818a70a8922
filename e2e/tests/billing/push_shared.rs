//! Tenants that share a customer of Stripe: as many as an hour has minutes, and no further one, so that what each uses gets there.

use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER};
use crate::world::{Answer, Api, Event, on_both};

on_both!(a_customer_takes_as_many_tenants_as_an_hour_has_minutes);

const HOUR: i64 = 3_600;
const MOST: usize = 60;

async fn map(desk: &Desk, tenant: &str, customer: Option<&str>, from: &str) -> Answer {
    let mapping = json!({"stripe_customer_id": customer, "from_hour": from, "reason": "they pay together"});
    desk.put(&format!("mappings/{tenant}/{METER}"), &mapping).await
}

async fn a_customer_takes_as_many_tenants_as_an_hour_has_minutes(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.double.add_customer("cus_other");
    let (from, later) = ("2026-03-15T12:00:00Z", "2026-03-15T15:00:00Z");
    let others: Vec<String> = (1..MOST).map(|number| format!("tenant-{number}")).collect();
    for tenant in &others {
        let answer = map(&desk, tenant, Some(CUSTOMER), from).await;
        assert_eq!(answer.status, 201, "{tenant}: {}", answer.text);
    }
    let refused = map(&desk, "one-more", Some(CUSTOMER), from).await;
    assert_eq!(refused.refusal(), (422, "meter_unfit".to_owned()), "{}", refused.text);
    assert!(refused.text.contains("60 tenants of goldleaves_units"), "{}", refused.text);
    assert_eq!(desk.api.number("SELECT COUNT(*) FROM stripe_mappings WHERE tenant_id = 'one-more'").await, 0);
    // What is there already can be said again, and another customer has room.
    assert_eq!(map(&desk, &others[0], Some(CUSTOMER), from).await.status, 200);
    assert_eq!(map(&desk, "one-more", Some("cus_other"), from).await.status, 201);
    let tenants: Vec<&str> = others.iter().map(String::as_str).chain(["acme", "one-more"]).collect();
    let used = async |time: &str| {
        let events: Vec<Event> = tenants.iter().map(|tenant| Event::at(tenant, time)).collect();
        assert_eq!(desk.api.record(&events).await.inserted, tenants.len() as u64);
    };
    used("2026-03-15T12:31:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle_many(MOST).await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 60_000_000, "each has a minute of the hour");
    assert_eq!(desk.double.total("cus_other", METER), 1_000_000);
    // What comes late finds no minute of that hour, and takes one of another.
    used("2026-03-15T12:32:00Z").await;
    desk.clock.set("2026-03-15T14:30:00Z");
    desk.settle_many(2 * MOST).await;
    desk.pass_time(3 * HOUR, HOUR).await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 120_000_000);
    // Where one leaves, another has its place from then on, and not before.
    assert_eq!(map(&desk, "next", Some(CUSTOMER), later).await.status, 422);
    assert_eq!(map(&desk, &others[1], None, later).await.status, 201);
    assert_eq!(map(&desk, "next", Some(CUSTOMER), from).await.status, 422);
    assert_eq!(map(&desk, "next", Some(CUSTOMER), later).await.status, 201);
    assert_eq!(map(&desk, "one-more", Some(CUSTOMER), later).await.status, 422);
    let lanes = desk.get("drift").await;
    for lane in lanes["items"].as_array().unwrap() {
        let seen = ["unsealed", "drift_units", "blocked"].map(|name| lane[name].clone());
        assert_eq!(seen, [json!(0), json!(0), Value::Null], "{lane}");
    }
    assert_eq!(desk.double.violations(), [""; 0]);
}
