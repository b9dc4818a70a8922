//! A full disk, while it runs or from the start: `available` serves on and says what it did not record, `strict` says 503;
//! what was recorded is billed, and both go on by themselves when there is room again.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::load::{Load, Receipt};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};

use crate::chaos::ACK_WAIT;

/// Room for the spool's smallest size and a little more.
const DISK_MIB: u32 = 96;

on_both!(
    available_starts_and_records_once_there_is_room,
    strict_starts_and_serves_billable_calls_once_there_is_room,
    what_a_crash_left_is_settled_once_there_is_room,
);

async fn system(durability: &str) -> (Upstream, Deployment) {
    let (upstream, mut deployment) = prepared(Kind::Embedded, durability).await;
    deployment.on_small_disk(DISK_MIB);
    deployment.start_again().await.unwrap();
    (upstream, deployment)
}

async fn prepared(kind: Kind, durability: &str) -> (Upstream, Deployment) {
    let answer = |received: &Received| match received.target() {
        "/api/v1/documents/never" => Answer::ok("late").after(Duration::from_secs(3_600)),
        _ => Answer::ok("hello"),
    };
    let upstream = Upstream::start(answer).await.unwrap();
    let settings = [
        ("UPSTREAM_URL", upstream.url()),
        ("METER_DURABILITY", durability.to_owned()),
        ("SPOOL_BYTES_MAX", "64MiB".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::prepare(kind, &settings).unwrap();
    (upstream, deployment)
}

/// Takes every byte that is left.
fn fill(deployment: &mut Deployment) -> PathBuf {
    let folder = deployment.data_folder();
    let filler = deployment.program().unwrap().path_seen(&folder).join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    for length in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; length]).is_ok() {}
    }
    filler
}

fn request(token: &str) -> Request {
    // Long records fill the spool soon.
    Request::get("/api/v1/documents/7").token(token).header("User-Agent", &"x".repeat(1500))
}

/// Fills the disk, asks until the spool has no room left, makes room, and waits for the first recorded answer.
async fn fill_and_recover(deployment: &mut Deployment) -> Vec<Receipt> {
    let token = deployment.token("acme").unwrap();
    let gateway = deployment.gateway().unwrap();
    let filler = fill(deployment);
    let load = Load::start(gateway, 8, move |_, _| request(&token));
    let refused = wait_for("the spool to be full", PATIENCE, async || Ok((load.without_event() > 0).then_some(())));
    refused.await.unwrap();
    let mut receipts = load.receipts().await.unwrap();
    std::fs::remove_file(filler).unwrap();
    receipts.extend(ask_until_recorded(deployment).await);
    receipts
}

