//! A writer that waits for a lock on PostgreSQL does not make everybody else wait for as long.

use std::time::Duration;

use goldleaves_domain::{Outcome, UsageEvent};
use goldleaves_ledger::{Incoming, Ledger, StoreOptions};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::proxy::WireProxy;
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

/// A writer that hangs in its transaction keeps nobody from setting other events aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_aside_waits_for_no_other_writer() {
    let database = Database::new(Kind::Postgres).await;
    let worker = database.priced().await;
    let port = database.url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let wire = WireProxy::start(&format!("127.0.0.1:{port}")).await.unwrap();
    let through = database.url.replace(&format!(":{port}/"), &format!(":{}/", wire.address().port()));
    let other = Ledger::connect(&through, StoreOptions::default()).await.unwrap();
    let raw = connect(&database.url).await;
    let somebody = raw.begin().await.unwrap();
    bill(&somebody, "usage_events", &event(9)).await;
    // Waits for what somebody has begun, and then does not hear that it need not: its session stands in the middle of a batch.
    let hanging = tokio::spawn(async move { other.record(&[incoming(&event(8)), incoming(&event(9))]).await });
    wait_until_one_waits(&database).await;
    wire.stall();
    somebody.rollback().await.unwrap();
    let messages = [aborted(1), Incoming::parse("not an event".into()), incoming(&event(2))];
    let recorded = worker.record(&messages).await.unwrap();
    assert_eq!((recorded.inserted, recorded.set_aside.values().sum::<u64>()), (1, 2));
    assert_eq!(worker.refuse(&aborted(3), "for a test").await.unwrap().set_aside.len(), 1);
    let stands = "SELECT COUNT(*)::text FROM pg_stat_activity WHERE state = 'idle in transaction' \
                  AND datname = current_database()";
    assert_eq!(database.one(stands).await, "1", "all that while");
    hanging.abort();
}

/// A writer that sets an event aside waits for the one who bills it at the same time, in either of the two tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_not_set_aside_while_it_is_being_billed() {
    for table in ["usage_events", "usage_duplicates"] {
        let database = Database::new(Kind::Postgres).await;
        let (worker, other) = (database.priced().await, database.ledger().await);
        record(&worker, &[incoming(&event(2))]).await;
        let raw = connect(&database.url).await;
        let billing = raw.begin().await.unwrap();
        bill(&billing, table, &event(1)).await;
        rows(&billing, &format!("SELECT pg_advisory_xact_lock_shared({WRITERS})::text")).await;
        let setting_aside = tokio::spawn(async move { other.record(&[aborted(1)]).await.unwrap() });
        wait_until_one_waits(&database).await;
        billing.commit().await.unwrap();
        let recorded = setting_aside.await.unwrap();
        assert_eq!((recorded.replays, recorded.set_aside.len()), (1, 0), "{table}");
        assert_eq!(database.count("usage_dead_letters").await, 0);
        assert_eq!(database.count("usage_events").await + database.count("usage_duplicates").await, 2);
    }
}

/// Nothing but whole events is ever written to the table of them, not even for the length of a transaction: triggers,
/// replication and whoever reads it see every row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_aside_touches_no_table_of_events() {
    let database = Database::new(Kind::Postgres).await;
    let worker = database.priced().await;
    for table in ["usage_events", "usage_duplicates"] {
        let trigger = format!(
            "CREATE FUNCTION see_{table}() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'seen' USING ERRCODE = '55000'; END $$; \
             CREATE TRIGGER see BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION see_{table}()"
        );
        connect(&database.url).await.execute_unprepared(&trigger).await.unwrap();
    }
    let recorded = worker.record(&[aborted(1), Incoming::parse("not an event".into())]).await.unwrap();
    assert_eq!(recorded.set_aside.values().sum::<u64>(), 2);
    assert_eq!(worker.refuse(&incoming(&event(3)), "for a test").await.unwrap().set_aside.len(), 1);
}

/// Inserts the row of an event as another worker does.
async fn bill(transaction: &sea_orm::DatabaseTransaction, table: &str, event: &UsageEvent) {
    let of = if table == "usage_duplicates" {
        (", duplicate_of", format!(", '{}'", event.event_id))
    } else {
        ("", String::new())
    };
    let insert = format!(
        "INSERT INTO {table} (id, request_id, tenant_id, user_id, route, action, ts, units_micro, epoch, seq, outcome, \
             rate_version{}) VALUES ('{id}', 'made-{id}', 'acme', 'u', '/r', 'read', now(), 0, '{id}', 1, 'completed', 1{})",
        of.0,
        of.1,
        id = event.event_id,
    );
    transaction.execute_unprepared(&insert).await.unwrap();
}

fn aborted(number: u64) -> Incoming {
    incoming(&UsageEvent { outcome: Outcome::UpstreamAborted, ..event(number) })
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
    let waits = "SELECT COUNT(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND datname = current_database()";
    wait_for("somebody to wait for a lock", Duration::from_secs(60), async || {
        Ok((database.one(waits).await != "0").then_some(()))
    })
    .await
    .unwrap();
}
