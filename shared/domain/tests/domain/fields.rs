//! The list of an event's fields says what wire and canonical form do.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::{
    CallMetadata, Canonical, EVENT_FIELDS, Epoch, EventId, Outcome, Source, Timestamp, Units, UsageEvent, wire,
};
use serde_json::Value;
use uuid::Uuid;

use crate::common;

/// The names in the structs; a field that is missing here does not compile.
macro_rules! names {
    ($($field:ident)*; $($inner:ident)*) => {{
        fn _every_field(event: UsageEvent) {
            let UsageEvent { $($field: _,)* metadata: CallMetadata { $($inner: _,)* } } = event;
        }
        [$(stringify!($field),)* $(stringify!($inner),)*]
    }};
}

/// An event that differs from [`common::event`] in this field alone.
fn changed(name: &str) -> UsageEvent {
    let mut event = common::event(Outcome::Completed);
    let other = Uuid::from_u128(7);
    match name {
        "event_id" => event.event_id = EventId::new(other),
        "source" => event.source = Source::new(other),
        "tenant_id" => event.tenant_id = "other".parse().unwrap(),
        "user_id" => event.user_id = "other".parse().unwrap(),
        "ts" => event.ts = Timestamp::from_unix_micros(1).unwrap(),
        "traceparent" => event.traceparent = Some("00-1bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        "request_id" => event.request_id = "other".parse().unwrap(),
        "client_request_id" => event.client_request_id = Some("other".parse().unwrap()),
        "route" => event.route = "/other".parse().unwrap(),
        "action" => event.action = "other".parse().unwrap(),
        "units" => event.units = Units::ONE,
        "outcome" => event.outcome = Outcome::ClientAborted,
        "fingerprint" => event.fingerprint = Some(format!("v1:{}", "a0".repeat(32)).parse().unwrap()),
        "epoch" => event.epoch = Epoch::new(other),
        "seq" => event.seq = 99,
        "method" => event.metadata.method = "PUT".to_owned(),
        "status_code" => event.metadata.status_code = 204,
        "user_agent" => event.metadata.user_agent = Some("other".to_owned()),
        "client_ip" => event.metadata.client_ip = Some("192.0.2.7".to_owned()),
        "response_bytes" => event.metadata.response_bytes = 9,
        "processing_micros" => event.metadata.processing_micros = 9,
        other => panic!("{other}: say here how it can differ"),
    }
    event
}

/// The members of the CloudEvent with their values, those of its data with `data.` before them.
fn members(event: &UsageEvent) -> BTreeMap<String, Value> {
    let Value::Object(envelope) = serde_json::from_slice(&wire::encode_event(event)).unwrap() else { panic!() };
    let mut members = BTreeMap::new();
    for (name, value) in envelope {
        match value {
            Value::Object(data) if name == "data" => {
                members.extend(data.into_iter().map(|(name, value)| (format!("data.{name}"), value)));
            }
            value => drop(members.insert(name, value)),
        }
    }
    members
}

#[test]
fn the_list_has_every_field_once() {
    let names = names!(
        event_id source tenant_id user_id ts traceparent request_id client_request_id route action units outcome
        fingerprint epoch seq;
        method status_code user_agent client_ip response_bytes processing_micros
    );
    assert_eq!(EVENT_FIELDS.map(|field| field.name), names);
}

#[test]
fn each_field_is_the_member_that_the_list_says() {
    let before = members(&common::event(Outcome::Completed));
    for field in EVENT_FIELDS {
        let after = members(&changed(field.name));
        let differ: Vec<&String> =
            after.iter().filter(|(name, value)| before.get(*name) != Some(value)).map(|it| it.0).collect();
        assert_eq!(differ, [field.member], "{}", field.name);
    }
    let fixed = ["specversion", "type", "datacontenttype", "data.part"];
    let listed: BTreeSet<&str> = EVENT_FIELDS.iter().map(|field| field.member).chain(fixed).collect();
    assert_eq!(before.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed);
}

#[test]
fn the_canonical_bytes_cover_what_the_list_says() {
    let before = common::event(Outcome::Completed).canonical_bytes();
    for field in EVENT_FIELDS {
        let covered = changed(field.name).canonical_bytes() != before;
        assert_eq!(covered, field.canonical == Canonical::Covered, "{}", field.name);
    }
}

#[test]
fn what_is_covered_can_be_made_again_from_a_row() {
    for field in EVENT_FIELDS.iter().filter(|field| field.canonical == Canonical::Covered) {
        assert!(field.column.is_some(), "{}", field.name);
    }
}
