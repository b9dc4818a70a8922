//! `deploy/postgres.conf` and `deploy/roles.sql` in a real PostgreSQL.

use std::process::Command;

use bytes::Bytes;
use goldleaves_domain::{Period, Timestamp};
use goldleaves_ledger::{Incoming, Ledger, Recorded, StoreOptions};
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_toolbox::Toolbox;
use sea_orm::{ConnectionTrait as _, Database};

use crate::text;

/// What the server says that a setting is, with this file.
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
    assert_eq!((recorded.seals, recorded.set_aside.len()), (1, 2), "{recorded:?}");
    // It replaces a dead letter, and the next one displaces it: rows move between the tables.
    let recorded = record(&worker, &[golden("completed", "a1")]).await;
    assert_eq!(recorded.inserted, 1, "{recorded:?}");
    let earlier = golden("completed", "a4").replace("12:34:56", "12:34:55").replace("\"seq\":41", "\"seq\":42");
    let recorded = record(&worker, &[earlier]).await;
    assert_eq!(recorded.displaced, 1, "{recorded:?}");

    let billing = Ledger::connect(&as_role("goldleaves_billing"), StoreOptions::default()).await.unwrap();
    billing.check_schema().await.unwrap();
    let tenant = "org_123".parse().unwrap();
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let period = Period::new(time("2026-01-01T00:00:00Z"), time("2026-02-01T00:00:00Z")).unwrap();
    assert_eq!(billing.usage_report(&tenant, &period).await.unwrap().summary.total_events, 1);
    billing.report_usage(&tenant, &period, time("2026-02-02T00:00:00Z")).await.unwrap();

    for (role, sql) in [
        (
            "goldleaves_worker",
            "INSERT INTO rate_cards (version, rate_micro_cents, effective_from) VALUES (9, 0, now())",
        ),
        ("goldleaves_worker", "DROP TABLE usage_events"),
        ("goldleaves_worker", "SELECT * FROM stripe_pushes"),
        ("goldleaves_billing", "DELETE FROM usage_events"),
        ("goldleaves_billing", "UPDATE usage_rollups SET events = 0"),
        ("goldleaves_billing", "UPDATE stripe_pushes SET units_micro = 0"),
    ] {
        let connection = Database::connect(as_role(role)).await.unwrap();
        let refusal = connection.execute_unprepared(sql).await.unwrap_err().to_string();
        assert!(refusal.contains("permission denied") || refusal.contains("must be owner"), "{role}: {sql}: {refusal}");
    }
}
