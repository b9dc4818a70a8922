//! The schema takes a step while a program of the release before writes and watches, also over many rows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use goldleaves_ledger::{Ledger, StoreError};
use goldleaves_testkit::migrations::{self, Plan, Planned, plan};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use sea_orm_migration::prelude::*;

use crate::events::{at, batch, event, with_client_id};
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
async fn write(ledger: Ledger, recorded: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let number = recorded.load(Ordering::Relaxed) + 1;
        let done = ledger.record(&batch(&[event(number)])).await.unwrap();
        assert_eq!(done.inserted, 1);
        recorded.store(number, Ordering::Relaxed);
    }
}

/// Somebody restores a backup into a database that was made anew, beside a running program.
#[tokio::test]
async fn a_schema_that_is_gone_for_a_while_ends_nobody() {
    let database = Database::new(Kind::Postgres).await;
    let ledger = database.priced().await;
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let watching = tokio::spawn(async move { ledger.watch(&is_ready).await });
    until("ready", || ready.load(Ordering::Relaxed)).await;
    let other = connect(&database.url).await;
    other.execute_unprepared("ALTER TABLE seaql_migrations RENAME TO kept").await.unwrap();
    until("not ready", || !ready.load(Ordering::Relaxed) || watching.is_finished()).await;
    assert!(!watching.is_finished());
    other.execute_unprepared("ALTER TABLE kept RENAME TO seaql_migrations").await.unwrap();
    until("ready again", || ready.load(Ordering::Relaxed)).await;
    watching.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_add_end_nobody_and_stop_nothing() {
    let database = Database::new(Kind::Postgres).await;
    let ledger = database.priced().await;
    let (recorded, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writing = tokio::spawn(write(ledger.clone(), Arc::clone(&recorded), Arc::clone(&stop)));
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

/// The longest that an event may wait while the schema takes a step; looked at under `GOLDLEAVES_SOAK=1` alone, with a
/// million rows: otherwise there are 50,000, and other tests beside it.
const WAIT_MAX: Duration = Duration::from_secs(2);

fn soak() -> bool {
    std::env::var_os("GOLDLEAVES_SOAK").is_some_and(|value| value != "0")
}

/// Copies of the first row of a table, each with an id, a moment and an hour of its own.
fn copies(table: &str, numbers: &str) -> String {
    format!(
        "INSERT INTO {table} SELECT r.* FROM (SELECT * FROM {table} LIMIT 1) AS e, {numbers} AS n, LATERAL \
         jsonb_populate_record(NULL::{table}, to_jsonb(e) || jsonb_build_object('id', gen_random_uuid(), 'request_id', gen_random_uuid(), \
         'client_request_id', gen_random_uuid(), 'ts', '2026-03-01'::timestamptz + n * interval '1 second', \
         'hour', '2026-03-01'::timestamptz + n * interval '1 hour')) AS r"
    )
}

/// Runs `one` again and again until told to stop; how often, and the longest that one took.
async fn keep_on(stop: Arc<AtomicBool>, mut one: impl AsyncFnMut(u64)) -> (u64, Duration) {
    let (mut done, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        one(done).await;
        (done, longest) = (done + 1, longest.max(started.elapsed()));
    }
    (done, longest)
}

/// Migrates a ledger that has been in use for long: every step but the first beside a worker that knows none of them,
/// then a column and an index on the largest table beside one of today.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_over_many_rows_keep_no_event_waiting() {
    let rows = if soak() { 1_000_000 } else { 50_000 };
    let database = Database::new(Kind::Postgres).await;
    let ledger = database.priced().await;
    let (mut first, mut repeat) = (with_client_id(event(1), "a"), with_client_id(event(2), "a"));
    (first.ts, repeat.ts) = (at("2026-02-01T10:00:00Z"), at("2026-02-01T10:00:01Z"));
    ledger.record(&batch(&[first, repeat])).await.unwrap();
    loop {
        let (step, losses) = migrations::losses(&database.url).await.unwrap().unwrap();
        if step == FIRST {
            break;
        }
        migrations::down(&database.url, losses.rows(), &|_| ()).await.unwrap();
    }
    database.execute(&copies("usage_events", &format!("generate_series(1, {rows})"))).await;
    database.execute(&copies("usage_duplicates", &format!("generate_series(1, {})", rows / 5))).await;
    database.execute(&copies("usage_rollups", &format!("generate_series(1, {})", rows / 5))).await;
    database.execute("ANALYZE").await;

    // What the release before writes: an event and its sum, beside whoever else holds the writers' lock shared.
    let (stop, raw) = (Arc::new(AtomicBool::new(false)), connect(&database.url).await);
    let writing = tokio::spawn(keep_on(Arc::clone(&stop), async move |_| {
        let transaction = raw.begin().await.unwrap();
        transaction.execute_unprepared(&copies("usage_events", "generate_series(1, 1)")).await.unwrap();
        let sum = "UPDATE usage_rollups SET events = events + 1 WHERE hour < '2026-03-01'";
        transaction.execute_unprepared(sum).await.unwrap();
        transaction.commit().await.unwrap();
    }));
    migrations::up(&database.url, &|_| ()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let (old, old_wait) = writing.await.unwrap();
    assert_eq!(database.count("usage_events").await, rows + 1 + usize::try_from(old).unwrap(), "an event is lost");
    let sum = "SELECT CAST(SUM(events) AS text) FROM usage_rollups WHERE hour < '2026-03-01'";
    assert_eq!(database.one(sum).await, (old + 1).to_string());

    let (stop, today) = (Arc::new(AtomicBool::new(false)), database.ledger().await);
    let writing = tokio::spawn(keep_on(Arc::clone(&stop), async move |done| {
        assert_eq!(today.record(&batch(&[event(10 + done)])).await.unwrap().inserted, 1);
    }));
    let later = plan().and(Planned::expanding(COLUMN, FIRST)).and(Planned::expanding(INDEX, FIRST));
    later.up(&database.url, &|_| ()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let (new, new_wait) = writing.await.unwrap();
    let recorded = usize::try_from(old + new).unwrap();
    assert_eq!(database.count("usage_events").await, rows + 1 + recorded, "an event is lost");
    eprintln!(
        "{rows} rows: {old} events of the release before, the longest {old_wait:?}; {new} of this one, {new_wait:?}"
    );
    if soak() {
        assert!(old_wait.max(new_wait) < WAIT_MAX, "an event waited {old_wait:?} or {new_wait:?}");
    }
}
