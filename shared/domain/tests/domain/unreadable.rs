//! Events that are set aside: why, and everything that can still be told of them.

use goldleaves_domain::wire::{self, Unreadable, UnreadableReason};
use goldleaves_domain::{Outcome, RequestId, TenantId};
use serde_json::{Value, json};

use crate::common;
use crate::wire::{event_json, event_with};

/// Whatever is told of a payload fits the ledger's columns.
pub(crate) fn check(unreadable: &Unreadable) {
    let Unreadable { tenant_id, request_id, seq, detail, .. } = unreadable;
    assert!(tenant_id.as_ref().is_none_or(|tenant| tenant.parse::<TenantId>().is_ok()), "{unreadable:?}");
    assert!(request_id.as_ref().is_none_or(|id| id.parse::<RequestId>().is_ok()), "{unreadable:?}");
    assert!(seq.is_none_or(|seq| (1..=i64::MAX as u64).contains(&seq)), "{unreadable:?}");
    assert!(!detail.is_empty() && detail.chars().count() <= 300 && !detail.chars().any(char::is_control));
}

fn refused(payload: &[u8]) -> Unreadable {
    let unreadable = wire::parse(payload).expect_err("it was accepted");
    check(&unreadable);
    unreadable
}

/// Everything that an undamaged event says about itself.
fn assert_all_told(unreadable: &Unreadable) {
    let event = common::event(Outcome::Completed);
    assert_eq!(unreadable.event_id, Some(event.event_id), "{unreadable:?}");
    assert_eq!(unreadable.tenant_id.as_deref(), Some("org_123"), "{unreadable:?}");
    assert_eq!(unreadable.request_id.as_deref(), Some("order-7.retry:1"), "{unreadable:?}");
    assert_eq!(unreadable.epoch, Some(event.epoch), "{unreadable:?}");
    assert_eq!(unreadable.seq, Some(41), "{unreadable:?}");
    assert_eq!(unreadable.ts, Some(event.ts), "{unreadable:?}");
}

#[test]
fn every_bad_member_is_malformed_and_costs_only_itself() {
    let long = |chars: usize| json!("x".repeat(chars));
    let bad: Vec<(&str, Vec<Value>)> = vec![
        ("/specversion", vec![json!("0.3"), json!(1.0), Value::Null]),
        ("/source", vec![json!("gateway-x"), json!("x"), json!("")]),
        ("/data/user_id", vec![json!(""), json!("a\u{0}b"), json!("a\nb"), long(256), json!(7), Value::Null]),
        (
            "/data/route",
            vec![json!(""), json!("x"), json!("/a\u{0}"), json!("/\u{85}"), json!(format!("/{}", "x".repeat(500)))],
        ),
        ("/data/action", vec![json!(""), json!("a b"), json!("é"), json!("a\u{0}"), long(256)]),
        (
            "/data/units",
            vec![json!(1), json!(2.5), json!("-1"), json!("1e3"), json!("1.0000001"), json!("1000000001"), json!("")],
        ),
        ("/data/method", vec![json!(7), Value::Null]),
        ("/data/status_code", vec![json!("200"), json!(-1), json!(65_536), json!(200.5)]),
        ("/data/user_agent", vec![json!(7), json!([])]),
        (
            "/data/response_size",
            vec![json!(1024), json!("+1"), json!("-1"), json!("1.0"), json!(""), json!("99999999999999999999")],
        ),
        ("/data/processing_time", vec![json!("0.15"), json!(-0.1), Value::Null, json!([]), json!(1e300)]),
        ("/data/outcome", vec![json!("Completed"), json!("done"), json!("")]),
        ("/data/fingerprint", vec![json!("x"), json!(""), json!(7)]),
    ];
    for (pointer, values) in bad {
        for value in values {
            let unreadable = refused(&event_with(pointer, value.clone()));
            assert_eq!(unreadable.reason, UnreadableReason::Malformed, "{pointer} {value}");
            assert_all_told(&unreadable);
        }
    }
}

#[test]
fn a_bad_identity_is_not_told() {
    let told = |pointer: &str, value: Value| refused(&event_with(pointer, value));
    assert_eq!(told("/id", json!("7")).event_id, None);
    for tenant in [json!(""), json!("a\u{0}"), json!("🍃".repeat(256)), json!(7), Value::Null] {
        let unreadable = told("/subject", tenant);
        assert_eq!(unreadable.reason, UnreadableReason::Malformed);
        assert_eq!(unreadable.tenant_id, None);
    }
    for id in [json!(""), json!("a~b"), json!("x".repeat(129)), json!("a\u{0}"), json!(7)] {
        assert_eq!(told("/data/request_id", id).request_id, None);
    }
    for seq in [json!(0), json!(-1), json!(9_223_372_036_854_775_808_u64), json!("1"), json!(1.5)] {
        assert_eq!(told("/data/seq", seq).seq, None);
    }
    assert_eq!(told("/data/epoch", json!("x")).epoch, None);
    for time in [json!("2026-01-31"), json!("yesterday, early"), json!("2026-01-31T12:00:00"), json!(1_769_860_800)] {
        assert_eq!(told("/time", time).ts, None);
    }
}

