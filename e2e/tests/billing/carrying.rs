//! Carries what bills are made by into a ledger that is built anew: the same bills come out.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};

use goldleaves_billing::{BillingError, ImportStep, Transfer};
use goldleaves_ledger::Incoming;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stripe_desk::{CUSTOMER, Desk, METER};
use crate::world::{Api, Event, Kind, on_both, token};

on_both!(
    a_rebuilt_ledger_has_the_same_bills,
    an_imported_correction_is_late_usage_of_its_period,
    an_imported_void_is_taken_back_at_stripe,
    an_export_beside_writers_is_of_one_moment,
    cards_come_in_under_the_writers_lock_or_not_at_all,
    a_file_is_taken_whole_or_not,
);

/// The default card of a new ledger, as `goldleaves rate-cards export` writes it.
const OLD: &str =
    r#"{"version":1,"card":"default","cents_per_unit":"25","effective_from":"0001-01-01T00:00:00.000000Z"}"#;

async fn export(api: &Api) -> Vec<String> {
    let mut lines = Vec::new();
    let count = api.billing.export(|line| -> Result<(), BillingError> {
        lines.push(line.to_owned());
        Ok(())
    });
    assert_eq!(usize::try_from(count.await.unwrap()).unwrap(), lines.len());
    lines
}

/// Returns what an import came to, and the corrections that wait.
async fn import(api: &Api, lines: &[String]) -> Result<(Transfer, Vec<String>), BillingError> {
    let mut waiting = Vec::new();
    let mut file = Cursor::new(lines.join("\n"));
    let done = api.billing.import(&mut file, |step| {
        if let ImportStep::Waits(name) = step {
            waiting.push(name.to_owned());
        }
    });
    let transfer = done.await?;
    assert_eq!(transfer.waiting, waiting.len() as u64);
    Ok((transfer, waiting))
}

async fn refusal(api: &Api, lines: &[String]) -> String {
    import(api, lines).await.unwrap_err().to_string()
}

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
    let lines = export(&api).await;

    // The other database, its events in another order, the import in between.
    let other = Api::on(if api.is_sqlite() { Kind::Postgres } else { Kind::Sqlite }).await;
    other.record(&events[3..]).await;
    let (_, waiting) = import(&other, &lines).await.unwrap();
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    assert!(waiting.iter().any(|name| name.contains(&events[1].id.to_string())), "{waiting:?}");
    other.record(&events[..3]).await;
    let marks = async || other.number("SELECT CAST(SUM(changes) AS BIGINT) FROM usage_late_hours").await;
    let before = marks().await;
    let (_, waiting) = import(&other, &lines).await.unwrap();
    assert_eq!(waiting, Vec::<String>::new());
    assert_eq!(bills(&other).await, wanted);
    let added = "SELECT COUNT(*) FROM usage_corrections WHERE kind <> 'amount'";
    assert_eq!(marks().await - before, other.number(added).await, "each row marks its hour");
    let before = marks().await;
    let (again, _) = import(&other, &lines).await.unwrap();
    assert!(again.tables.iter().all(|table| table.added == 0), "{again:?}");
    assert_eq!(marks().await, before, "what is there marks nothing");
    assert_eq!(bills(&other).await, wanted);
    // What was made of the corrections has ids of its own, and the card was there; all else is the same line for line.
    let same = |lines: &[String]| {
        let mut lines: Vec<String> =
            lines.iter().filter(|line| !line.contains("\"follow\"") && !line.contains("rate_cards")).cloned().collect();
        lines.sort_unstable();
        lines
    };
    assert!(same(&export(&other).await) == same(&lines));
    check_refusals(&other).await;
}

/// A correction of acme, as an export writes it.
fn correction(members: &Value) -> String {
    let mut line = json!({
        "table": "usage_corrections", "id": Uuid::now_v7().to_string(), "tenant_id": "acme", "event_id": null, "follows": null,
        "route": "", "action": "", "rate_version": "0", "events": "0", "units_micro": "0", "cents": "0", "actor": "ann",
        "reason": "carried", "created_at": "2026-03-06T10:00:00.000000Z",
    });
    let (all, given) = (line.as_object_mut().unwrap(), members.as_object().unwrap());
    all.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
    line.to_string()
}

