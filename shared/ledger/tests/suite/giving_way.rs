//! A writer that waits for a lock on PostgreSQL does not make everybody else wait for as long.

use std::time::Duration;

use goldleaves_ledger::Ledger;
use goldleaves_testkit::child::wait_for;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};

use crate::cards::cards;
use crate::events::{event, incoming};
use crate::harness::{Database, Kind, connect, record, rows};

const WRITERS: i64 = 0x474c_0002_0000_0000;

/// A reader of every table, as a dump is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_are_imported_and_usage_is_recorded_beside_an_open_reader() {
    let database = Database::new(Kind::Postgres).await;
    let (worker, importer) = (database.priced().await, database.ledger().await);
    record(&worker, &[incoming(&event(1))]).await;
    let raw = connect(&database.url).await;
    let reader = raw.begin().await.unwrap();
    for table in ["usage_events", "usage_duplicates", "usage_dead_letters", "usage_rollups", "rate_cards"] {
        reader.execute_unprepared(&format!("LOCK TABLE {table} IN ACCESS SHARE MODE")).await.unwrap();
    }
    let import = tokio::spawn(async move { importer.import_rate_cards(&later()).await.unwrap().added.len() });
    for number in 2..=50 {
        record(&worker, &[incoming(&event(number))]).await;
    }
    assert_eq!(import.await.unwrap(), 1);
    let exclusive = "SELECT COUNT(*)::text FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation IS NOT NULL \
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(database.one(exclusive).await, "0");
    reader.commit().await.unwrap();
    assert_eq!(database.count("usage_events").await, 50);
}

/// A writer that hangs in its transaction keeps an import out, and an import that waits keeps all other writers out: it
/// gives way to them, and comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_waits_gives_way() {
    let database = Database::new(Kind::Postgres).await;
    let (worker, importer) = (database.priced().await, database.ledger().await);
    let raw = connect(&database.url).await;
    let hanging = raw.begin().await.unwrap();
    rows(&hanging, &format!("SELECT pg_advisory_xact_lock_shared({WRITERS})::text")).await;
    let import = tokio::spawn(async move { importer.import_rate_cards(&later()).await.unwrap().added.len() });
    wait_until_one_waits(&database).await;
    let recorded = worker.record(&[incoming(&event(1))]).await.unwrap();
    assert_eq!(recorded.inserted, 1, "while the writer hangs");
    assert!(!import.is_finished());
    hanging.commit().await.unwrap();
    assert_eq!(import.await.unwrap(), 1);
}

/// A change of the schema, or somebody at a prompt, locks a table for longer than anybody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_table_asks_again() {
    let database = Database::new(Kind::Postgres).await;
    let ledger: Ledger = database.priced().await;
    let raw = connect(&database.url).await;
    let holder = raw.begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let writer = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.record(&[incoming(&event(1))]).await.unwrap().inserted }
    });
    let reader = tokio::spawn(async move {
        let rows = ledger.store().read("SELECT COUNT(*) AS count FROM usage_events", Default::default()).await;
        rows.unwrap().len()
    });
    wait_until_one_waits(&database).await;
    let gave_up = "SELECT COUNT(*)::text FROM pg_stat_database \
                   WHERE datname = current_database() AND xact_rollback >= 2";
    wait_for("both to give way", Duration::from_secs(60), async || {
        Ok((database.one(gave_up).await != "0").then_some(()))
    })
    .await
    .unwrap();
    holder.commit().await.unwrap();
    assert_eq!((writer.await.unwrap(), reader.await.unwrap()), (1, 1));
}

fn later() -> Vec<goldleaves_pricing::RateCard> {
    cards("25 from 0001-01-01, 50 from 2099-01-01")
}

async fn wait_until_one_waits(database: &Database) {
    let waits = "SELECT COUNT(*)::text FROM pg_locks WHERE NOT granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    wait_for("somebody to wait for a lock", Duration::from_secs(60), async || {
        Ok((database.one(waits).await != "0").then_some(()))
    })
    .await
    .unwrap();
}
