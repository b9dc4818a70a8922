//! Golden files, round trips and damage.

use std::collections::BTreeSet;

use goldleaves_domain::{EVENT_FIELDS, Fingerprint, Kept, Seal, SealBlock, SetHash};
use proptest::prelude::*;

use super::*;
use crate::testing::{any_call, any_settlement};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{GOLDEN}/{name}.hex");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{path}: {cause}"));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[track_caller]
fn assert_golden(name: &str, bytes: &[u8]) {
    let hex: Vec<String> =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    assert_eq!(golden(name), bytes, "{name}.hex should be\n{}\n", hex.join("\n"));
}

fn uuid(last: u8) -> Uuid {
    Uuid::parse_str(&format!("01936d5e-5c00-7000-8000-0000000000{last:02x}")).unwrap()
}

fn place() -> SettlePlace {
    SettlePlace { source: Source::new(uuid(1)), epoch: Epoch::new(uuid(2)), seq: 7 }
}

fn full_call() -> CallIntent {
    CallIntent {
        event_id: EventId::new(uuid(3)),
        tenant_id: "Bücher & Söhne".parse().unwrap(),
        user_id: "user-1".parse().unwrap(),
        ts: "2026-01-31T12:00:00.000001Z".parse().unwrap(),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        request_id: "request-1".parse().unwrap(),
        client_request_id: Some("request-1".parse().unwrap()),
        route: "/api/v1/documents".parse().unwrap(),
        method: "POST".into(),
        user_agent: Some("curl/8.5.0".into()),
        client_ip: Some("192.168.1.1".into()),
    }
}

fn least_call() -> CallIntent {
    CallIntent { traceparent: None, client_request_id: None, user_agent: None, client_ip: None, ..full_call() }
}

fn full_settlement() -> Settlement {
    Settlement {
        outcome: Outcome::Completed,
        status_code: 201,
        units: "2.5".parse().unwrap(),
        action: Some("summarise".parse().unwrap()),
        response_bytes: 1_024,
        processing_micros: 150_000,
        fingerprint: Some(format!("v1:{}", "5a".repeat(32)).parse::<Fingerprint>().unwrap()),
    }
}

fn settle(call: &CallIntent, settlement: &Settlement) -> Vec<u8> {
    let mut payload = encode_call(call);
    append_settlement(&mut payload, settlement);
    payload
}

fn seal() -> Seal {
    Seal {
        id: uuid(4),
        source: place().source,
        ts: "2026-01-31T12:00:10Z".parse().unwrap(),
        epoch: place().epoch,
        last_seq: 1_030,
        count: 1_029,
        unrecorded: 3,
        closed: true,
        blocks: vec![
            SealBlock { block: 0, count: 1_023, hash: SetHash::from_bytes([0xa5; 32]) },
            SealBlock { block: 1, count: 6, hash: SetHash::from_bytes([0x5a; 32]) },
        ],
    }
}

/// The names in a struct; a field that is missing here does not compile.
macro_rules! names {
    ($kind:ty: $type:ident { $($field:ident)* }) => {{
        fn _every_field(value: $kind) {
            let $type { $($field: _,)* } = value;
        }
        BTreeSet::from([$(stringify!($field),)*])
    }};
}

#[test]
fn a_record_holds_each_field_where_the_list_says() {
    let call = names!(CallIntent: CallIntent {
        event_id tenant_id user_id ts traceparent request_id client_request_id route method user_agent client_ip
    });
    let settlement = names!(Settlement: Settlement {
        outcome status_code units action response_bytes processing_micros fingerprint
    });
    let frame = names!(SettlePlace: SettlePlace { source epoch seq });
    for (kept, names) in [(Kept::Call, call), (Kept::Settlement, settlement), (Kept::Frame, frame)] {
        let listed = EVENT_FIELDS.iter().filter(|field| field.kept == kept).map(|field| field.name);
        assert_eq!(listed.collect::<BTreeSet<_>>(), names, "{kept:?}");
    }
}