async fn an_imported_correction_is_late_usage_of_its_period(api: Api) {
    let admin = token("ops", &["admin"]);
    // Nothing else is late in the period that is closed.
    api.record(&[Event::at("acme", "2026-03-05T10:00:00Z")]).await;
    let closed = json!({"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-02-01T00:00:00Z", "reason": "over"});
    assert_eq!(api.put("/billing/periods/acme/1", &admin, &closed).await.status, 201);
    let open = async || api.get("/billing/invoice/acme", &admin).await.json()["total_cost_cents"].as_i64().unwrap();
    let before = open().await;
    let amount = correction(&json!({"kind": "amount", "ts": "2026-01-10T10:10:00.000000Z", "cents": "-70"}));
    assert_eq!(import(&api, &[amount]).await.unwrap().0.tables[0].added, 1);
    let periods = api.get("/billing/periods/acme", &admin).await.json();
    assert_eq!(periods["items"][0]["unbilled_late_cents"], -70, "{periods}");
    assert_eq!(open().await, before - 70);
    let next = json!({"ends_at": "2026-03-01T00:00:00Z", "reason": "over"});
    let next = api.put("/billing/periods/acme/2", &admin, &next).await;
    assert_eq!((next.status, &next.json()["total_cost_cents"]), (201, &json!(-70)), "{}", next.text);
}

async fn an_imported_void_is_taken_back_at_stripe(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    let event = desk.api.used("acme", "/a", "3", "2026-03-15T12:32:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 3_000_000);
    // By then nothing but a mark has anybody look at the hour again.
    desk.clock.set("2026-03-15T17:06:00Z");
    desk.settle().await;
    desk.settle().await;
    let void = correction(&json!({
        "kind": "void", "event_id": event.to_string(), "ts": "2026-03-15T12:32:00.000000Z", "route": "/a", "action": "read",
        "rate_version": "1", "events": "-1", "units_micro": "-3000000",
    }));
    assert_eq!(import(&desk.api, &[void]).await.unwrap().0.tables[0].added, 1);
    assert_eq!(
        desk.api.number("SELECT COUNT(*) FROM usage_corrections").await,
        1,
        "no row follows, which would mark the hour"
    );
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), 0);
}

