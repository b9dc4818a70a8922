//! A ledger that went back to what it was is noticed, and has everything again without anyone asking.

use goldleaves_ledger::StreamCourse;
use goldleaves_testkit::postgres::Postgres;

use crate::support::{
    Gateway, billed, declare, ledger, publish, publisher, start_worker, stream, wait_until_done, within,
};

/// The name of the database in an URL.
fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

/// A failover to a standby that was behind: the database becomes what it was when `backup` was made.
async fn fail_over(postgres: &Postgres, url: &str, backup: &str) {
    let database = name(url);
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    postgres.execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false")).await.unwrap();
    within(async {
        while postgres.execute(&format!("{end}; ALTER DATABASE {database} RENAME TO {database}_gone")).await.is_err() {}
    })
    .await;
    postgres.execute(&format!("ALTER DATABASE {backup} RENAME TO {database}")).await.unwrap();
}

async fn back_up(postgres: &Postgres, url: &str) -> String {
    let (database, backup) = (name(url), format!("{}_backup", name(url)));
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    );
    let copy = format!("CREATE DATABASE {backup} TEMPLATE {database}");
    // A running worker connects again at once.
    postgres.execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false")).await.unwrap();
    within(async {
        loop {
            let _ = postgres.execute(&end).await;
            if postgres.execute(&copy).await.is_ok() {
                break;
            }
        }
    })
    .await;
    for database in [database, backup.as_str()] {
        postgres.execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true")).await.unwrap();
    }
    backup
}