/// Asks until a call is recorded; every answer, that one last.
async fn ask_until_recorded(deployment: &Deployment) -> Vec<Receipt> {
    let token = deployment.token("acme").unwrap();
    let mut receipts = Vec::new();
    let recovered = wait_for("recording to go on", PATIENCE, async || {
        let receipt = Receipt::of(&deployment.ask(&request(&token)).await?)?;
        let recorded = receipt.event_id.is_some();
        receipts.push(receipt);
        Ok(recorded.then_some(()))
    });
    recovered.await.unwrap();
    receipts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn available_serves_on_and_bills_what_it_recorded() {
    let (_upstream, mut deployment) = system("available").await;
    let receipts = fill_and_recover(&mut deployment).await;
    assert!(receipts.iter().all(|receipt| receipt.status == 200));
    let recorded = receipts.iter().filter(|receipt| receipt.event_id.is_some()).count();
    assert!(recorded < receipts.len());
    deployment.summary_of("acme", recorded as u64).await.unwrap();
    let unrecorded = deployment.metric("goldleaves_unrecorded_calls_total").await.unwrap();
    assert_eq!(unrecorded, (receipts.len() - recorded) as f64);
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_answers_503_and_loses_nothing() {
    let (_upstream, mut deployment) = system("strict").await;
    let receipts = fill_and_recover(&mut deployment).await;
    let served = receipts.iter().filter(|receipt| receipt.status == 200).count();
    for receipt in &receipts {
        let expected = if receipt.event_id.is_some() { 200 } else { 503 };
        assert_eq!(receipt.status, expected, "{receipt:?}");
    }
    deployment.summary_of("acme", served as u64).await.unwrap();
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

/// Makes room, and asks until a call is recorded.
async fn make_room(deployment: &mut Deployment) -> Vec<Receipt> {
    let folder = deployment.data_folder();
    std::fs::remove_file(deployment.program().unwrap().path_seen(&folder).join("filler")).unwrap();
    ask_until_recorded(deployment).await
}

async fn unrecorded(deployment: &Deployment) -> f64 {
    deployment.metric("goldleaves_unrecorded_calls_total").await.unwrap()
}

async fn available_starts_and_records_once_there_is_room(kind: Kind) {
    let (_upstream, mut deployment) = prepared(kind, "available").await;
    deployment.on_full_disk(DISK_MIB);
    deployment.start_unready().await.unwrap();
    let token = deployment.token("acme").unwrap();
    for _ in 0..5 {
        let response = deployment.ask(&request(&token)).await.unwrap();
        assert_eq!((response.status, response.header("x-usage-event-id")), (200, None));
    }
    let ready = Request::get("/health/ready").send(deployment.ops().unwrap()).await.unwrap().text();
    assert!(ready.contains("5 calls were served without a record"), "{ready}");
    assert_eq!(unrecorded(&deployment).await, 5.0);
    assert_eq!(deployment.metric("goldleaves_spool_writable").await.unwrap(), 0.0);
    let receipts = make_room(&mut deployment).await;
    assert!(receipts.iter().all(|receipt| receipt.status == 200));
    deployment.summary_of("acme", 1).await.unwrap();
    assert_eq!(unrecorded(&deployment).await, 5.0 + receipts.len() as f64 - 1.0);
    assert_eq!(deployment.metric("goldleaves_spool_writable").await.unwrap(), 1.0);
    let output = deployment.program().unwrap().output();
    assert!(output.contains("the spool cannot be opened, nothing is recorded"), "{output}");
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

async fn strict_starts_and_serves_billable_calls_once_there_is_room(kind: Kind) {
    let (upstream, mut deployment) = prepared(kind, "strict").await;
    deployment.on_full_disk(DISK_MIB);
    deployment.start_unready().await.unwrap();
    let token = deployment.token("acme").unwrap();
    assert_eq!(deployment.ask(&request(&token)).await.unwrap().status, 503);
    assert!(upstream.served().is_empty());
    assert_eq!(deployment.ask(&Request::get("/health")).await.unwrap().status, 200);
    assert_eq!(deployment.ask(&Request::get("/free").token(&token)).await.unwrap().status, 200);
    let receipts = make_room(&mut deployment).await;
    let (last, refused) = receipts.split_last().unwrap();
    assert_eq!(last.status, 200);
    assert!(refused.iter().all(|receipt| receipt.status == 503));
    deployment.summary_of("acme", 1).await.unwrap();
    assert_eq!(unrecorded(&deployment).await, 0.0);
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

/// Gives back what a killed process had set aside to write in: else the next start writes there, however full the disk is.
fn take_reserves(deployment: &Deployment) {
    for entry in std::fs::read_dir(deployment.data_folder().join("spool")).unwrap() {
        let dug = Command::new("fallocate").arg("--dig-holes").arg(entry.unwrap().path()).status().unwrap();
        assert!(dug.success());
    }
}

async fn what_a_crash_left_is_settled_once_there_is_room(kind: Kind) {
    let (upstream, mut deployment) = prepared(kind, "available").await;
    deployment.start_again().await.unwrap();
    deployment.redeliver_after(ACK_WAIT).await.unwrap();
    let token = deployment.token("acme").unwrap();
    for _ in 0..3 {
        assert!(deployment.ask(&request(&token)).await.unwrap().header("x-usage-event-id").is_some());
    }
    let open = Request::get("/api/v1/documents/never").token(&token).header("X-Request-ID", "open");
    let (gateway, asked) = (deployment.gateway().unwrap(), open.clone());
    let open = tokio::spawn(async move { asked.send(gateway).await });
    let is_open = async || Ok(upstream.request_ids().contains(&"open".to_owned()).then_some(()));
    wait_for("the call to be open", PATIENCE, is_open).await.unwrap();
    deployment.kill().await.unwrap();
    open.await.unwrap().unwrap_err();
    take_reserves(&deployment);
    deployment.on_full_disk(DISK_MIB);
    deployment.start_unready().await.unwrap();
    let response = deployment.ask(&request(&token)).await.unwrap();
    assert_eq!((response.status, response.header("x-usage-event-id")), (200, None));
    assert_eq!(deployment.metric("goldleaves_recovered_calls_total").await.unwrap(), 0.0);
    make_room(&mut deployment).await;
    deployment.summary_of("acme", 4).await.unwrap();
    match kind {
        Kind::Embedded => {
            let set_aside = async || {
                let count = deployment.metric("goldleaves_dead_letters_total").await?;
                Ok((count > 0.0).then_some(count))
            };
            assert_eq!(wait_for("the open call", PATIENCE, set_aside).await.unwrap(), 1.0);
        }
        Kind::Distributed => {
            let tables = deployment.tables().await.unwrap();
            let contents = tables.wait("the open call", |contents| !contents.dead_letters.is_empty()).await.unwrap();
            let letter = contents.dead_letters.first().unwrap();
            assert_eq!((letter.request_id.as_deref(), letter.reason.as_str()), (Some("open"), "unknown"));
            assert_eq!((contents.len(), contents.events.len()), (5, 4));
            assert!(contents.occurrences().values().all(|count| *count == 1));
        }
    }
    assert_eq!(deployment.metric("goldleaves_recovered_calls_total").await.unwrap(), 1.0);
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_an_orderly_stop_waits_for_room_too() {
    let (_upstream, mut deployment) = prepared(Kind::Embedded, "available").await;
    deployment.start_again().await.unwrap();
    let token = deployment.token("acme").unwrap();
    assert!(deployment.ask(&request(&token)).await.unwrap().header("x-usage-event-id").is_some());
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
    deployment.on_full_disk(DISK_MIB);
    deployment.start_unready().await.unwrap();
    let response = deployment.ask(&request(&token)).await.unwrap();
    assert_eq!((response.status, response.header("x-usage-event-id")), (200, None));
    make_room(&mut deployment).await;
    deployment.summary_of("acme", 2).await.unwrap();
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}