#[test]
fn bytes_written_once_are_written_and_read_for_ever() {
    for (name, call) in [("intent-full", full_call()), ("intent-least", least_call())] {
        assert_golden(&format!("v1-{name}"), &encode_call(&call));
        assert_eq!(decode_call(1, &golden(&format!("v1-{name}"))), Ok(call));
    }
    for (name, settlement) in [("settle-full", full_settlement()), ("settle-unknown", unknown_settlement())] {
        assert_golden(&format!("v1-{name}"), &settle(&full_call(), &settlement));
        let read = decode_event(1, &golden(&format!("v1-{name}")), place());
        assert_eq!(read, Ok(event(full_call(), settlement, place())));
    }
    assert_golden("v1-seal", &encode_seal(&seal()));
    assert_eq!(decode_seal(1, &golden("v1-seal"), place().source), Ok(seal()));
    assert_golden("v1-void", &encode_void(VoidReason::StatusNotBillable));
}

#[test]
fn every_void_reason_has_its_own_number() {
    let codes: BTreeSet<_> = VoidReason::ALL.map(encode_void).into();
    assert_eq!(codes.len(), VoidReason::ALL.len());
}

#[test]
fn a_newer_version_is_named_and_version_0_is_none() {
    let payload = settle(&full_call(), &full_settlement());
    assert_eq!(decode_event(2, &payload, place()), Err(CodecError::NewerVersion(2)));
    assert_eq!(decode_call(9, &payload), Err(CodecError::NewerVersion(9)));
    assert_eq!(decode_seal(2, &encode_seal(&seal()), place().source), Err(CodecError::NewerVersion(2)));
    assert_eq!(decode_event(0, &payload, place()), Err(CodecError::Invalid("version")));
}

#[test]
fn bytes_that_end_early_or_late_are_refused() {
    let (event, seal) = (settle(&full_call(), &full_settlement()), encode_seal(&seal()));
    for length in 0..event.len() {
        assert!(decode_event(1, &event[..length], place()).is_err(), "{length}");
    }
    for length in 0..seal.len() {
        assert!(decode_seal(1, &seal[..length], place().source).is_err(), "{length}");
    }
    let longer = [event.as_slice(), &[0]].concat();
    assert_eq!(decode_event(1, &longer, place()), Err(CodecError::TooLong(1)));
}

#[test]
fn what_is_set_aside_has_no_units_whatever_the_settlement_says() {
    for outcome in Outcome::ALL {
        let payload = settle(&full_call(), &Settlement { outcome, ..full_settlement() });
        let read = decode_event(1, &payload, place()).unwrap();
        let expected = if outcome.is_billable() { full_settlement().units } else { Units::ZERO };
        assert_eq!(read.outcome, outcome);
        assert_eq!(read.units, expected);
    }
}

#[test]
fn what_no_ledger_holds_is_cut_between_characters() {
    let call = CallIntent {
        method: "É".repeat(100),
        user_agent: Some("ü".repeat(1_500)),
        client_ip: Some("x".repeat(500)),
        traceparent: Some("00-forged\r\nNats-Msg-Id: x".into()),
        ..full_call()
    };
    let read = decode_call(1, &encode_call(&call)).unwrap();
    assert_eq!(read.method, "É".repeat(METHOD_BYTES_MAX / 2));
    assert_eq!(read.user_agent.unwrap(), "ü".repeat(USER_AGENT_BYTES_MAX / 2));
    assert_eq!(read.client_ip.unwrap().len(), CLIENT_IP_BYTES_MAX);
    assert_eq!(read.traceparent, None);
}

proptest! {
    #[test]
    fn a_settle_reads_back_as_its_intent_and_its_settlement(call in any_call(), settlement in any_settlement()) {
        let intent = encode_call(&call);
        let read = decode_call(1, &intent).unwrap();
        prop_assert_eq!(encode_call(&read), intent.clone(), "what is read is written the same again");
        let payload = settle(&call, &settlement);
        prop_assert!(payload.starts_with(&intent));
        prop_assert_eq!(peek_call(1, &payload).unwrap(), read.clone());
        let units = if settlement.outcome.is_billable() { settlement.units } else { Units::ZERO };
        let expected = event(read, Settlement { units, ..settlement }, place());
        prop_assert_eq!(decode_event(1, &payload, place()), Ok(expected));
    }

    #[test]
    fn damaged_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), flips in any::<[(u16, u8); 4]>()) {
        let _ = decode_event(1, &bytes, place());
        let _ = decode_seal(1, &bytes, place().source);
        bytes = settle(&full_call(), &full_settlement());
        for (at, mask) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= mask;
        }
        let _ = decode_event(1, &bytes, place());
    }
}
