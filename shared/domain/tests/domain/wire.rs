//! The wire format: what is written is read back, whatever it is; what is read fits the ledger, whatever was written.

use goldleaves_domain::wire::{self, Message};
use goldleaves_domain::{Delivery, Outcome, UsageEvent};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common;

/// An event's JSON, with one member replaced.
pub(crate) fn event_with(pointer: &str, value: Value) -> Vec<u8> {
    let mut json = event_json();
    *json.pointer_mut(pointer).unwrap() = value;
    serde_json::to_vec(&json).unwrap()
}

pub(crate) fn event_json() -> Value {
    serde_json::from_slice(&wire::encode_event(&common::event(Outcome::Completed))).unwrap()
}

pub(crate) fn read(payload: &[u8]) -> UsageEvent {
    match wire::parse(payload) {
        Ok(Message::Event(event)) => *event,
        other => panic!("no event: {other:?}"),
    }
}

/// Returns whether every column takes it: lengths, no NUL (nor any control character), BIGINTs.
fn fits_the_ledger(event: &UsageEvent) -> bool {
    let metadata = event.metadata_json();
    let columns = [
        (event.request_id.as_str(), 128),
        (event.client_request_id.as_ref().map_or("x", |id| id.as_str()), 128),
        (event.tenant_id.as_str(), 255),
        (event.user_id.as_str(), 255),
        (event.route.as_str(), 500),
        (event.action.as_str(), 255),
        (event.outcome.as_str(), 32),
        (event.fingerprint.as_ref().map_or("x", |fingerprint| fingerprint.as_str()), 80),
        (&metadata, 2_000),
    ];
    let texts = columns.iter().all(|(text, most)| {
        let chars = text.chars().count();
        chars >= 1 && chars <= *most && !text.chars().any(char::is_control)
    });
    // PostgreSQL's limit of an index row, for the widest one: the rollups' key.
    let rollup_key = event.tenant_id.as_str().len() + event.route.as_str().len() + event.action.as_str().len() + 64;
    texts
        && rollup_key < 2_704
        && (1..=i64::MAX as u64).contains(&event.seq)
        && i64::try_from(event.units.micro()).is_ok()
}

/// JSON values that don't belong where they are put.
fn any_intruder() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        "[ -~]{0,300}".prop_map(Value::from),
        prop::collection::vec(any::<char>(), 0..600).prop_map(|chars| Value::from(String::from_iter(chars))),
        Just(json!("a\u{0}b")),
        Just(json!([])),
        Just(json!({"seq": 1})),
    ]
}

const MEMBERS: [&str; 23] = [
    "/specversion",
    "/id",
    "/type",
    "/source",
    "/subject",
    "/time",
    "/traceparent",
    "/data",
    "/data/request_id",
    "/data/client_request_id",
    "/data/user_id",
    "/data/route",
    "/data/action",
    "/data/units",
    "/data/method",
    "/data/status_code",
    "/data/user_agent",
    "/data/client_ip",
    "/data/response_size",
    "/data/processing_time",
    "/data/outcome",
    "/data/fingerprint",
    "/data/seq",
];

