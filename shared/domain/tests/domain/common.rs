//! Events, seals and strategies that the tests of this crate share.

use goldleaves_domain::{
    Action, CallMetadata, Epoch, EventId, Fingerprint, Outcome, RequestId, RoutePattern, Seal, SealBlock, SetHash,
    Source, TenantId, Timestamp, Units, UsageEvent, UserId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

/// One event with every member filled.
pub(crate) fn event(outcome: Outcome) -> UsageEvent {
    let request_id: RequestId = "order-7.retry:1".parse().unwrap();
    UsageEvent {
        event_id: EventId::new(Uuid::from_u128(0x0193_5b1c_0000_7000_8000_0000_0000_0001)),
        source: Source::new(Uuid::from_u128(0x0193_5b1c_0000_7000_8000_0000_0000_00aa)),
        tenant_id: "org_123".parse().unwrap(),
        user_id: "user-7".parse().unwrap(),
        ts: "2026-01-31T12:34:56.000789Z".parse().unwrap(),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        request_id: request_id.clone(),
        client_request_id: Some(request_id),
        route: "/api/v1/documents".parse().unwrap(),
        action: Action::of_method("POST"),
        units: if outcome.is_billable() { "2.5".parse().unwrap() } else { Units::ZERO },
        metadata: CallMetadata {
            method: "POST".to_owned(),
            status_code: 201,
            user_agent: Some("curl/8.5 \"quoted\" \\ tab\there é 🍃".to_owned()),
            client_ip: Some("192.168.1.1".to_owned()),
            response_bytes: 1024,
            processing_micros: 150_000,
        },
        outcome,
        fingerprint: Some(format!("v1:{}", "0f".repeat(32)).parse().unwrap()),
        epoch: Epoch::new(Uuid::from_u128(0x0193_5b1c_0000_7000_8000_0000_0000_0e00)),
        seq: 41,
    }
}

/// One seal with two blocks.
pub(crate) fn seal() -> Seal {
    let mut hash = SetHash::EMPTY;
    hash.insert(&event(Outcome::Completed));
    Seal {
        id: Uuid::from_u128(0x0193_5b1c_0000_7000_8000_0000_0000_0005),
        source: event(Outcome::Completed).source,
        ts: "2026-01-31T12:35:00Z".parse().unwrap(),
        epoch: event(Outcome::Completed).epoch,
        last_seq: 1_500,
        count: 1_500,
        unrecorded: 2,
        closed: true,
        blocks: vec![
            SealBlock { block: 0, count: 1_024, hash },
            SealBlock { block: 1, count: 476, hash: SetHash::EMPTY },
        ],
    }
}

pub(crate) fn any_uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

pub(crate) fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    // 0001-01-01 to 9999-12-31.
    (-62_135_596_800_000_000_i64..253_402_300_800_000_000)
        .prop_map(|micros| Timestamp::from_unix_micros(micros).unwrap())
}

/// A tenant or user: any characters but control characters.
pub(crate) fn any_name() -> impl Strategy<Value = String> {
    let chars = |most: usize| vec(any::<char>().prop_filter("control", |char| !char.is_control()), 1..=most);
    prop_oneof![4 => chars(12), 1 => chars(255)].prop_map(String::from_iter)
}

pub(crate) fn any_request_id() -> impl Strategy<Value = RequestId> {
    "[A-Za-z0-9._:-]{1,128}".prop_map(|text| text.parse().unwrap())
}

pub(crate) fn any_route() -> impl Strategy<Value = RoutePattern> {
    "/[a-zA-Z0-9é ü~._-]{1,60}(/[a-z0-9]{1,20}){0,3}"
        .prop_filter_map("a path with a single meaning", |text| text.parse().ok())
}

pub(crate) fn any_fingerprint() -> impl Strategy<Value = Fingerprint> {
    "v1:[0-9a-f]{64}".prop_map(|text| text.parse().unwrap())
}

pub(crate) fn any_units() -> impl Strategy<Value = Units> {
    (0..=1_000_000_000_000_000_u64).prop_map(|micro| Units::from_micro(micro).unwrap())
}

/// Any text a client could get into metadata, control characters included.
pub(crate) fn any_metadata() -> impl Strategy<Value = CallMetadata> {
    let text =
        || prop_oneof![4 => ".*", 4 => "\\PC{0,40}", 1 => vec(any::<char>(), 0..2_500).prop_map(String::from_iter)];
    (text(), any::<u16>(), option::of(text()), option::of(text()), any::<u64>(), any::<u64>()).prop_map(
        |(method, status_code, user_agent, client_ip, response_bytes, processing_micros)| CallMetadata {
            method,
            status_code,
            user_agent,
            client_ip,
            response_bytes,
            processing_micros,
        },
    )
}

/// Any event that can exist.
pub(crate) fn any_event() -> impl Strategy<Value = UsageEvent> {
    let who = (any_uuid(), any_uuid(), any_name(), any_name(), any_timestamp(), any::<bool>());
    let what = (any_request_id(), any::<bool>(), any_route(), "[!-~]{1,255}", any_units(), any_metadata());
    let how = (prop::sample::select(&Outcome::ALL[..]), option::of(any_fingerprint()), any_uuid(), 1..=i64::MAX as u64);
    (who, what, how).prop_map(|(who, what, how)| {
        let (id, source, tenant, user, ts, traced) = who;
        let (request_id, chosen, route, action, units, metadata) = what;
        let (outcome, fingerprint, epoch, seq) = how;
        UsageEvent {
            event_id: EventId::new(id),
            source: Source::new(source),
            tenant_id: tenant.parse::<TenantId>().unwrap(),
            user_id: user.parse::<UserId>().unwrap(),
            ts,
            traceparent: traced.then(|| format!("00-{:032x}-{:016x}-01", id.as_u128(), seq)),
            client_request_id: chosen.then(|| request_id.clone()),
            request_id,
            route,
            action: action.parse().unwrap(),
            units,
            metadata,
            outcome,
            fingerprint,
            epoch: Epoch::new(epoch),
            seq,
        }
    })
}
