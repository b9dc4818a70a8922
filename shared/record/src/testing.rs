//! Calls and settlements of every legal kind, for property tests.

use goldleaves_domain::{
    Action, Epoch, EventId, Fingerprint, Outcome, RequestId, RoutePattern, TenantId, Timestamp, Units, UsageEvent,
    UserId,
};
use goldleaves_testkit::usage;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use super::call::{CallIntent, Settlement};

/// A legal name of any alphabet: 1 to 255 characters without control characters.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{1,20}", "\\PC{1,255}", Just("x".repeat(255)), Just("\u{10ffff}".repeat(255))]
        .prop_filter("legal", |name| name.parse::<TenantId>().is_ok())
}

fn any_request_id() -> impl Strategy<Value = RequestId> {
    "[A-Za-z0-9._:-]{1,128}".prop_map(|text| text.parse().unwrap())
}

fn any_route() -> impl Strategy<Value = RoutePattern> {
    prop_oneof!["(/[a-zA-Z0-9_~-]{1,20}){1,8}", Just(format!("/{}", "a".repeat(499))), Just("/%C3%BC".to_owned())]
        .prop_map(|text| text.parse().unwrap())
}

/// Returns what a client may say of itself: anything at all, very long too.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,80}",
        ".{0,300}",
        any::<String>(),
        Just("\"\\\u{0}\u{7f}\r\n\t".repeat(500)),
        Just("\u{10ffff}".repeat(2_001)),
    ]
}

/// A call as the gateway may let it through.
pub(crate) fn any_call() -> impl Strategy<Value = CallIntent> {
    let who = (any_name(), any_name(), any_request_id(), any::<bool>());
    let what = (any_route(), prop_oneof!["GET|POST|PUT|PATCH|DELETE|HEAD", any_text()]);
    let client = (option::of(any_text()), option::of(any_text()), option::of(any_text()));
    let micros = 1_700_000_000_000_000_i64..2_000_000_000_000_000;
    (who, what, client, micros, any::<u128>()).prop_map(|(who, what, client, micros, id)| {
        let (tenant, user, request_id, is_clients) = who;
        let client_request_id = is_clients.then(|| request_id.clone());
        CallIntent {
            event_id: EventId::new(Uuid::from_u128(id)),
            tenant_id: tenant.parse::<TenantId>().unwrap(),
            user_id: user.parse::<UserId>().unwrap(),
            ts: Timestamp::from_unix_micros(micros).unwrap(),
            traceparent: client.0,
            request_id,
            client_request_id,
            route: what.0,
            method: what.1,
            user_agent: client.1,
            client_ip: client.2,
        }
    })
}

/// A settlement as the gateway may make it.
pub(crate) fn any_settlement() -> impl Strategy<Value = Settlement> {
    let outcome = proptest::sample::select(Outcome::ALL.as_slice());
    let units = (0..=Units::WHOLE_MAX * 1_000_000).prop_map(|micro| Units::from_micro(micro).unwrap());
    let action = option::of("[!-~]{1,255}".prop_map(|text| text.parse::<Action>().unwrap()));
    let digits = option::of("[0-9a-f]{64}".prop_map(|hex| format!("v1:{hex}").parse::<Fingerprint>().unwrap()));
    (outcome, any::<u16>(), units, action, any::<(u64, u64)>(), digits).prop_map(
        |(outcome, status_code, units, action, (response_bytes, processing_micros), fingerprint)| Settlement {
            outcome,
            status_code,
            units,
            action,
            response_bytes,
            processing_micros,
            fingerprint,
        },
    )
}

/// The event that has this number; every number has another one.
pub(crate) fn event_at(epoch: Epoch, seq: u64) -> UsageEvent {
    UsageEvent {
        event_id: EventId::new(Uuid::from_u128(u128::from(seq) << 64 | epoch.as_uuid().as_u128() & 0xffff)),
        request_id: "request".parse().unwrap(),
        epoch,
        seq,
        ..usage::event()
    }
}
