//! What bills are made by, carried into a ledger that is built anew: the same bills come out.

use serde_json::json;
use uuid::Uuid;

use crate::world::{Api, Event, Kind, on_both, token};

on_both!(a_rebuilt_ledger_has_the_same_bills);

async fn a_rebuilt_ledger_has_the_same_bills(api: Api) {
    let call = |time: &str, request: Option<&str>| Event {
        request: request.map(str::to_owned),
        units: "2.5".to_owned(),
        ..Event::at("acme", time)
    };
    let events = [
        call("2026-03-03T10:05:00Z", Some("order-1")),
        call("2026-03-03T10:10:00Z", Some("order-1")),
        call("2026-03-04T10:00:00Z", None),
        call("2026-03-05T10:00:00Z", None),
        call("2026-03-03T10:00:00Z", Some("order-1")),
    ];
    api.record(&events[..4]).await;
    let admin = token("ops", &["admin"]);
    for body in [
        json!({"kind": "void", "tenant_id": "acme", "event_id": events[1].id, "reason": "a test call"}),
        json!({"kind": "adjust", "tenant_id": "acme", "event_id": events[2].id, "units": "-1", "reason": "measured"}),
        json!({"kind": "amount", "tenant_id": "acme", "cents": 7, "ts": "2026-03-04", "reason": "a fee"}),
    ] {
        let answer = api.put(&format!("/billing/corrections/{}", Uuid::now_v7()), &admin, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let zone = json!({"time_zone": "Europe/Berlin", "reason": "they are there"});
    assert_eq!(api.put("/billing/tenants/acme", &admin, &zone).await.status, 201);
    assert_eq!(api.put("/billing/periods/acme/1", &admin, &json!({"reason": "over"})).await.status, 201);
    // It displaces the one whose repeat was named: a row follows.
    assert_eq!(api.record(&events[4..]).await.displaced, 1);
    let bills = async |api: &Api| {
        let mut bills = Vec::new();
        for path in ["invoice/acme/1", "invoice/acme", "usage-report/acme?month=2026-03&group_by=day", "periods/acme"] {
            bills.push(api.get(&format!("/billing/{path}"), &admin).await.text);
        }
        bills
    };
    let wanted = bills(&api).await;
    let mut lines = Vec::new();
    let count = api
        .billing
        .export(|line| -> Result<(), goldleaves_billing::BillingError> {
            lines.push(line.to_owned());
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(usize::try_from(count).unwrap(), lines.len());

    // The other database, its events in another order, the import in between.
    let other = Api::on(if api.is_sqlite() { Kind::Postgres } else { Kind::Sqlite }).await;
    other.record(&events[3..]).await;
    let first = other.billing.import(&lines).await.unwrap();
    assert_eq!(first.waiting.len(), 2, "{first:?}");
    assert!(first.waiting.iter().any(|name| name.contains(&events[1].id.to_string())), "{first:?}");
    other.record(&events[..3]).await;
    let second = other.billing.import(&lines).await.unwrap();
    assert_eq!(second.waiting, Vec::<String>::new());
    assert_eq!(bills(&other).await, wanted);
    let again = other.billing.import(&lines).await.unwrap();
    assert!(again.tables.iter().all(|table| table.added == 0), "{again:?}");
    check_refusals(&other).await;
}

/// What contradicts what is there, or can't be read, changes nothing and is named.
async fn check_refusals(other: &Api) {
    let old = r#"{"version":1,"card":"default","cents_per_unit":"25","effective_from":"0001-01-01T00:00:00.000000Z"}"#;
    assert_eq!(other.billing.import(&[old.to_owned()]).await.unwrap().tables[0].there, 1);
    for (line, words) in [
        (old.replace("25", "26"), "line 1: rate_cards is there already, and its rate_micro_cents is 25000000"),
        ("{}".to_owned(), "line 1: version must be an integer"),
        (r#"{"table":"usage_events"}"#.to_owned(), "is no table of an export"),
        (r#"{"table":"billing_tenants","zone":"UTC"}"#.to_owned(), "\"zone\" is no column of billing_tenants"),
    ] {
        let error = other.billing.import(std::slice::from_ref(&line)).await.unwrap_err().to_string();
        assert!(error.contains(words), "{line}: {error}");
    }
}
