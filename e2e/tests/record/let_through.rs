//! Nothing the gateway lets through is poison: any tenant, user, route, client text and units ends as one row, on SQLite
//! and on PostgreSQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{Action, EventId, Fingerprint, Outcome, RequestId, TenantId, Timestamp, Units};
use goldleaves_record::{CallIntent, Settlement};
use goldleaves_testkit::scratch::Scratch;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::child;
use crate::database::{self, Tables};

/// 1 to 255 characters of any alphabet without control characters: what the edge lets through as a tenant or user.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{1,20}", "\\PC{1,255}", Just("\u{10ffff}".repeat(255)), Just("' OR 1=1; --".to_owned())]
        .prop_filter("legal", |name| name.parse::<TenantId>().is_ok())
}

/// Returns what a client may say of itself.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,80}",
        any::<String>(),
        Just("\"\\\u{0}\u{7f}\r\n\t".repeat(500)),
        Just("\u{10ffff}".repeat(2_001)),
        Just("\u{e9}\u{0}".repeat(1_001)),
    ]
}

fn any_call() -> impl Strategy<Value = CallIntent> {
    let request_id = prop_oneof!["[A-Za-z0-9._:-]{1,128}", Just("x".repeat(128))];
    let who = (any_name(), any_name(), request_id, any::<bool>());
    let route =
        prop_oneof!["(/[a-zA-Z0-9_~-]{1,20}){1,8}", Just(format!("/{}", "a".repeat(499))), Just("/ü".to_owned())];
    let what = (route, prop_oneof!["GET|POST|DELETE|PROPFIND", any_text()], option::of(any_text()));
    let client = (option::of(any_text()), option::of(any_text()));
    // None lies ahead of the moment it is stored: that is set aside.
    let micros = 1_700_000_000_000_000_i64..1_760_000_000_000_000;
    (who, what, client, micros, any::<u128>()).prop_map(|(who, what, client, micros, id)| {
        let request_id: RequestId = who.2.parse().unwrap();
        CallIntent {
            event_id: EventId::new(Uuid::from_u128(id)),
            tenant_id: who.0.parse().unwrap(),
            user_id: who.1.parse().unwrap(),
            ts: Timestamp::from_unix_micros(micros).unwrap(),
            traceparent: what.2,
            client_request_id: who.3.then(|| request_id.clone()),
            request_id,
            route: what.0.parse().unwrap(),
            method: what.1,
            user_agent: client.0,
            client_ip: client.1,
        }
    })
}

fn any_settlement() -> impl Strategy<Value = Settlement> {
    let outcome = proptest::sample::select(Outcome::ALL.as_slice());
    let units = prop_oneof![Just(0), Just(Units::WHOLE_MAX * 1_000_000), 0..=Units::WHOLE_MAX * 1_000_000];
    let units = units.prop_map(|micro| Units::from_micro(micro).unwrap());
    let action = option::of("[!-~]{1,255}".prop_map(|text| text.parse::<Action>().unwrap()));
    let print = option::of("[0-9a-f]{64}".prop_map(|hex| format!("v1:{hex}").parse::<Fingerprint>().unwrap()));
    let sizes = (any::<u16>(), any::<u64>(), any::<u64>());
    (outcome, units, action, print, sizes).prop_map(|(outcome, units, action, fingerprint, sizes)| Settlement {
        outcome,
        status_code: sizes.0,
        units,
        action,
        response_bytes: sizes.1,
        processing_micros: sizes.2,
        fingerprint,
    })
}

async fn record(url: &str, calls: &[(CallIntent, Settlement)]) {
    let folder = Scratch::new("record-through").unwrap();
    let side = child::open_side(folder.path()).await;
    for (call, settlement) in calls {
        let owed = loop {
            // A burst may outrun the next small segment.
            match side.recorder.intend(call.clone()) {
                Ok(owed) => break owed,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        owed.publish(settlement.clone());
    }
    let (stop, meter) = (CancellationToken::new(), Arc::new(child::meter(url).await));
    stop.cancel();
    let left = side.relay.run(meter, stop, Duration::from_secs(60)).await;
    assert_eq!(left, 0, "something is in the way");
}

async fn each_has_one_row(url: &str, calls: &[(CallIntent, Settlement)]) {
    record(url, calls).await;
    let tables = Tables::open(url).await;
    let rows = tables.rows().await;
    for (call, settlement) in calls {
        let row = &rows.get(&call.event_id.to_string()).unwrap_or_else(|| panic!("{call:?} is nowhere"));
        let billable = row.table != "usage_dead_letters";
        assert_eq!(billable, settlement.outcome.is_billable());
        assert_eq!(row.outcome.as_str(), settlement.outcome.as_str());
    }
    let stored: BTreeMap<_, _> = tables.stored().await.into_iter().collect();
    for (call, settlement) in calls.iter().filter(|(_, settlement)| settlement.outcome.is_billable()) {
        let stored = &stored[&call.event_id.to_string()];
        let expected = (call.tenant_id.to_string(), call.route.to_string(), settlement.units.micro());
        assert_eq!((stored.tenant_id.clone(), stored.route.clone(), stored.units_micro), expected);
    }
    assert_eq!(tables.disagreements().await, Vec::<String>::new(), "what was sealed is what was received");
}

/// Calls of several property cases at once; PostgreSQL costs the same for one as for many.
fn cases() -> Vec<Vec<(CallIntent, Settlement)>> {
    let mut runner = proptest::test_runner::TestRunner::default();
    let strategy = proptest::collection::vec((any_call(), any_settlement()), 1..80);
    (0..6).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[tokio::test]
async fn whatever_is_let_through_has_one_row_on_sqlite() {
    let folder = Scratch::new("record-through-ledger").unwrap();
    let url = database::sqlite(folder.path()).await;
    for calls in cases() {
        each_has_one_row(&url, &calls).await;
    }
}

#[tokio::test]
async fn whatever_is_let_through_has_one_row_on_postgres() {
    let url = database::postgres().await;
    for calls in cases() {
        each_has_one_row(&url, &calls).await;
    }
}
