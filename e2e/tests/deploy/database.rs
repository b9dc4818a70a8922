//! `deploy/postgres.conf` and `deploy/roles.sql` in a real PostgreSQL.

use std::process::Command;

use bytes::Bytes;
use goldleaves_billing::stripe::rules::Outcome;
use goldleaves_billing::stripe::{Books, BooksClock, LaneWork, NewMapping, NewMeter, StoredHint};
use goldleaves_billing::{
    Author, Billing, By, Dimension, EventFilter, EventState, METER, NewCorrection, NewPeriod, Order, Page, ReportOf,
    TenantSort, Wanted,
};
use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_ledger::{Incoming, Ledger, Recorded, StoreOptions};
use goldleaves_pricing::TimeZone;
use goldleaves_store::Store;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_toolbox::Toolbox;
use sea_orm::{ConnectionTrait as _, Database};
use uuid::Uuid;

use crate::text;

/// Returns the server's value of a setting with this file.
fn shown(conf: &str, setting: &str) -> Result<String, String> {
    let scratch = Scratch::new("postgres-conf").unwrap();
    std::fs::write(scratch.join("postgresql.conf"), conf).unwrap();
    let mut command = Command::new(Toolbox::of_target().postgres_bin_dir().unwrap().join("postgres"));
    command.args(["-C", setting, "-D"]).arg(scratch.path());
    command.arg("-c").arg(format!("config_file={}", scratch.join("postgresql.conf").display()));
    let output = command.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn postgresql_takes_every_setting_of_the_file() {
    let conf = text("deploy/postgres.conf");
    let wanted = [
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("wal_compression", "lz4"),
        ("listen_addresses", "*"),
        ("TimeZone", "UTC"),
    ];
    for (setting, value) in wanted {
        assert_eq!(shown(&conf, setting).as_deref(), Ok(value), "{setting}");
    }
    let broken = conf.replace("wal_compression", "wal_compresion");
    assert!(shown(&broken, "fsync").unwrap_err().contains("wal_compresion"), "a misspelt setting is refused");
}

#[test]
fn every_setting_has_its_reason_above_it() {
    for path in ["deploy/postgres.conf", "deploy/nats.conf"] {
        let conf = text(path);
        let paragraphs: Vec<&str> = conf.split("\n\n").collect();
        for paragraph in &paragraphs {
            assert!(
                paragraph.trim_start().starts_with('#') || paragraph.contains("\n  #") || paragraph.contains(" # "),
                "{path}: {paragraph}"
            );
        }
        assert!(paragraphs.len() > 4, "{path}");
    }
}

/// A message as gateways send them, under an id that ends in these two digits.
fn golden(name: &str, id: &str) -> String {
    let name = match name {
        "newer" => "event-v2".to_owned(),
        "seal" => "seal-v1".to_owned(),
        outcome => format!("event-v1-{outcome}"),
    };
    let message = text(&format!("shared/domain/tests/golden/{name}.json"));
    message.replace("01935b1c-0000-7000-8000-000000000001", &format!("01935b1c-0000-7000-8000-0000000000{id}"))
}

async fn record(ledger: &Ledger, messages: &[String]) -> Recorded {
    let batch: Vec<Incoming> =
        messages.iter().map(|message| Incoming::parse(Bytes::from(message.clone().into_bytes()))).collect();
    ledger.record(&batch).await.unwrap()
}

#[tokio::test]
async fn the_logins_of_worker_and_billing_are_enough_and_no_more() {
    let server = Postgres::shared().await.unwrap();
    let url = server.database().await.unwrap();
    let owner = Database::connect(&url).await.unwrap();
    let ledger = Ledger::connect(&url, StoreOptions::default()).await.unwrap();
    ledger.set_rate("25".parse().unwrap(), "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()).await.unwrap();
    let roles = text("deploy/roles.sql").replace(":'worker_password'", "'w'").replace(":'billing_password'", "'b'");
    // Twice: it must be possible to run it again.
    owner.execute_unprepared(&roles).await.unwrap();
    owner.execute_unprepared(&roles).await.unwrap();

    let as_role = |role: &str| url.replace("//goldleaves@", &format!("//{role}:x@"));
    let worker = Ledger::connect(&as_role("goldleaves_worker"), StoreOptions::default()).await.unwrap();
    worker.check_schema().await.unwrap();
    let recorded = record(&worker, &[golden("unknown", "a1"), golden("newer", "a2"), golden("seal", "a3")]).await;
    assert_eq!(recorded.seals, 1, "{recorded:?}");
    assert_eq!(recorded.set_aside.len(), 2, "{recorded:?}");
    // It replaces a dead letter, and the next one displaces it: rows move between the tables.
    let recorded = record(&worker, &[golden("completed", "a1")]).await;
    assert_eq!(recorded.inserted, 1, "{recorded:?}");
    let earlier = golden("completed", "a4").replace("12:34:56", "12:34:55").replace("\"seq\":41", "\"seq\":42");
    let recorded = record(&worker, &[earlier]).await;
    assert_eq!(recorded.displaced, 1, "{recorded:?}");

    bill_as(&as_role("goldleaves_billing")).await;
    for (role, sql) in forbidden() {
        let connection = Database::connect(as_role(role)).await.unwrap();
        let refusal = connection.execute_unprepared(&sql).await.unwrap_err().to_string();
        assert!(refusal.contains("permission denied") || refusal.contains("must be owner"), "{role}: {sql}: {refusal}");
    }
    for (role, sql) in [
        ("goldleaves_worker", attempt("INSERT", "usage_corrections")),
        ("goldleaves_worker", attempt("UPDATE", "usage_late_hours")),
        ("goldleaves_billing", attempt("INSERT", "usage_corrections")),
        ("goldleaves_billing", attempt("INSERT", "billing_audit")),
        ("goldleaves_billing", attempt("UPDATE", "stripe_lanes")),
        ("goldleaves_billing", "UPDATE stripe_pushes SET state = 'pushed' WHERE false".to_owned()),
        ("goldleaves_billing", attempt("DELETE", "budget_leases")),
        ("goldleaves_billing", attempt("DELETE", "stripe_events")),
    ] {
        let connection = Database::connect(as_role(role)).await.unwrap();
        connection.execute_unprepared(&sql).await.unwrap();
    }
}

/// Everything that is written on the way to Stripe, with this login.
async fn push_as(books: &Books, tenant: &TenantId) {
    let author = Author::program();
    let meter = NewMeter {
        meter: METER.to_owned(),
        event_name: METER.to_owned(),
        stripe_meter_id: "mtr_1".to_owned(),
        route: String::new(),
        places: 6,
        is_checked: true,
    };
    books.put_meter(&meter, &author, "{}").await.unwrap();
    let mapping = NewMapping {
        tenant_id: tenant.clone(),
        meter: METER.to_owned(),
        from_hour: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        stripe_customer_id: Some("cus_1".to_owned()),
    };
    books.map(&mapping, &author, "{}").await.unwrap();
    books.seal_late(None).await.unwrap();
    books.livemode(Some(false)).await.unwrap();
    let claim = books.claim(LaneWork::Send, 10, books.now().await.unwrap()).await.unwrap().remove(0);
    let (rows, _) = books.due_rows(&claim.lane.key, LaneWork::Send).await.unwrap();
    let id = rows[0].id;
    books.read_first(&claim, id).await.unwrap();
    assert!(books.attempt(&claim, id).await.unwrap().is_some());
    books.answered(id, &Outcome::Taken, 0.5).await.unwrap();
    books.read_back(&claim, id, 0).await.unwrap();
    books.compared(&claim.lane.key, 0, 0).await.unwrap();
    books.block_all("key_refused").await.unwrap();
    books.release(&claim).await.unwrap();
    books.adopt(&claim.lane.key, &[], &author, "{}").await.unwrap();
    let hint = StoredHint { id: "evt_1".to_owned(), kind: "x".to_owned(), related_id: None };
    assert!(books.hint(&hint).await.unwrap());
    books.open_hints().await.unwrap();
    books.hint_done("evt_1").await.unwrap();
    books.read_all_of("mtr_1").await.unwrap();
    books.uncheck(None).await.unwrap();
}

/// Everything that billing does, with this login.
async fn bill_as(url: &str) {
    let store = Store::connect(url, StoreOptions::default()).await.unwrap();
    let billing = Billing::new(store, TimeZone::UTC);
    let tenant: TenantId = "org_123".parse().unwrap();
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let period = Period::new(time("2026-01-01T00:00:00Z"), time("2026-02-01T00:00:00Z")).unwrap();
    let author = Author::program();
    let report = billing.report(&tenant, &period, &[Dimension::User], TimeZone::UTC).await.unwrap();
    assert_eq!(report.summary.total_events, 1);
    let books = Books::new(billing.clone(), BooksClock::Database);
    let of = ReportOf { tenant: &tenant, meter: METER, period: &period };
    books.report_usage(&of, time("2026-02-02T00:00:00Z")).await.unwrap();
    push_as(&books, &tenant).await;
    billing.set_time_zone(&tenant, "Asia/Kolkata".parse().unwrap(), &author, "{}").await.unwrap();
    let event_id = "01935b1c-0000-7000-8000-0000000000a4".parse().unwrap();
    for wanted in [
        Wanted::Adjust { event_id, units_micro: 1 },
        Wanted::Amount { cents: 5, ts: Some(time("2026-01-05T00:00:00Z")) },
        Wanted::Void { event_id },
    ] {
        let (id, reason) = (Uuid::now_v7(), "a test".to_owned());
        let new = NewCorrection { id, tenant_id: tenant.clone(), wanted, reason };
        billing.correct(&new, &author, "{}").await.unwrap();
    }
    let reason = "the month is over".to_owned();
    let new = NewPeriod { tenant_id: tenant.clone(), number: 1, starts_at: None, ends_at: None, reason };
    assert!(billing.close_period(&new, &author, "{}").await.unwrap().is_new);
    billing.close_due_periods(1).await.unwrap();
    let page = Page { limit: 10, cursor: None };
    assert_eq!(billing.corrections(&tenant, &period, &page).await.unwrap().items.len(), 3);
    billing.periods(&tenant, &page).await.unwrap();
    billing.late_hours(&tenant, Some(&period), &page).await.unwrap();
    billing.tenants(&period, TenantSort::Cost, &page).await.unwrap();
    billing.find_event(&tenant, &event_id.to_string(), By::Either).await.unwrap();
    let state = EventState::All;
    let filter =
        EventFilter { range: period, state, route: None, action: None, user_id: None, order: Order::Ascending };
    assert!(!billing.usage_events(&tenant, &filter, &page).await.unwrap().items.is_empty());
    billing.audit(&period, None, &page).await.unwrap();
    billing.store().close().await;
}

/// The statements that each login must be refused.
fn forbidden() -> Vec<(&'static str, String)> {
    let (worker, billing) = ("goldleaves_worker", "goldleaves_billing");
    let mut forbidden = vec![
        (worker, "INSERT INTO rate_cards (version, rate_micro_cents, effective_from) VALUES (9, 0, now())".to_owned()),
        (worker, "DROP TABLE usage_events".to_owned()),
        (worker, "SELECT * FROM stripe_pushes".to_owned()),
        (billing, "UPDATE stripe_pushes SET units_micro = 0".to_owned()),
        (billing, "UPDATE stripe_pushes SET tenant_id = 'other'".to_owned()),
        (billing, "ALTER TABLE usage_corrections ADD more TEXT".to_owned()),
    ];
    let every = |role: &'static str, verbs: &[&str], tables: &[&str]| -> Vec<(&'static str, String)> {
        let pairs = verbs.iter().flat_map(|verb| tables.iter().map(move |table| (*verb, *table)));
        pairs.map(|(verb, table)| (role, attempt(verb, table))).collect()
    };
    let events = ["usage_events", "usage_duplicates", "usage_dead_letters", "usage_rollups", "usage_receipts"];
    let bills = ["rate_cards", "usage_corrections", "billing_periods", "billing_lines", "billing_audit"];
    let rows = ["usage_limits", "stripe_mappings"];
    let state = ["billing_tenants", "usage_late_hours", "stripe_meters", "stripe_lanes", "stripe_pushes"];
    forbidden.extend(every(billing, &["INSERT", "UPDATE", "DELETE", "TRUNCATE"], &events));
    forbidden.extend(every(billing, &["UPDATE", "DELETE", "TRUNCATE"], &bills));
    forbidden.extend(every(billing, &["UPDATE", "DELETE"], &rows));
    forbidden.extend(every(billing, &["DELETE", "TRUNCATE"], &state));
    forbidden.extend(every(
        billing,
        &["INSERT", "UPDATE", "DELETE"],
        &["usage_archives", "usage_archived", "schema_steps"],
    ));
    forbidden.extend(every(worker, &["UPDATE", "DELETE"], &bills));
    forbidden.extend(every(
        worker,
        &["INSERT"],
        &["billing_periods", "billing_lines", "billing_audit", "usage_limits"],
    ));
    forbidden
}

/// A statement that asks for a right on a table and changes nothing.
fn attempt(verb: &str, table: &str) -> String {
    match verb {
        "INSERT" => format!("INSERT INTO {table} SELECT * FROM {table} WHERE false"),
        "UPDATE" => {
            let column = match table {
                "rate_cards" => "version",
                "usage_archives" => "state",
                "usage_receipts" => "block",
                "schema_steps" => "step",
                "usage_archived" | "usage_dead_letters" => "id",
                "stripe_lanes" => "event_name",
                _ => "tenant_id",
            };
            format!("UPDATE {table} SET {column} = {column} WHERE false")
        }
        "DELETE" => format!("DELETE FROM {table} WHERE false"),
        _ => format!("TRUNCATE {table}"),
    }
}