#[test]
fn a_client_id_is_the_request_id_or_null() {
    let unreadable = refused(&event_with("/data/client_request_id", json!("another")));
    assert_eq!(unreadable.reason, UnreadableReason::Malformed);
    assert_all_told(&unreadable);
}

#[test]
fn a_known_member_given_twice_is_refused() {
    let text = serde_json::to_string(&event_json()).unwrap();
    let data = serde_json::to_string(&event_json()["data"]).unwrap();
    let mut members = 0;
    for (object, is_data) in [(event_json(), false), (event_json()["data"].clone(), true)] {
        for (name, value) in object.as_object().unwrap().iter().filter(|(name, _)| *name != "datacontenttype") {
            let twice = if is_data {
                text.replace(&data, &format!("{{\"{name}\":{value},{}", &data[1..]))
            } else {
                format!("{{\"{name}\":{value},{}", &text[1..])
            };
            assert!(twice.len() > text.len());
            let unreadable = refused(twice.as_bytes());
            assert_eq!(unreadable.reason, UnreadableReason::Malformed, "{name}");
            // Neither of two is believed, even where they agree.
            assert_eq!(unreadable.event_id.is_none(), name == "id", "{name}");
            assert_eq!(unreadable.tenant_id.is_none(), name == "subject", "{name}");
            assert_eq!(unreadable.request_id.is_none(), matches!(name.as_str(), "request_id" | "data"), "{name}");
            members += 1;
        }
    }
    assert_eq!(members, 25);
}

#[test]
fn a_missing_member_is_malformed() {
    let needed = [
        "specversion",
        "id",
        "type",
        "source",
        "subject",
        "time",
        "data",
        "request_id",
        "user_id",
        "route",
        "action",
        "units",
        "method",
        "status_code",
        "response_size",
        "processing_time",
        "outcome",
        "epoch",
        "seq",
    ];
    for name in needed {
        let mut json = event_json();
        json.as_object_mut().unwrap().remove(name);
        if let Some(data) = json.get_mut("data") {
            data.as_object_mut().unwrap().remove(name);
        }
        assert_eq!(refused(&serde_json::to_vec(&json).unwrap()).reason, UnreadableReason::Malformed, "{name}");
    }
}

#[test]
fn newer_versions_are_kept_for_a_newer_worker() {
    for kind in ["goldleaves.usage.v2", "goldleaves.usage.v999999999", "goldleaves.usage.v10"] {
        let unreadable = refused(&event_with("/type", json!(kind)));
        assert_eq!(unreadable.reason, UnreadableReason::NewerVersion, "{kind}");
        assert_all_told(&unreadable);
    }
    // An interim record must not be billed as a whole one.
    let unreadable = refused(&event_with("/data/part", json!(1)));
    assert_eq!(unreadable.reason, UnreadableReason::NewerVersion);
    assert_all_told(&unreadable);
    // A newer version may give any member another shape.
    let mut json = event_json();
    (json["type"], json["source"], json["data"]["seq"]) = (json!("goldleaves.usage.v2"), json!({}), json!("41"));
    let unreadable = refused(&serde_json::to_vec(&json).unwrap());
    assert_eq!(unreadable.reason, UnreadableReason::NewerVersion);
    assert_eq!(unreadable.seq, None);
    assert_eq!(unreadable.tenant_id.as_deref(), Some("org_123"));
    // What is no event has no event id, even if its id looks like one.
    for kind in ["goldleaves.seal.v2", "goldleaves.interim.v1"] {
        let unreadable = refused(&event_with("/type", json!(kind)));
        assert_eq!(unreadable.reason, UnreadableReason::NewerVersion, "{kind}");
        assert_eq!(unreadable.event_id, None, "{kind}");
    }
}

#[test]
fn foreign_types_are_malformed() {
    for kind in [
        "goldleaves.usage.v0",
        "goldleaves.usage.v01",
        "goldleaves.usage.v",
        "goldleaves.usage.v1.1",
        "goldleaves.usage",
        "goldleaves..v2",
        "goldleaves.usage.v-1",
        "goldleaves.usage.v+2",
        "goldleaves.usage.v1000000000",
        "usage.v1",
        "",
        "Goldleaves.usage.v1",
        "goldleaves.usage.v2 ",
        "com.example.object",
    ] {
        assert_eq!(refused(&event_with("/type", json!(kind))).reason, UnreadableReason::Malformed, "{kind:?}");
    }
}

