//! A backup of before a change of the price takes the ledger's place: the same calls cost the same all the same, or nothing is
//! priced until somebody brought the rate card back.

use std::path::Path;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::fleet::Fleet;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::Value;

use crate::restored_ledger::{call, copy};
use crate::used_stream::output;

const RATE: &str = "USAGE_RATE_CENTS";
const LACKING: &str = "goldleaves_rate_cards_lacking";

fn failed(launch: Launch) -> String {
    let output = launch.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(70), "{said}");
    said
}

async fn printed(deployment: &mut Deployment, words: &str) {
    let find = |text: &str| text.contains(words).then_some(());
    deployment.program().unwrap().printed(words, find).await.unwrap();
}

/// Waits until a tenant has so many events, and returns what they cost.
async fn cents(deployment: &Deployment, events: u64) -> Value {
    deployment.summary_of("acme", events).await.unwrap()["total_cost_cents"].clone()
}

/// Ten calls at 25 cents and ten at 50, and the backup of between them in the ledger's place.
async fn gone_back(data: &Path, deployment: &mut Deployment) {
    let backup = data.with_file_name("backup");
    std::fs::create_dir(&backup).unwrap();
    call(deployment, 10).await;
    assert_eq!(cents(deployment, 10).await, 250);
    deployment.stop().await.unwrap();
    copy(data, &backup);
    deployment.set(RATE, "50");
    deployment.start_again().await.unwrap();
    call(deployment, 10).await;
    assert_eq!(cents(deployment, 20).await, 750);
    deployment.stop().await.unwrap();
    copy(&backup, data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_process_brings_the_card_back_and_the_bill_is_the_same() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut deployment = Deployment::start(Kind::Embedded, &upstream.url()).await.unwrap();
    let data = deployment.data_folder();
    gone_back(&data, &mut deployment).await;
    let exported = |deployment: &Deployment| output(deployment.command().argument("rate-cards").argument("export"));
    assert_eq!(exported(&deployment).lines().count(), 1, "the backup has the first card alone");

    let status = output(deployment.command().argument("migrate").argument("status"));
    assert!(status.contains("usage was priced by versions that it lacks (2): run migrate"), "{status}");
    deployment.start_again().await.unwrap();
    printed(&mut deployment, "lacked the rate card version 2").await;
    assert_eq!(cents(&deployment, 20).await, 750);
    assert_eq!(deployment.metric(LACKING).await.unwrap(), 0.0);
    call(&deployment, 1).await;
    assert_eq!(cents(&deployment, 21).await, 800);
    let kept = std::fs::read_to_string(data.join("rate-cards.jsonl")).unwrap();
    assert_eq!(exported(&deployment), kept, "the file is an export");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_process_serves_and_prices_nothing_where_the_card_can_not_come_back() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut deployment = Deployment::start(Kind::Embedded, &upstream.url()).await.unwrap();
    let data = deployment.data_folder();
    gone_back(&data, &mut deployment).await;
    // Somebody started it without the file, and at another price.
    let (file, aside) = (data.join("rate-cards.jsonl"), data.join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    deployment.set(RATE, "30");
    deployment.start_again().await.unwrap();
    assert_eq!(cents(&deployment, 20).await, 500);
    call(&deployment, 1).await;
    assert_eq!(cents(&deployment, 21).await, 530);
    deployment.stop().await.unwrap();
    std::fs::rename(&aside, &file).unwrap();

    let refused = failed(deployment.command().argument("migrate"));
    for words in ["the price is left alone", "other cards in it (2), and they can't be brought back: the ledger has"] {
        assert!(refused.contains(words), "{refused}");
    }
    deployment.start_again().await.unwrap();
    let said = "if the ledger's own cards are the right ones, stop, remove that file and start again";
    printed(&mut deployment, said).await;
    call(&deployment, 1).await;
    let lacking = async || Ok((deployment.metric(LACKING).await? == 1.0).then_some(()));
    wait_for("what is lacking to be counted", PATIENCE, lacking).await.unwrap();
    assert_eq!(cents(&deployment, 21).await, 530, "what came since waits in the spool");
    deployment.stop().await.unwrap();

    // A part of a file says nothing that can be trusted.
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, whole.get(..whole.len() - 9).unwrap()).unwrap();
    assert!(failed(deployment.command().argument("migrate")).contains("rate-cards.jsonl holds no rate cards that can"));
    deployment.start_again().await.unwrap();
    printed(&mut deployment, "put an export of them in its place").await;
    assert_eq!(cents(&deployment, 21).await, 530);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(cents(&deployment, 22).await, 560);
}

/// One call after the other, through the gateway of a fleet.
async fn ask(fleet: &mut Fleet, count: usize) {
    let request = Request::get("/api/v1/documents").token(&fleet.token("acme").unwrap());
    let gateway = fleet.address().borrow().unwrap();
    for _ in 0..count {
        assert_eq!(request.clone().send(gateway).await.unwrap().status, 200);
    }
    fleet.relayed(PATIENCE).await.unwrap();
}

/// Returns the number of events and what they cost, once so many are there.
async fn billed(fleet: &Fleet, count: &str) -> String {
    const SUM: &str = "SELECT count(*)::text || ' ' || coalesce(sum(cost_cents), 0)::text FROM usage_events";
    let mut last = String::new();
    let there = wait_for("the events", PATIENCE, async || {
        last = fleet.tables().await?.texts(SUM).await?.join("");
        Ok(last.starts_with(&format!("{count} ")).then_some(()))
    });
    there.await.unwrap_or_else(|error| panic!("{error}: {last}"));
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_wait_for_a_card_that_migrate_brings_back() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    fleet.scale(2).await.unwrap();
    ask(&mut fleet, 10).await;
    assert_eq!(billed(&fleet, "10").await, "10 250");
    fleet.recorded(PATIENCE).await.unwrap();
    fleet.scale(0).await.unwrap();
    let name = fleet.database().rsplit('/').next().and_then(|rest| rest.split('?').next()).unwrap().to_owned();
    let backup = format!("CREATE DATABASE {name}_backup TEMPLATE {name}");
    wait_for("the backup", PATIENCE, async || Ok(fleet.postgres.execute(&backup).await.ok())).await.unwrap();
    let migrate = |fleet: &Fleet| fleet.program("migrate").setting(RATE, "50");
    output(migrate(&fleet));
    fleet.scale(2).await.unwrap();
    ask(&mut fleet, 10).await;
    assert_eq!(billed(&fleet, "20").await, "20 750");
    fleet.recorded(PATIENCE).await.unwrap();
    let noted = wait_for("the note", PATIENCE, async || {
        let note = fleet.consumer().await?["config"]["metadata"]["goldleaves_rate_cards"].clone();
        Ok(note.as_str().is_some_and(|note| note.lines().count() == 2).then_some(()))
    });
    noted.await.unwrap();

    // Nobody who remembers runs while the backup takes the ledger's place.
    fleet.scale(0).await.unwrap();
    let restore =
        [format!("DROP DATABASE {name} WITH (FORCE)"), format!("CREATE DATABASE {name} TEMPLATE {name}_backup")];
    for sql in restore {
        fleet.postgres.execute(&sql).await.unwrap();
    }
    fleet.scale(2).await.unwrap();
    ask(&mut fleet, 1).await;
    let lacking = async || {
        let lacking = fleet.of_workers(LACKING).await?;
        Ok(lacking.iter().all(|count| *count == 1.0).then_some(()))
    };
    wait_for("every worker to miss the card", PATIENCE, lacking).await.unwrap();
    assert_eq!(billed(&fleet, "10").await, "10 250", "nothing is priced");
    let status = output(fleet.program("migrate").argument("status").argument("--json"));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["rate_cards_lacking"], serde_json::json!([2]));
    let said = migrate(&fleet).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    for words in ["the ledger lacked the rate card version 2", "price unchanged: 50 cents per unit, version 2"] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(billed(&fleet, "21").await, "21 800");
    let there = async || Ok(fleet.of_workers(LACKING).await?.iter().all(|count| *count == 0.0).then_some(()));
    wait_for("every worker to have the card", PATIENCE, there).await.unwrap();
    fleet.scale(0).await.unwrap();

    // A ledger made anew has the cards of the note before anything is replayed into it, whatever the setting says.
    let empty = fleet.postgres.empty_database().await.unwrap();
    let at = |program: &str| fleet.program(program).setting("DATABASE_URL", &empty);
    output(at("migrate").setting("NATS_URL", "").setting(RATE, "7"));
    output(at("goldleaves").argument("replay").argument("--from").argument("first"));
    let tables = goldleaves_e2e::tables::Tables::open(&empty).await.unwrap();
    let sum = "SELECT count(*)::text || ' ' || sum(cost_cents)::text FROM usage_events";
    assert_eq!(tables.texts(sum).await.unwrap(), ["21 800"]);
    // One that has priced by other cards is left as it is.
    let other = fleet.postgres.empty_database().await.unwrap();
    let at = |program: &str| fleet.program(program).setting("DATABASE_URL", &other);
    output(at("migrate").setting("NATS_URL", "").setting(RATE, "7"));
    let tables = goldleaves_e2e::tables::Tables::open(&other).await.unwrap();
    let usage = "INSERT INTO usage_rollups (tenant_id, hour, route, action, rate_version, shard, events, units_micro) \
                 VALUES ('acme', date_trunc('hour', now()), '/r', 'read', 1, 0, 1, 1000000)";
    tables.run(usage).await.unwrap();
    let refused = failed(at("goldleaves").argument("replay").argument("--from").argument("first"));
    assert!(refused.contains("nothing was recorded: bring the rate cards back first"), "{refused}");
    assert_eq!(tables.texts("SELECT count(*)::text FROM usage_events").await.unwrap(), ["0"]);
}
