//! One event as a gateway sends it, for tests that vary a few fields of it: `UsageEvent { seq, ..usage::event() }`.

use goldleaves_domain::{
    Action, CallMetadata, Epoch, EventId, Outcome, RequestId, Source, Timestamp, Units, UsageEvent,
};
use uuid::Uuid;

/// A completed call of tenant `acme`, with an id of its own.
#[expect(clippy::unwrap_used, reason = "every literal here is legal, and a test fails loudly")]
pub fn event() -> UsageEvent {
    let id = Uuid::now_v7();
    UsageEvent {
        event_id: EventId::new(id),
        source: Source::new(Uuid::nil()),
        tenant_id: "acme".parse().unwrap(),
        user_id: "user-1".parse().unwrap(),
        ts: Timestamp::from_unix_micros(1_773_136_800_000_000).unwrap(),
        traceparent: None,
        request_id: RequestId::from_uuid(id),
        client_request_id: None,
        route: "/api/v1/documents".parse().unwrap(),
        action: Action::of_method("GET"),
        units: Units::ONE,
        metadata: CallMetadata {
            method: "GET".to_owned(),
            status_code: 200,
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".to_owned()),
            client_ip: Some("192.0.2.7".to_owned()),
            response_bytes: 1024,
            processing_micros: 1500,
        },
        outcome: Outcome::Completed,
        fingerprint: None,
        epoch: Epoch::new(Uuid::from_u128(1)),
        seq: 1,
    }
}