#[test]
fn what_is_not_json_says_so_and_tells_what_came_before() {
    for payload in [&b""[..], b"\0", b"{", b"\xff\xfe", b"usage", b"\xef\xbb\xbf{}", b"{'type': 1}"] {
        let unreadable = refused(payload);
        assert_eq!(unreadable.reason, UnreadableReason::NotJson, "{payload:?}");
        assert_eq!(unreadable.event_id, None, "{payload:?}");
    }
    for payload in [
        &b"null"[..],
        b"7",
        b"[]",
        b"\"x\"",
        b"{}",
        b"{\"data\":null}",
        b"{\"type\":\"goldleaves.usage.v1\",\"data\":7}",
    ] {
        assert_eq!(refused(payload).reason, UnreadableReason::Malformed, "{payload:?}");
    }
    let whole = wire::encode_event(&common::event(Outcome::Completed));
    let unreadable = refused(&[&whole[..], b"{}"].concat());
    assert_eq!(unreadable.reason, UnreadableReason::NotJson, "one message, one event");
    assert_all_told(&unreadable);
    let unreadable = refused(&whole[..whole.len() / 2]);
    assert_eq!(unreadable.reason, UnreadableReason::NotJson);
    assert_eq!(unreadable.event_id, Some(common::event(Outcome::Completed).event_id));
    assert_eq!(unreadable.tenant_id.as_deref(), Some("org_123"));
    assert_eq!(unreadable.request_id, None);
    let nested = "[".repeat(100_000);
    assert_eq!(refused(nested.as_bytes()).reason, UnreadableReason::Malformed);
    assert_eq!(refused(format!("{{\"x\":{nested}").as_bytes()).reason, UnreadableReason::NotJson);
}

#[test]
fn an_array_is_never_taken_for_an_object() {
    let data =
        json!(["r", null, "u", "/r", "read", "1", "GET", 200, null, null, "1", 0.1, "completed", null, "e", 1, null]);
    let unreadable = refused(&event_with("/data", data.clone()));
    assert_eq!(unreadable.reason, UnreadableReason::Malformed);
    assert!(unreadable.detail.contains("not an object"), "{unreadable:?}");
    let envelope = json!(["1.0", "i", "goldleaves.usage.v1", "s", "t", "x", null, data]);
    let unreadable = refused(&serde_json::to_vec(&envelope).unwrap());
    assert!(unreadable.detail.contains("not an object"), "{unreadable:?}");
    let mut seal: Value = serde_json::from_slice(&wire::encode_seal(&common::seal())).unwrap();
    seal["data"]["blocks"] = json!([[0, 1, "0".repeat(64)]]);
    assert!(refused(&serde_json::to_vec(&seal).unwrap()).detail.contains("not an object"));
}

#[test]
fn seals_that_contradict_themselves_are_malformed() {
    let seal: Value = serde_json::from_slice(&wire::encode_seal(&common::seal())).unwrap();
    let hash = seal["data"]["blocks"][0]["hash"].clone();
    let block = |block: u64, count: u64| json!({"block": block, "count": count, "hash": hash});
    for (pointer, value) in [
        ("/id", json!("7")),
        ("/data/epoch", json!("7")),
        ("/data/last_seq", json!(u64::MAX)),
        ("/data/last_seq", json!(0)),
        ("/data/count", json!(-1)),
        ("/data/unrecorded", json!(u64::MAX)),
        ("/data/closed", json!("yes")),
        ("/data/blocks", Value::Null),
        ("/data/blocks", json!([block(2, 1)])),
        ("/data/blocks", json!([block(0, 1), block(0, 1)])),
        ("/data/blocks", json!([block(0, 1_025)])),
        ("/data/blocks/0/hash", json!("00")),
    ] {
        let mut seal = seal.clone();
        *seal.pointer_mut(pointer).unwrap() = value.clone();
        let unreadable = refused(&serde_json::to_vec(&seal).unwrap());
        assert_eq!(unreadable.reason, UnreadableReason::Malformed, "{pointer} {value}");
        assert_eq!(unreadable.event_id, None, "a seal is no event");
    }
}

#[test]
fn reasons_are_words_for_a_column() {
    let words = UnreadableReason::ALL.map(UnreadableReason::as_str);
    assert_eq!(words, ["newer_version", "not_json", "malformed"]);
    let text = refused(b"{}").to_string();
    assert!(text.starts_with("malformed: envelope: missing field"), "{text}");
}
