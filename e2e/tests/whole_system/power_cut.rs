//! A power cut of the machine that gateway and nats-server share: the spool has reached the disk, the stream's last seconds
//! have not. What JetStream had acknowledged is handed over again, without anyone asking.
//!
//! Three rounds as a rule, each with the stream as it was at a random moment; `GOLDLEAVES_SOAK=1` makes it fifty.

use std::collections::BTreeSet;
use std::time::Duration;

use goldleaves_e2e::account::{self, Unbilled};
use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::{Load, Receipt};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Upstream};
use rand::Rng as _;

const CLIENTS: usize = 4;

/// The time that the spool may take to be handed over: at every start all of what it retains, which grows with the rounds.
fn patience() -> Duration {
    if crate::soak() { 10 * PATIENCE } else { PATIENCE }
}

fn rounds() -> usize {
    if crate::soak() { 50 } else { 3 }
}

/// Load, the stream's files as they are at some moment of it, and a little later the end of both.
async fn cut(fleet: &mut Fleet, round: usize) -> Vec<Receipt> {
    // A spool that is not open yet on a busy disk takes no call.
    let open = async || Ok((fleet.count("goldleaves_spool_writable").await? == 1).then_some(()));
    wait_for("the spool to be open", patience(), open).await.unwrap();
    let token = fleet.token("acme").unwrap();
    let gateway = fleet.address().borrow().unwrap();
    let load = Load::start(gateway, CLIENTS, move |client, number| {
        let id = format!("r{round}-c{client}-{number}");
        Request::get("/api/v1/documents").token(&token).header("X-Request-ID", &id)
    });
    wait_for("some responses", PATIENCE, async || Ok((load.finished() > 20).then_some(()))).await.unwrap();
    let copy = fleet.server(0).unwrap().copy_at_this_moment().unwrap();
    let copied = load.finished();
    wait_for("some more", PATIENCE, async || Ok((load.finished() > copied + 50).then_some(()))).await.unwrap();
    let moment = rand::rng().random_range(0..400_000);
    tokio::time::sleep(Duration::from_micros(moment)).await;
    fleet.kill_gateway().unwrap();
    let server = fleet.server(0).unwrap();
    server.kill().await.unwrap();
    server.restore(&copy).unwrap();
    let mut receipts = load.receipts().await.unwrap();
    // What was refused, as the disk stood still for a moment, was not served.
    receipts.retain(|receipt| receipt.status != 503);
    receipts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_takes_nothing_that_a_client_was_answered() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    // No ledger saves what only the stream had.
    fleet.scale(0).await.unwrap();
    fleet.set("METER_DURABILITY", "strict");
    fleet.stop_gateway().await.unwrap();
    fleet.start_gateway().await.unwrap();
    let mut receipts = Vec::new();
    for round in 0..rounds() {
        receipts.extend(cut(&mut fleet, round).await);
        fleet.server(0).unwrap().restart().await.unwrap();
        fleet.start_gateway().await.unwrap();
        fleet.relayed(patience()).await.unwrap();
    }
    fleet.scale(1).await.unwrap();
    fleet.recorded(patience()).await.unwrap();
    let contents = fleet.tables().await.unwrap().contents().await.unwrap();
    let complaints = account::complaints(&contents, &receipts, &upstream.request_ids(), Unbilled::default());
    assert!(complaints.is_empty(), "{} of {}: {complaints:#?}", complaints.len(), receipts.len());
    let reasons: BTreeSet<&str> = contents.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert!(reasons.iter().all(|reason| *reason == "unknown"), "{reasons:?}");
}
