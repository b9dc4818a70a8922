//! The schema takes a step while a program of the release before writes and watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use goldleaves_ledger::{Ledger, StoreError};
use goldleaves_testkit::migrations::{Plan, Planned, plan};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use sea_orm_migration::prelude::*;

use crate::events::{batch, event};
use crate::harness::{Database, Kind, connect};

const FIRST: &str = "m20261124_000001_usage_ledger";

/// A step of a later release.
struct Later {
    name: &'static str,
    statement: &'static str,
    in_transaction: bool,
}

impl MigrationName for Later {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Later {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.statement).await.map(drop)
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(self.in_transaction)
    }
}

const COLUMN: Later = Later {
    name: "m29990101_000001_column",
    statement: "ALTER TABLE usage_events ADD later VARCHAR(10)",
    in_transaction: true,
};
const INDEX: Later = Later {
    name: "m29990101_000002_index",
    statement: "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_later ON usage_events (later)",
    in_transaction: false,
};
const BREAKING: Later = Later {
    name: "m29990101_000003_breaking",
    statement: "ALTER TABLE usage_events ALTER later TYPE VARCHAR(20)",
    in_transaction: true,
};

/// Fails the test instead of hanging it.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Records one event after the other until told to stop, and counts them. None may fail.
async fn write(ledger: Ledger, (recorded, stop): (Arc<AtomicU64>, Arc<AtomicBool>)) {
    while !stop.load(Ordering::Relaxed) {
        let number = recorded.load(Ordering::Relaxed) + 1;
        let done = ledger.record(&batch(&[event(number)])).await.unwrap();
        assert_eq!(done.inserted, 1);
        recorded.store(number, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_add_end_nobody_and_stop_nothing() {
    let database = Database::new(Kind::Postgres).await;
    let ledger = database.priced().await;
    let (recorded, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writing = tokio::spawn(write(ledger.clone(), (Arc::clone(&recorded), Arc::clone(&stop))));
    let ready = Arc::new(AtomicBool::new(false));
    let (watched, is_ready) = (ledger.clone(), Arc::clone(&ready));
    let watching = tokio::spawn(async move { watched.watch(&is_ready).await });
    until("ready", || ready.load(Ordering::Relaxed)).await;

    // Somebody reads the table and does not end: the step must not wait for that with every writer behind it.
    let reader = connect(&database.url).await;
    let reading = reader.begin().await.unwrap();
    reading.execute_unprepared("SELECT COUNT(*) FROM usage_events").await.unwrap();

    let (url, lines) = (database.url.clone(), Arc::new(Mutex::new(Vec::<String>::new())));
    let said = Arc::clone(&lines);
    let upgrade = tokio::spawn(async move {
        let later = plan().and(Planned::expanding(COLUMN, FIRST)).and(Planned::expanding(INDEX, FIRST));
        later.up(&url, &|line| said.lock().unwrap().push(line.to_owned())).await
    });
    let gave_way = || lines.lock().unwrap().iter().filter(|line| line.contains("gives way")).count();
    until("the step gives way", || gave_way() >= 2).await;
    let before = recorded.load(Ordering::Relaxed);
    until("writers go on", || recorded.load(Ordering::Relaxed) > before + 20).await;
    assert!(!upgrade.is_finished());
    reading.rollback().await.unwrap();
    upgrade.await.unwrap().unwrap();

    // Longer than the next look at the schema takes.
    let before = recorded.load(Ordering::Relaxed);
    until("writers go on after the upgrade", || recorded.load(Ordering::Relaxed) > before + 20).await;
    ledger.check_schema().await.unwrap();
    let valid = "SELECT indisvalid::text FROM pg_index WHERE indexrelid = 'idx_later'::regclass";
    assert_eq!(database.one(valid).await, "true");
    assert!(!watching.is_finished() && ready.load(Ordering::Relaxed));

    let breaking: Plan = plan()
        .and(Planned::expanding(COLUMN, FIRST))
        .and(Planned::expanding(INDEX, FIRST))
        .and(Planned::breaking(BREAKING));
    breaking.up(&database.url, &|_| ()).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(60), watching).await.unwrap().unwrap();
    assert!(matches!(&end, StoreError::SchemaNewer { step } if step == BREAKING.name), "{end:?}");
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    assert_eq!(database.count("usage_events").await as u64, recorded.load(Ordering::Relaxed));
}