/// An import that contradicts what is there, or can't be read, changes nothing and is named.
async fn check_refusals(other: &Api) {
    assert_eq!(import(other, &[OLD.to_owned()]).await.unwrap().0.tables[0].there, 1);
    let zone = r#"{"table":"billing_tenants","tenant_id":"acme","time_zone":"Europe/Paris","updated_at":"2026-01-01T00:00:00.000000Z"}"#;
    for (line, words) in [
        (OLD.replace("25", "26"), "line 2: the ledger has usage that is priced by other cards"),
        (OLD.replace("\"25\"", "\"a\""), "line 2: cents_per_unit is "),
        (
            zone.to_owned(),
            "line 2: billing_tenants is there already, and its time_zone is Europe/Berlin, not Europe/Paris",
        ),
        ("{}".to_owned(), "line 2: it is no rate card: missing field `version`"),
        ("[]".to_owned(), "line 2: invalid type: sequence"),
        ("{".to_owned(), "line 2: EOF while parsing"),
        (r#"{"table":"usage_events"}"#.to_owned(), "line 2: \"usage_events\" is no table of an export"),
        (r#"{"table":7}"#.to_owned(), "line 2: table must be a string"),
        (r#"{"table":"billing_tenants","zone":"UTC"}"#.to_owned(), "line 2: \"zone\" is no column of billing_tenants"),
        (r#"{"table":"billing_tenants","tenant_id":7}"#.to_owned(), "line 2: tenant_id must be a string or null"),
        (zone.replace("2026-01-01T", "soon"), "line 2: updated_at can't be \"soon"),
        ("x".repeat(1024 * 1024), "line 2: it is longer than 1 MiB"),
    ] {
        // Behind a good line, which comes to nothing either.
        let error = refusal(other, &[zone.replace("acme", "newcomer"), line.clone()]).await;
        assert!(error.contains(words), "{line}: {error}");
        assert_eq!(
            other.number("SELECT COUNT(*) FROM billing_tenants WHERE tenant_id = 'newcomer'").await,
            0,
            "{line}"
        );
    }
}

/// Rows come while an export is under way: it has all that were there when it began, each once, and none that came later.
async fn an_export_beside_writers_is_of_one_moment(api: Api) {
    const BEFORE: usize = 2_500;
    let correction = |number: u128| {
        format!(
            "INSERT INTO usage_corrections (id, tenant_id, kind, ts, route, action, rate_version, events, units_micro, \
             cents, actor, reason, created_at) VALUES ('{}', 'acme', 'amount', '2026-03-03T10:00:00.000000Z', '', '', 0, 0, \
             0, 1, 'ann', 'one of many', '2026-03-03T10:00:00.000000Z')",
            Uuid::from_u128(number)
        )
    };
    // Rows that come later stand before, between and behind those that were there.
    let inserts: Vec<String> = (0..BEFORE as u128).map(|at| correction(at * 10 + 1_000)).collect();
    api.execute(&inserts.join(";")).await;
    let (mut ids, mut added) = (Vec::new(), 0_u128);
    let (wishes, mut wished) = tokio::sync::mpsc::unbounded_channel::<String>();
    let (written, done) = std::sync::mpsc::channel();
    let raw = sea_orm::Database::connect(api.url()).await.unwrap();
    let writer = tokio::spawn(async move {
        while let Some(sql) = wished.recv().await {
            sea_orm::ConnectionTrait::execute_unprepared(&raw, &sql).await.unwrap();
            written.send(()).unwrap();
        }
    });
    let count = api.billing.export(|line| -> Result<(), BillingError> {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["table"] == "usage_corrections" {
            ids.push(line["id"].as_str().unwrap().to_owned());
            if ids.len() % 500 == 1 {
                added += 1;
                let (early, late) = (correction(added), correction(900_000 + added));
                let tenant = format!(
                    "INSERT INTO billing_tenants VALUES ('late-{added}', 'UTC', '2026-03-03T10:00:00.000000Z')"
                );
                wishes.send([early, late, tenant].join(";")).unwrap();
                tokio::task::block_in_place(|| done.recv().unwrap());
            }
        }
        assert!(line["tenant_id"].as_str().is_none_or(|tenant| !tenant.starts_with("late-")), "{line}");
        Ok(())
    });
    count.await.unwrap();
    drop(wishes);
    writer.await.unwrap();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((all, ids.len()), (BEFORE, BEFORE));
    assert_eq!(export(&api).await.iter().filter(|line| line.contains("one of many")).count(), BEFORE + 10);
}

/// A card is not taken in behind what it would have priced, and whoever records beside an import prices by what is there.
async fn cards_come_in_under_the_writers_lock_or_not_at_all(api: Api) {
    let card = |version: u32, from: &str| {
        json!({
            "table": "rate_cards", "version": version.to_string(), "card": "default", "rate_micro_cents": "50000000",
            "effective_from": from, "created_at": "2026-01-01T00:00:00.000000Z", "tenant_id": "", "route": "",
            "action": "", "model": "per_unit", "origin": "api", "actor": "ann", "reason": "dearer",
        })
        .to_string()
    };
    api.record(&[Event::at("acme", "2026-03-03T10:30:00Z")]).await;
    let error = refusal(&api, &[card(2, "2026-03-03T10:15:00.000000Z")]).await;
    assert!(error.starts_with("line 1: the ledger has usage of 2026-03-03T10:15:00.000000Z or later"), "{error}");
    assert_eq!(api.number("SELECT COUNT(*) FROM rate_cards").await, 1);
    // Tiers, as the other command writes them.
    let tiers = r#"{"version":2,"card":"selector","effective_from":"2026-06-03T00:00:00.000000Z","tenant_id":"acme","pricing":{"model":"package","package_units":"3","cents_per_package":"17","free_units":"2"},"origin":"api"}"#;
    let stop = AtomicBool::new(false);
    let writer = async {
        let mut recorded = 0;
        while !stop.load(Ordering::Relaxed) {
            let batch: Vec<Incoming> = (0..20).map(|_| Event::at("acme", "2026-05-03T10:30:00Z").incoming()).collect();
            // Whatever is recorded has the price of the moment; a batch that met the import is offered again.
            if api.ledger.record(&batch).await.is_ok() {
                recorded += 20;
            }
        }
        recorded
    };
    let importer = async {
        let lines = [tiers.to_owned(), card(3, "2026-06-01T00:00:00.000000Z")];
        let (first, _) = import(&api, &lines).await.unwrap();
        let (second, _) = import(&api, &lines).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        (first, second)
    };
    let (recorded, (first, second)) = futures_util::future::join(writer, importer).await;
    assert_eq!((first.tables[0].added, second.tables[0].added, second.tables[0].there), (2, 0, 2));
    let priced = "SELECT COUNT(*) FROM usage_events WHERE ts >= '2026-05-01T00:00:00.000000Z'";
    assert_eq!(api.number(priced).await, recorded);
    // A card that comes back beneath the newest one: the worker, which holds the newest, prices by it at once.
    api.execute("DELETE FROM rate_cards WHERE version = 2").await;
    api.ledger.clone().record(&[Event::at("other", "2026-04-02T10:00:00Z").incoming()]).await.unwrap();
    let worker = goldleaves_ledger::Ledger::new(api.ledger.store().clone());
    worker.record(&[Event::at("other", "2026-04-02T10:00:00Z").incoming()]).await.unwrap();
    let fixed = |line: &str| line.replace("2026-06-03", "2026-07-03");
    assert_eq!(import(&api, &[fixed(tiers)]).await.unwrap().0.tables[0].added, 1);
    let late = Event::at("acme", "2026-07-04T10:00:00Z");
    worker.record(&[late.incoming()]).await.unwrap();
    assert_eq!(api.number(&format!("SELECT rate_version FROM usage_events WHERE id = '{}'", late.id)).await, 2);
}

/// All rows of a file come in one transaction, and after a mistake is mended, the same file again.
async fn a_file_is_taken_whole_or_not(api: Api) {
    let limit = |tenant: &str, version: u32, cents: &str| {
        json!({
            "table": "usage_limits", "tenant_id": tenant, "period": "month", "version": version.to_string(),
            "hard_cents": cents, "actor": "ann", "reason": "a contract", "created_at": "2026-03-01T00:00:00.000000Z",
        })
        .to_string()
    };
    let mut lines: Vec<String> = (1..=1_200).map(|version| limit("acme", version, "500")).collect();
    lines.push(limit("acme", 7, "600"));
    let error = refusal(&api, &lines).await;
    assert!(error.contains("line 1201: usage_limits is there already, and its hard_cents is 500, not 600"), "{error}");
    assert_eq!(api.number("SELECT COUNT(*) FROM usage_limits").await, 0);
    lines[1_200] = limit("other", 7, "600");
    let (done, _) = import(&api, &lines).await.unwrap();
    assert_eq!((done.tables[0].added, done.tables[0].there), (1_201, 0));
    // Versions are ordered as numbers, over the pages too.
    let versions: Vec<u32> = export(&api)
        .await
        .iter()
        .filter(|line| line.contains("usage_limits"))
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["version"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(versions, (1..=1_200).chain([7]).collect::<Vec<_>>());
    let (again, _) = import(&api, &lines).await.unwrap();
    assert_eq!((again.tables[0].added, again.tables[0].there), (0, 1_201));
}
