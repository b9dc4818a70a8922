//! `SIGTERM` of every program under load: what is in flight gets its whole answer, nothing is lost, the exit code is 0.

use std::collections::BTreeSet;
use std::time::Duration;

use goldleaves_e2e::account::{Unbilled, complaints};
use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::{LoadAnswer, LoadPlan, SteadyLoad, receipts};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use rustix::process::Signal;
use sea_orm::{ConnectionTrait as _, Database, TransactionTrait as _};
use tokio::sync::watch;

use crate::chaos::judge;

const PLAN: LoadPlan = LoadPlan { clients: 8, pause: Duration::from_millis(5), requests: None };

/// Some answers are still on their way when the signal comes: half of them drip for a third of a second.
fn answer(received: &Received) -> Answer {
    match received.target().rsplit('/').next() {
        Some("slow") => Answer::ok("late").after(Duration::from_millis(300)),
        Some("drip") => Answer::chunked(vec![b"x".to_vec(); 15]).dripping(Duration::from_millis(20)),
        _ => Answer::ok("hello"),
    }
}

fn request(token: &str, number: usize) -> Request {
    let kind = ["slow", "quick", "drip", "quick"][number % 4];
    let target = format!("/api/v1/documents/{kind}");
    Request::get(&target).token(token).header("X-Request-ID", &format!("stop-{number}"))
}

async fn finished(load: &SteadyLoad, count: u64) {
    wait_for("responses", PATIENCE, async || Ok((load.finished() >= count).then_some(()))).await.unwrap();
}

