//! A full disk: `available` serves on and says what it did not record, `strict` says 503; what was recorded is billed, and
//! both go on by themselves when there is room again.

use std::io::Write as _;
use std::path::PathBuf;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::load::{Load, Receipt};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};

/// Room for the spool's smallest size and a little more.
const DISK_MIB: u32 = 96;

async fn system(durability: &str) -> (Upstream, Deployment) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let settings = [
        ("UPSTREAM_URL", upstream.url()),
        ("METER_DURABILITY", durability.to_owned()),
        ("SPOOL_BYTES_MAX", "64MiB".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut deployment = Deployment::prepare(Kind::Embedded, &settings).unwrap();
    deployment.on_small_disk(DISK_MIB);
    deployment.start_again().await.unwrap();
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
    let own = token.clone();
    let load = Load::start(gateway, 8, move |_, _| request(&own));
    let refused = wait_for("the spool to be full", PATIENCE, async || Ok((load.without_event() > 0).then_some(())));
    refused.await.unwrap();
    let mut receipts = load.receipts().await.unwrap();
    std::fs::remove_file(filler).unwrap();
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
