//! Several workers with the same events at the same time.

use std::time::Duration;

use goldleaves_domain::{Outcome, UsageEvent};
use goldleaves_ledger::Incoming;
use rand::Rng as _;
use rand::seq::SliceRandom as _;

use crate::events::{batch, event, fingerprint, incoming, with_client_id};
use crate::harness::{Database, Kind, Verdicts, connect, on_both, record, rows};

on_both!(four_workers_with_shuffled_repeats_agree, workers_meet_over_dead_letters);

/// Two tenants that use each other's ids, few ids, some of them made by the gateway.
fn contended(count: u64) -> Vec<UsageEvent> {
    let mut random = rand::rng();
    (1..=count)
        .map(|number| {
            let mut event = event(number);
            event.tenant_id = ["acme", "other"][random.random_range(0..2)].parse().unwrap();
            event.fingerprint = Some(fingerprint(random.random_range(0..3)));
            event.route = ["/api/v1/ai", "/api/v1/documents"][random.random_range(0..2)].parse().unwrap();
            event.units = random.random_range(0..4).to_string().parse().unwrap();
            event.outcome = [Outcome::Completed, Outcome::Completed, Outcome::ClientAborted][random.random_range(0..3)];
            event.ts = event.ts.plus_micros(random.random_range(0..30) * 3_600_000_000).unwrap();
            match random.random_range(0..4) {
                0 => event,
                1 => with_client_id(event, "constant"),
                _ => with_client_id(event, &format!("c{}", random.random_range(0..count / 4))),
            }
        })
        .collect()
}

async fn work(database: &Database, workers: usize, messages: &[Incoming], size: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let ledger = database.ledger().await;
        let mut messages = messages.to_vec();
        messages.shuffle(&mut rand::rng());
        tasks.spawn(async move {
            for piece in messages.chunks(size) {
                record(&ledger, piece).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn deadlocks(database: &Database) -> usize {
    match database.kind {
        Kind::Sqlite => 0,
        Kind::Postgres => {
            let sql = "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()";
            database.one(sql).await.parse().unwrap()
        }
    }
}

async fn four_workers_with_shuffled_repeats_agree(database: Database) {
    database.priced().await;
    for size in [1, 20, 100] {
        let events = contended(300);
        work(&database, 4, &batch(&events), size).await;
        assert_eq!(database.verdicts().await, Verdicts::of(&events));
        database.check_invariants().await;
        database.clear().await;
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(deadlocks(&database).await, 0);
}

async fn workers_meet_over_dead_letters(database: Database) {
    database.priced().await;
    let events = contended(200);
    let mut messages = Vec::new();
    let mut random = rand::rng();
    let mut billable = Vec::new();
    for event in &events {
        let outcomes = [Outcome::Unknown, Outcome::UpstreamAborted, event.outcome];
        let first = random.random_range(0..3);
        for outcome in &outcomes[first..=random.random_range(first..3)] {
            let event = UsageEvent { outcome: *outcome, ..event.clone() };
            messages.push(incoming(&event));
            if outcome.is_billable() {
                billable.push(event);
            }
        }
    }
    work(&database, 4, &messages, 10).await;
    assert_eq!(database.verdicts().await, Verdicts::of(&billable));
    assert_eq!(database.count("usage_dead_letters").await, 200 - billable.len());
    database.check_invariants().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(deadlocks(&database).await, 0);
}

/// A batch that waits for the writers' lock has already looked for dead letters; what was written meanwhile must not
/// be overlooked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_written_while_a_batch_waits_is_found() {
    let database = Database::new(Kind::Postgres).await;
    let ledger = database.priced().await;
    let other = connect(&database.url).await;
    let writer = sea_orm::TransactionTrait::begin(&other).await.unwrap();
    let event = event(1);
    let lock = 0x474c_0002_0000_0000_i64;
    rows(&writer, &format!("SELECT pg_advisory_xact_lock({lock})::text")).await;
    let insert =
        format!("INSERT INTO usage_dead_letters (id, reason, payload) VALUES ('{}', 'unknown', '')", event.event_id);
    sea_orm::ConnectionTrait::execute_unprepared(&writer, &insert).await.unwrap();
    let waiting = tokio::spawn({
        let (ledger, message) = (ledger.clone(), incoming(&event));
        async move { ledger.record(&[message]).await }
    });
    let waits = "SELECT COUNT(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while database.one(waits).await == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writer.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().inserted, 1);
    assert_eq!((database.count("usage_events").await, database.count("usage_dead_letters").await), (1, 0));
    database.check_invariants().await;
}

/// The common case: billable events without repeats. Two statements write, then one takes the writers' lock and one looks at what
/// others wrote. Counted in the server's own log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_takes_two_statements_and_two_looks() {
    let server = goldleaves_testkit::postgres::Postgres::shared().await.unwrap();
    let database = Database::new(Kind::Postgres).await;
    database.priced().await.store().close().await;
    let name = database.one("SELECT current_database()::text").await;
    server.execute(&format!("ALTER DATABASE {name} SET log_statement = 'all'")).await.unwrap();
    let ledger = database.ledger().await;
    let events: Vec<UsageEvent> = (1..=1000).map(event).collect();
    let marker = format!(" {name} LOG:  execute ");
    let statements = || {
        let log = server.log();
        log.lines().filter(|line| line.contains(&marker)).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = statements().len();
    for piece in events.chunks(500) {
        assert_eq!(ledger.record(&batch(piece)).await.unwrap().inserted, 500);
    }
    let new = statements().split_off(before);
    // And the rate cards, once.
    assert_eq!(new.len(), 1 + 8, "{new:#?}");
}