/// Checks what clients saw when the program they talked to stopped: a request that the upstream has got has its whole answer. Only a
/// connection that was idle, or new, may find nobody there.
fn whole_or_never_begun(asked: &[LoadAnswer], upstream: &Upstream) {
    let served: BTreeSet<String> = upstream.request_ids().into_iter().collect();
    let answered: BTreeSet<usize> =
        asked.iter().filter(|asked| asked.receipt.is_some()).map(|asked| asked.number).collect();
    for broken in asked.iter().filter(|asked| asked.receipt.is_none()) {
        let begun = served.contains(&format!("stop-{}", broken.number)) && !answered.contains(&broken.number);
        assert!(!begun, "it was in flight and broke: {broken:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_answers_what_is_in_flight() {
    let upstream = Upstream::start(answer).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    let token = fleet.token("acme").unwrap();
    let load = SteadyLoad::start(fleet.address(), PLAN, move |number| request(&token, number));
    finished(&load, 50).await;
    assert_eq!(fleet.stop_gateway().await.unwrap().code(), Some(0));
    let asked = load.stop().await.unwrap();
    whole_or_never_begun(&asked, &upstream);
    // It went with nothing left to send: no second start is needed.
    fleet.recorded(PATIENCE).await.unwrap();
    judge(&fleet, &asked, &upstream, Unbilled::default()).await;
    fleet.scale(0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_records_what_it_was_handed_and_goes() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    let token = fleet.token("acme").unwrap();
    let load = SteadyLoad::start(fleet.address(), PLAN, move |number| request(&token, number));
    for (round, workers) in [3, 1, 2, 0, 1].into_iter().enumerate() {
        fleet.scale(workers).await.unwrap();
        finished(&load, 100 * (round as u64 + 1)).await;
    }
    let asked = load.stop().await.unwrap();
    fleet.relayed(PATIENCE).await.unwrap();
    fleet.recorded(PATIENCE).await.unwrap();
    assert_eq!(fleet.stop_gateway().await.unwrap().code(), Some(0));
    fleet.recorded(PATIENCE).await.unwrap();
    judge(&fleet, &asked, &upstream, Unbilled::default()).await;
    fleet.scale(0).await.unwrap();
}

/// Nothing of it is answered at random: what the reports read is locked until the program has been told to stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_billing_api_answers_what_it_has_begun() {
    const REPORTS: usize = 3;
    const WAITING: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'goldleaves' AND wait_event_type = 'Lock'";
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    let mut program = fleet.program("billing-api").start().unwrap();
    let billing = program.address("billing listens on").await.unwrap();
    let holder = Database::connect(fleet.database()).await.unwrap().begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE usage_rollups IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reports: Vec<_> = (0..REPORTS)
        .map(|tenant| format!("tenant-{tenant}"))
        .map(|tenant| Request::get(&format!("/billing/usage-report/{tenant}")).token(&fleet.token(&tenant).unwrap()))
        .map(|report| tokio::spawn(async move { report.send(billing).await }))
        .collect();
    let tables = fleet.tables().await.unwrap();
    let begun = async || Ok((tables.number(WAITING).await? >= REPORTS as i64).then_some(()));
    wait_for("reports that wait for the lock", PATIENCE, begun).await.unwrap();
    program.signal(Signal::TERM).unwrap();
    let stopping = async || Ok(tokio::net::TcpStream::connect(billing).await.is_err().then_some(()));
    wait_for("the end of listening", PATIENCE, stopping).await.unwrap();
    holder.rollback().await.unwrap();
    for report in reports {
        let answer = report.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(program.wait().await.unwrap().code(), Some(0));
}

/// The one process, over SQLite or over JetStream and PostgreSQL.
async fn the_one_process_stops(deployment: &mut Deployment, upstream: &Upstream) -> Vec<LoadAnswer> {
    deployment.start_again().await.unwrap();
    let token = deployment.token("acme").unwrap();
    let address = watch::channel(Some(deployment.gateway().unwrap()));
    let load = SteadyLoad::start(address.1, PLAN, move |number| request(&token, number));
    finished(&load, 50).await;
    assert_eq!(deployment.stop_with(Signal::TERM).await.unwrap().code(), Some(0));
    let asked = load.stop().await.unwrap();
    whole_or_never_begun(&asked, upstream);
    asked
}

async fn nothing_is_lost(deployment: &Deployment, upstream: &Upstream, asked: &[LoadAnswer]) {
    let tables = deployment.tables().await.unwrap();
    let contents = tables.wait("all of it", |found| found.len() >= upstream.served().len()).await.unwrap();
    let wrong = complaints(&contents, &receipts(asked).unwrap(), &upstream.request_ids(), Unbilled::default());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(contents.dead_letters, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goldleaves_over_sqlite_answers_and_records_what_is_in_flight() {
    let upstream = Upstream::start(answer).await.unwrap();
    let mut deployment = Deployment::prepare(Kind::Embedded, &[("UPSTREAM_URL", &upstream.url())]).unwrap();
    let asked = the_one_process_stops(&mut deployment, &upstream).await;
    // Nothing is left for the next start to do.
    nothing_is_lost(&deployment, &upstream, &asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goldleaves_over_jetstream_answers_and_records_what_is_in_flight() {
    let upstream = Upstream::start(answer).await.unwrap();
    let nats = NatsServer::start().await.unwrap();
    let settings =
        [("UPSTREAM_URL", upstream.url()), ("NATS_URL", nats.url()), ("STREAM_BYTES_MAX", "1GiB".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut deployment = Deployment::prepare(Kind::Embedded, &settings).unwrap();
    let asked = the_one_process_stops(&mut deployment, &upstream).await;
    // What the stream holds is recorded by the next start.
    deployment.start_again().await.unwrap();
    nothing_is_lost(&deployment, &upstream, &asked).await;
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

/// Readiness, asked until it is what a balancer waits for.
async fn readiness(deployment: &Deployment, status: u16) {
    let ops = deployment.ops().unwrap();
    wait_for("readiness", PATIENCE, async || {
        let answer = Request::get("/health/ready").send(ops).await;
        Ok(answer.is_ok_and(|answer| answer.status == status).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_accepted_until_the_drain_delay_is_over() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let settings = [("UPSTREAM_URL", upstream.url()), ("DRAIN_DELAY_SECS", "3600".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut deployment = Deployment::start_with(Kind::Embedded, &settings).await.unwrap();
    let request = Request::get("/api/v1/documents").token(&deployment.token("acme").unwrap());
    deployment.program().unwrap().signal(Signal::TERM).unwrap();
    readiness(&deployment, 503).await;
    for _ in 0..20 {
        let answer = deployment.ask(&request).await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    let billed = deployment.summary_of("acme", 20).await.unwrap();
    assert_eq!(billed["total_events"], 20);
    // Signals close together are one wish; the next wish ends the delay, not the program's order.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_75_names_what_is_left_and_nothing_else() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    let request = Request::get("/api/v1/documents").token(&fleet.token("acme").unwrap());
    fleet.server(0).unwrap().suspend().unwrap();
    let gateway = fleet.address().borrow().unwrap();
    assert_eq!(request.send(gateway).await.unwrap().status, 200);
    let left = fleet.gateway().unwrap();
    left.signal(Signal::TERM).unwrap();
    let status = left.wait().await.unwrap();
    let output = left.output();
    assert_eq!(status.code(), Some(75), "{output}");
    let said = output.lines().find(|line| line.contains("stopped before these had finished")).unwrap().to_owned();
    assert!(said.contains("relay: ") && said.contains(" records are left in the spool for the next start"), "{said}");
    assert!(!said.contains("gateway,") && !said.contains("ops"), "{said}");
    fleet.server(0).unwrap().resume().unwrap();
}