async fn until_billed(ledger: &goldleaves_ledger::Ledger, count: i64) {
    within(async {
        while billed(ledger).await != count {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_went_back_is_driven_again_by_running_workers() {
    let (_server, connection) = stream().await;
    let postgres = Postgres::start().await.unwrap();
    let (ledger, url) = ledger(&postgres).await;
    let (mut gateway, publisher) = (Gateway::new(), publisher(&connection));
    let workers = [start_worker(connection.clone(), &ledger), start_worker(connection.clone(), &ledger)];
    publish(&publisher, gateway.events(15)).await;
    until_billed(&ledger, 15).await;
    wait_until_done(&connection).await;
    let backup = back_up(&postgres, &url).await;
    publish(&publisher, gateway.events(10)).await;
    until_billed(&ledger, 25).await;
    wait_until_done(&connection).await;

    fail_over(&postgres, &url, &backup).await;
    until_billed(&ledger, 25).await;
    let noticed: f64 = workers.iter().map(|worker| worker.metric("ledger_went_back_total")).sum();
    assert!(noticed >= 1.0, "{noticed}");
    // New events beside that are recorded once as well.
    publish(&publisher, gateway.events(5)).await;
    until_billed(&ledger, 30).await;
    wait_until_done(&connection).await;
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_was_restored_while_no_worker_ran_is_driven_again() {
    let (_server, connection) = stream().await;
    let postgres = Postgres::shared().await.unwrap();
    let (before, url) = ledger(postgres).await;
    let (mut gateway, publisher) = (Gateway::new(), publisher(&connection));
    let worker = start_worker(connection.clone(), &before);
    publish(&publisher, gateway.events(20)).await;
    wait_until_done(&connection).await;
    worker.stop().await.unwrap();
    // What an earlier release recorded without noting how far it was: its rows are there, nothing is to be driven again.
    postgres.execute_in(name(&url), "DELETE FROM ledger_progress").await.unwrap();
    let worker = start_worker(connection.clone(), &before);
    publish(&publisher, gateway.events(1)).await;
    until_billed(&before, 21).await;
    wait_until_done(&connection).await;
    assert_eq!(worker.metric("ledger_went_back_total"), 0.0);
    worker.stop().await.unwrap();

    // A backup of before the first event.
    let (restored, _) = ledger(postgres).await;
    let worker = start_worker(connection.clone(), &restored);
    until_billed(&restored, 21).await;
    within(async {
        while worker.metric("ledger_lacking_messages") != 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(worker.metric("ledger_went_back_total"), 1.0);
    worker.stop().await.unwrap();
}

/// A stream that takes the place of a deleted one begins anew: what comes from it is noted as its own, at once. Else the ledger
/// would seem to lack it, and the whole stream be driven again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_a_new_stream_is_noted_as_its_own() {
    let (mut server, connection) = stream().await;
    let postgres = Postgres::shared().await.unwrap();
    let (ledger, _) = ledger(postgres).await;
    let mut gateway = Gateway::new();
    let worker = start_worker(connection.clone(), &ledger);
    publish(&publisher(&connection), gateway.events(10)).await;
    until_billed(&ledger, 10).await;
    wait_until_done(&connection).await;
    let old = course(&connection).await;
    assert_eq!(ledger.progress(&old, 1).await.unwrap(), Some(10));

    server.kill().await.unwrap();
    server.wipe().unwrap();
    server.restart().await.unwrap();
    declare(&connection).await;
    publish(&publisher(&connection), gateway.events(20)).await;
    until_billed(&ledger, 30).await;
    wait_until_done(&connection).await;
    let new = course(&connection).await;
    assert_ne!(new, old);
    assert_eq!(ledger.progress(&old, 1).await.unwrap(), Some(10));
    assert_eq!(ledger.progress(&new, 1).await.unwrap(), Some(20));
    assert_eq!(worker.metric("ledger_went_back_total"), 0.0);
    worker.stop().await.unwrap();
}

async fn course(connection: &goldleaves_stream::Connection) -> StreamCourse {
    let footing = goldleaves_stream::Footing::read(connection).await.unwrap().unwrap();
    StreamCourse { stream: goldleaves_stream::STREAM.to_owned(), created: footing.created }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_that_the_stream_gave_out_twice_are_not_taken_for_those_that_the_ledger_has() {
    let (mut server, connection) = stream().await;
    let postgres = Postgres::start().await.unwrap();
    let (ledger, url) = ledger(&postgres).await;
    let mut gateway = Gateway::new();
    let worker = start_worker(connection.clone(), &ledger);
    publish(&publisher(&connection), gateway.events(10)).await;
    until_billed(&ledger, 10).await;
    wait_until_done(&connection).await;
    let copy = server.copy_at_this_moment().unwrap();
    publish(&publisher(&connection), gateway.events(10)).await;
    until_billed(&ledger, 20).await;
    wait_until_done(&connection).await;
    let backup = back_up(&postgres, &url).await;

    // The stream goes back, and grows past where it was, with other messages.
    server.kill().await.unwrap();
    server.restore(&copy).unwrap();
    server.restart().await.unwrap();
    within(connection.connected()).await;
    // Of two messages of one sequence the later one was stored seconds later.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    publish(&publisher(&connection), gateway.events(15)).await;
    until_billed(&ledger, 35).await;
    wait_until_done(&connection).await;
    within(async {
        while worker.metric("stream_went_back_total") != 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;

    // And the ledger becomes what it was before that.
    fail_over(&postgres, &url, &backup).await;
    until_billed(&ledger, 35).await;
    within(async {
        while worker.metric("ledger_lacking_messages") != 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    worker.stop().await.unwrap();
}

async fn until_cards_are_lacking(worker: &crate::support::Running, count: f64) {
    within(async {
        while worker.metric("rate_cards_lacking") != count {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// A price changed after the backup: what comes again waits for its card, whether the worker ran all the time or was started since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_whose_rate_cards_went_back_prices_nothing_until_it_has_them() {
    let (_server, connection) = stream().await;
    let postgres = Postgres::start().await.unwrap();
    let (ledger, url) = ledger(&postgres).await;
    let (mut gateway, publisher) = (Gateway::new(), publisher(&connection));
    let worker = start_worker(connection.clone(), &ledger);
    publish(&publisher, gateway.events(3)).await;
    until_billed(&ledger, 3).await;
    wait_until_done(&connection).await;
    let backup = back_up(&postgres, &url).await;
    // The backup ended its connections.
    let from = "2026-11-24T06:00:00Z".parse().unwrap();
    within(async { while ledger.set_rate("50".parse().unwrap(), from).await.is_err() {} }).await;
    let cards = ledger.rate_cards().await.unwrap();
    gateway.now = "2026-11-24T07:00:00Z".parse().unwrap();
    publish(&publisher, gateway.events(4)).await;
    until_billed(&ledger, 7).await;
    wait_until_done(&connection).await;
    within(async {
        while !noted(&connection).await.contains("\"version\":2,") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;

    fail_over(&postgres, &url, &backup).await;
    until_cards_are_lacking(&worker, 1.0).await;
    let trouble = worker.health.trouble().unwrap_or_default();
    assert!(trouble.contains("priced by versions that it lacks (2)"), "{trouble}");
    worker.stop().await.unwrap();
    // Nobody who remembers runs any more.
    let restored = goldleaves_ledger::Ledger::connect(&url, goldleaves_ledger::StoreOptions::default()).await.unwrap();
    let worker = start_worker(connection.clone(), &restored);
    until_cards_are_lacking(&worker, 1.0).await;
    publish(&publisher, gateway.events(2)).await;
    assert_eq!(billed(&restored).await, 3);

    restored.import_rate_cards(&cards).await.unwrap();
    until_billed(&restored, 9).await;
    wait_until_done(&connection).await;
    until_cards_are_lacking(&worker, 0.0).await;
    assert_eq!(worker.health.trouble(), None);
    worker.stop().await.unwrap();
}

/// The rate cards that are noted beside the consumer.
async fn noted(connection: &goldleaves_stream::Connection) -> String {
    goldleaves_stream::Footing::read(connection).await.unwrap().unwrap().note.unwrap_or_default()
}
