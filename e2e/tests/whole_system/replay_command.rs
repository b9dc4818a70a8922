//! `goldleaves replay`: what it reads, what it changes, what it refuses, and how it ends.

use std::process::Output;

use goldleaves_domain::Delivery;
use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::upstream::{Answer, Upstream};
use rustix::process::Signal;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};

use crate::used_stream::{assert_same, bills, connect, delivery, meaning, output, parts, publish, rows, stored, used};

/// The command against a database, in words.
fn replay(fleet: &Fleet, database: &str, arguments: &str) -> Launch {
    let launch = fleet.program("goldleaves").setting("DATABASE_URL", database).argument("replay");
    arguments.split_whitespace().fold(launch, Launch::argument)
}

fn failed(launch: Launch) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = launch.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// The number in a line of the summary.
fn number(summary: &str, name: &str) -> u64 {
    let line = summary.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {summary}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// An empty ledger with the rates of the fleet's.
async fn empty_ledger(fleet: &Fleet) -> (String, Tables) {
    let database = fleet.postgres.empty_database().await.unwrap();
    let there = |program: &str| fleet.program(program).setting("DATABASE_URL", &database);
    output(there("migrate").setting("USAGE_RATE_CENTS", "7"));
    let cards = fleet.folder().join("cards");
    std::fs::write(&cards, output(fleet.program("goldleaves").argument("rate-cards").argument("export"))).unwrap();
    output(there("goldleaves").argument("rate-cards").argument("import").input(&cards));
    let tables = Tables::open(&database).await.unwrap();
    (database, tables)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_changes_nothing_where_all_is_there_and_makes_the_whole_bill_where_nothing_is() {
    let (_upstream, fleet) = used(400).await;
    let tables = fleet.tables().await.unwrap();
    let (before, consumer) = (rows(&tables).await, fleet.consumer().await.unwrap());
    let stored = stored(&connect(&fleet.nats[0]).await).await;
    let (count, parts) = (stored.len() as u64, parts(&stored));

    let all_there = output(replay(&fleet, fleet.database(), "--from first"));
    assert_eq!(number(&all_there, "read"), count, "{all_there}");
    let quiet = ["inserted", "duplicates", "displaced", "set aside", "expired"];
    assert!(quiet.iter().all(|name| number(&all_there, name) == 0), "{all_there}");
    assert_eq!(number(&all_there, "replays") + number(&all_there, "seals"), parts);
    assert_same(&rows(&tables).await, &before);

    let (database, rebuilt) = empty_ledger(&fleet).await;
    let empty = rows(&rebuilt).await;
    let looked = output(replay(&fleet, &database, "--from first --dry-run"));
    assert_eq!(number(&looked, "messages"), count, "{looked}");
    assert_eq!(number(&looked, "events") + number(&looked, "seals"), parts, "{looked}");
    assert_eq!((number(&looked, "tenants"), number(&looked, "in ledger")), (3, 0), "{looked}");
    // What a start sends again may be stored again, in other messages.
    let aborted =
        |message: &Delivery| String::from_utf8_lossy(&message.payload).matches("\"upstream_aborted\"").count();
    let aborted: usize = stored.iter().map(aborted).sum();
    assert!(aborted >= 3 && looked.contains(&format!("upstream_aborted {aborted}")), "{aborted}: {looked}");
    assert_eq!(rows(&rebuilt).await, empty, "a look writes nothing");

    // In parts that touch: by sequence, then by the moment at which the rest was stored, which is after the first rate.
    let middle = tables
        .texts(
            "SELECT to_char(effective_from AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
        FROM rate_cards WHERE version = 2",
        )
        .await
        .unwrap()
        .remove(0);
    let mut read = 0;
    for part in [format!("--from {middle}"), format!("--from 11 --to {middle}"), "--from 1 --to 10".to_owned()] {
        read += number(&output(replay(&fleet, &database, &part)), "read");
    }
    assert_eq!(read, count);
    assert_same(&meaning(&rebuilt).await, &meaning(&tables).await);
    assert_eq!(bills(&fleet, &database).await, bills(&fleet, fleet.database()).await);
    let looked = output(replay(&fleet, &database, "--from first --dry-run"));
    assert_eq!(number(&looked, "in ledger"), number(&looked, "events"), "{looked}");

    for field in ["delivered", "ack_floor", "num_pending", "num_ack_pending", "created"] {
        assert_eq!(fleet.consumer().await.unwrap()[field], consumer[field], "the workers' consumer: {field}");
    }
}

/// A stream of so many copies of an old event, each with ids of its own.
async fn long_stream(count: u64) -> (Upstream, Fleet) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    fleet.kill_worker(0).unwrap();
    let events = (1..=count).map(|number| delivery(crate::poison::event(number).into()));
    publish(&connect(&fleet.nats[0]).await, events.collect()).await;
    (upstream, fleet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_or_stopped_halfway_it_is_run_again_and_the_ledger_is_whole() {
    let (_upstream, fleet) = long_stream(6_000).await;
    let tables = fleet.tables().await.unwrap();
    let count = async || tables.number("SELECT COUNT(*) FROM usage_events").await.unwrap();

    let mut killed = replay(&fleet, fleet.database(), "--from first").start().unwrap();
    wait_for("a part to be recorded", PATIENCE, async || Ok((count().await > 0).then_some(()))).await.unwrap();
    killed.kill().unwrap();
    let half = count().await;
    assert!(half < 6_000, "it was too fast to be killed halfway");

    // While somebody holds the table it can't be done before it hears of the signal.
    let database = sea_orm::Database::connect(fleet.database()).await.unwrap();
    let holder = database.begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut stopped = replay(&fleet, fleet.database(), "--from 1001 --to 5500").start().unwrap();
    stopped.printed("how much there is", |text| text.contains("4500 messages").then_some(())).await.unwrap();
    stopped.signal(Signal::INT).unwrap();
    stopped.printed("that it heard", |text| text.contains("asked to stop").then_some(())).await.unwrap();
    holder.rollback().await.unwrap();
    assert_eq!(stopped.wait().await.unwrap().code(), Some(75), "{}", stopped.output());
    let said = stopped.output();
    let (_, rest) = said.split_once("go on with --from ").unwrap_or_else(|| panic!("{said}"));
    assert!(["1001 --to 5500", "2001 --to 5500"].iter().any(|words| rest.starts_with(words)), "{said}");

    let summary = output(replay(&fleet, fleet.database(), "--from first"));
    assert_eq!(number(&summary, "inserted") + number(&summary, "replays"), 6_000, "{summary}");
    assert!(number(&summary, "replays") >= half.unsigned_abs(), "{summary}");
    assert_eq!(count().await, 6_000);
    assert_eq!(tables.number("SELECT CAST(SUM(events) AS BIGINT) FROM usage_rollups").await.unwrap(), 6_000);
    assert_eq!(tables.number("SELECT CAST(SUM(received_count) AS BIGINT) FROM usage_receipts").await.unwrap(), 6_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_can_not_do_it_says() {
    let (_upstream, fleet) = long_stream(5).await;
    let refused = |arguments: &str| failed(replay(&fleet, fleet.database(), arguments));
    for (arguments, code, words) in [
        ("--from 6", 70, "sequence 6 is not yet in the stream USAGE, which ends with sequence 5, stored 20"),
        ("--from 4 --to 3", 70, "nothing lies between sequence 4 and sequence 3"),
        ("--from yesterday", 64, "a sequence such as 120000, a time such as 2026-01-31T12:00:00Z, a date"),
        ("--to 3", 64, "--from"),
    ] {
        let (found, said) = refused(arguments);
        assert!(found == Some(code) && said.contains(words), "{arguments}: {found:?} {said}");
    }
    let later = output(replay(&fleet, fleet.database(), "--from 2100-01-01"));
    assert_eq!(later, "nothing is stored there\n");

    let unmigrated = fleet.postgres.empty_database().await.unwrap();
    let (code, said) = failed(replay(&fleet, &unmigrated, "--from first"));
    assert!(code == Some(70) && said.contains("run migrate"), "{code:?} {said}");
    // To look takes no ledger.
    let launch = replay(&fleet, &unmigrated, "--from first --dry-run");
    let looked = launch.output().unwrap();
    assert!(looked.status.success() && String::from_utf8_lossy(&looked.stdout).contains("not asked"), "{looked:?}");

    let other = NatsServer::start().await.unwrap();
    let (code, said) = failed(replay(&fleet, fleet.database(), "--from first").setting("NATS_URL", other.url()));
    assert!(code == Some(70) && said.contains("there is no stream USAGE"), "{code:?} {said}");
}

#[tokio::test]
async fn without_nats_it_names_what_is_missing_and_touches_nothing() {
    let scratch = Scratch::new("replay").unwrap();
    let launch = || Launch::new("goldleaves", scratch.path()).setting("DATA_DIR", scratch.join("data"));
    let (code, said) = failed(launch().argument("replay").argument("--from").argument("first"));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("NATS_URL") && said.contains("JetStream's stream USAGE"), "{said}");
    let (code, said) = failed(launch().argument("rate-cards").argument("export"));
    assert!(code == Some(70) && said.contains("goldleaves.db can't be opened"), "{code:?} {said}");
    assert!(!scratch.join("data").exists());
}

#[tokio::test]
async fn the_embedded_ledgers_rates_go_out_and_in() {
    let scratch = Scratch::new("rate-cards").unwrap();
    let launch = |folder: &str| Launch::new("goldleaves", scratch.path()).setting("DATA_DIR", scratch.join(folder));
    let cards = |folder: &str, way: &str| launch(folder).argument("rate-cards").argument(way);
    for (folder, rate) in [("old", "25"), ("old", "0.123456"), ("new", "7")] {
        output(launch(folder).argument("migrate").argument("--yes").setting("USAGE_RATE_CENTS", rate));
    }
    let exported = output(cards("old", "export"));
    assert!(exported.lines().count() == 2 && exported.contains("\"0.123456\""), "{exported}");
    std::fs::write(scratch.join("file"), &exported).unwrap();
    assert_eq!(output(cards("new", "import").input(&scratch.join("file"))), "2 cards added, 0 were there\n");
    assert_eq!(output(cards("new", "export")), exported);
    std::fs::write(scratch.join("file"), "{}").unwrap();
    let (code, said) = failed(cards("new", "import").input(&scratch.join("file")));
    assert!(code == Some(70) && said.contains("line 1 is no rate card"), "{code:?} {said}");
}
