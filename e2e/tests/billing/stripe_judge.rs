//! Stripe's own client for Python judges: the double answers it as Stripe does, and what it signs is taken.

use axum::body::Body;
use goldleaves_testkit::stripe::StripeDouble;
use goldleaves_testkit::stripe_client;
use http::Request;
use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER, METER_ID};
use crate::world::Api;

/// Calls everything that is called, typed, and compares what comes back.
const CALLS: &str = r#"
import sys, time, stripe
base, customer, name, meter_id, event_id = sys.argv[1:]
client = stripe.StripeClient("rk_test_double", base_addresses={"api": base}, max_network_retries=0)
assert stripe.VERSION.startswith("16."), stripe.VERSION
meter = client.v1.billing.meters.retrieve(meter_id)
assert (meter.object, meter.event_name, meter.status) == ("billing.meter", name, "active"), meter
assert meter.default_aggregation.formula == "sum" and meter.event_time_window is None
assert meter.customer_mapping.event_payload_key == "stripe_customer_id"
now = int(time.time())
minute = now - now % 60 - 3600
def send(identifier, value, key=None, at=minute + 30):
    return client.v1.billing.meter_events.create(
        {"event_name": name, "payload": {"stripe_customer_id": customer, "value": str(value)},
         "identifier": identifier, "timestamp": at}, {"idempotency_key": key} if key else {})
event = send("one", 7, "key-1")
assert (event.object, event.identifier, event.payload["value"]) == ("billing.meter_event", "one", "7"), event
assert send("one", 7, "key-1").identifier == "one", "replayed"
def refused(*arguments, **more):
    try:
        send(*arguments, **more)
    except stripe.InvalidRequestError as error:
        assert error.http_status == 400, error
        return error.user_message
    raise AssertionError("it was taken")
assert "already exists with identifier one" in refused("one", 7)
assert "whole number" in refused("two", "1.5")
assert "too old" in refused("three", 1, at=now - 36 * 86400)
send("four", -2)
sums = client.v1.billing.meters.event_summaries.list(
    meter_id, {"customer": customer, "start_time": minute, "end_time": minute + 60})
assert [item.aggregated_value for item in sums.data] == [5.0], sums
hour = minute - minute % 3600
sums = client.v1.billing.meters.event_summaries.list(
    meter_id, {"customer": customer, "start_time": hour, "end_time": hour + 7200, "value_grouping_window": "hour"})
assert sum(item.aggregated_value for item in sums.auto_paging_iter()) == 5.0
seen = client.v2.core.events.retrieve(event_id)
assert seen.type == "v1.billing.meter.error_report_triggered", seen
assert seen.data.reason.error_types[0].sample_errors[0].request.identifier == "one.1", seen
try:
    stripe.StripeClient("sk_wrong", base_addresses={"api": base}).v1.billing.meters.retrieve(meter_id)
    raise AssertionError("any key is taken")
except stripe.AuthenticationError as error:
    assert error.http_status == 401
print("ok")
"#;

/// Signs a body as Stripe does, and prints the header.
const SIGN: &str = r#"
import sys, time, stripe
body, secret = sys.argv[1:]
print(stripe.WebhookSignature.generate_signature_header(body, secret))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripe_s_own_client_finds_stripe_in_the_double() {
    let double = StripeDouble::start().await.unwrap();
    double.add_meter(METER_ID, METER);
    double.add_customer(CUSTOMER);
    let data = json!({
        "developer_message_summary": "one event was dropped", "validation_start": "2026-11-30T00:00:00Z",
        "validation_end": "2026-11-30T00:10:00Z",
        "reason": {"error_count": 1, "error_types": [{"code": "meter_event_customer_not_found", "error_count": 1,
            "sample_errors": [{"error_message": "no customer", "request": {"identifier": "one.1"}}]}]},
    });
    let event = double.core_event("v1.billing.meter.error_report_triggered", METER_ID, data);
    let event: Value = serde_json::from_str(&event).unwrap();
    let url = double.url();
    let arguments = [url.as_str(), CUSTOMER, METER, METER_ID, event["id"].as_str().unwrap()];
    assert_eq!(stripe_client::run(CALLS, &arguments).await.unwrap(), "ok");
    assert_eq!(double.total(CUSTOMER, METER), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stripe_s_own_client_signs_is_taken() {
    let desk = Desk::on(Api::start().await).await;
    let body = desk.double.core_event("v1.billing.meter.no_meter_found", METER_ID, Value::Null);
    for (secret, status) in [("whsec_old", 200), ("whsec_new", 200), ("whsec_other", 400)] {
        let header = stripe_client::run(SIGN, &[&body, secret]).await.unwrap();
        let request = Request::post("/billing/stripe/webhook").header("stripe-signature", header);
        let answer = desk.api.ask(request.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(answer.status, status, "{secret}: {}", answer.text);
    }
}