proptest! {
    #[test]
    fn any_event_comes_back_as_it_was(event in common::any_event()) {
        let payload = wire::encode_event(&event);
        prop_assert!(fits_the_ledger(&event));
        prop_assert_eq!(read(&payload), event);
    }

    #[test]
    fn any_json_reader_reads_what_is_written(event in common::any_event()) {
        let json: Value = serde_json::from_slice(&wire::encode_event(&event)).unwrap();
        prop_assert_eq!(&json["subject"], event.tenant_id.as_str());
        prop_assert_eq!(&json["data"]["method"], &event.metadata.method);
        prop_assert_eq!(json["data"]["user_agent"].as_str(), event.metadata.user_agent.as_deref());
        prop_assert_eq!(&json["data"]["units"], &event.units.to_string());
    }

    #[test]
    fn whatever_is_accepted_fits_the_ledger(
        changes in prop::collection::vec((prop::sample::select(&MEMBERS[..]), any_intruder()), 1..4),
    ) {
        let mut json = event_json();
        for (pointer, value) in changes {
            if let Some(member) = json.pointer_mut(pointer) {
                *member = value;
            }
        }
        match wire::parse(&serde_json::to_vec(&json).unwrap()) {
            Ok(Message::Event(event)) => prop_assert!(fits_the_ledger(&event), "{:?}", event),
            Ok(Message::Seal(seal)) => prop_assert!(false, "{:?}", seal),
            Err(unreadable) => crate::unreadable::check(&unreadable),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::unreadable::check(&wire::parse(&bytes).unwrap_err());
    }

    #[test]
    fn no_damage_makes_it_panic(
        start in any::<prop::sample::Index>(),
        length in 0_usize..20,
        bytes in prop::collection::vec(any::<u8>(), 0..10),
        of_seal in any::<bool>(),
    ) {
        let whole = if of_seal { wire::encode_seal(&common::seal()) } else { wire::encode_event(&common::event(Outcome::Unknown)) };
        let start = start.index(whole.len());
        let end = (start + length).min(whole.len());
        let damaged = [&whole[..start], &bytes, &whole[end..]].concat();
        match wire::parse(&damaged) {
            Ok(Message::Event(event)) => prop_assert!(fits_the_ledger(&event)),
            Ok(Message::Seal(_)) => prop_assert!(of_seal),
            Err(unreadable) => crate::unreadable::check(&unreadable),
        }
    }
}

#[test]
fn a_seal_comes_back_as_it_was() {
    let mut seal = common::seal();
    assert_eq!(wire::parse(&wire::encode_seal(&seal)), Ok(Message::Seal(Box::new(seal.clone()))));
    (seal.blocks, seal.last_seq, seal.closed) = (Vec::new(), 0, false);
    assert_eq!(wire::parse(&wire::encode_seal(&seal)), Ok(Message::Seal(Box::new(seal))));
}

#[test]
fn what_tools_rewrite_is_read_the_same() {
    let event = common::event(Outcome::Completed);
    let pretty = serde_json::to_string_pretty(&event_json()).unwrap();
    assert_eq!(read(pretty.as_bytes()), event);
    assert_eq!(read(&event_with("/time", json!("2026-01-31T13:34:56.000789999+01:00"))), event);
    assert_eq!(read(&event_with("/data/units", json!("2.500000"))), event);
    assert_eq!(read(&event_with("/id", json!(event.event_id.to_string().to_uppercase()))), event);
    for (written, micros) in
        [("1.5e-1", 150_000), ("1.5e-05", 15), ("0.1499999999", 150_000), ("3", 3_000_000), ("0", 0)]
    {
        let payload = String::from_utf8(wire::encode_event(&event).to_vec()).unwrap().replace("0.15", written);
        assert_eq!(read(payload.as_bytes()).metadata.processing_micros, micros, "{written}");
    }
}

#[test]
fn unknown_members_are_ignored() {
    let mut json = event_json();
    json["datacontenttype"] = json!(7);
    json["newthing"] = json!({"id": 1, "deep": [[[[1e300]]]]});
    json["data"]["newer"] = json!([1, {"seq": 2}]);
    assert_eq!(read(&serde_json::to_vec(&json).unwrap()), common::event(Outcome::Completed));
}

#[test]
fn what_may_be_missing_may_be_null() {
    let mut json = event_json();
    for member in ["client_request_id", "fingerprint", "user_agent", "client_ip", "part"] {
        json["data"][member] = Value::Null;
    }
    json["traceparent"] = Value::Null;
    let null = read(&serde_json::to_vec(&json).unwrap());
    for member in ["client_request_id", "fingerprint", "user_agent", "client_ip", "part"] {
        json["data"].as_object_mut().unwrap().remove(member);
    }
    json.as_object_mut().unwrap().remove("traceparent");
    let missing = read(&serde_json::to_vec(&json).unwrap());
    assert_eq!(null, missing);
    assert_eq!(null.client_request_id, None);
    assert_eq!(null.fingerprint, None);
    assert_eq!(null.traceparent, None);
}

#[test]
fn a_damaged_trace_costs_the_trace_alone() {
    for trace in [json!("x"), json!("00-4bf92f3577b34da6a3ce929d0e0e4736\r\nX: y"), json!(7), json!({})] {
        let event = read(&event_with("/traceparent", trace));
        assert_eq!(event, UsageEvent { traceparent: None, ..common::event(Outcome::Completed) });
    }
}

#[test]
fn deliveries_carry_ids_and_subjects() {
    let event = common::event(Outcome::Completed);
    let delivery = Delivery::of_event(&event);
    assert_eq!(delivery.subject, "usage.v1.org_123");
    assert_eq!(delivery.message_id, "01935b1c-0000-7000-8000-000000000001");
    assert_eq!(delivery.traceparent, event.traceparent);
    assert_eq!(read(&delivery.payload), event);
    let delivery = Delivery::of_seal(&common::seal());
    assert_eq!(delivery.subject, "usage.seal.v1.gateway-01935b1c-0000-7000-8000-0000000000aa");
    assert_eq!(delivery.message_id, "01935b1c-0000-7000-8000-000000000005");
    assert_eq!(wire::parse(&delivery.payload), Ok(Message::Seal(Box::new(common::seal()))));
}
