//! `kill -9` under load and from inside a response's last byte: what was served is recorded once, whatever died when.
//!
//! Ten rounds as a rule; `GOLDLEAVES_SOAK=1` makes it two hundred.

use std::collections::BTreeSet;
use std::time::Duration;

use goldleaves_e2e::account::{self, Unbilled, client_ids};
use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::load::{Load, Receipt};
use goldleaves_e2e::tables::TableContents;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use rand::Rng as _;

use crate::chaos::ACK_WAIT;

on_both!(
    kill_nine_loses_and_doubles_nothing,
    kill_nine_loses_and_doubles_nothing_when_strict,
    ctrl_c_under_load_settles_every_request,
);

const CLIENTS: usize = 6;

fn rounds() -> usize {
    if crate::soak() { 200 } else { 10 }
}

/// Every kind of end a response can have.
fn answer(received: &Received) -> Answer {
    match received.target().rsplit('/').next() {
        Some("chunked") => Answer::chunked([b"one".to_vec(), b"two".to_vec()]),
        Some("trailers") => Answer::chunked([b"one".to_vec()]).trailer("X-Usage-Units", "2"),
        Some("empty") => Answer::head_only(204),
        Some("drip") => Answer::chunked(vec![b"x".to_vec(); 4]).dripping(Duration::from_millis(2)),
        Some("large") => Answer::ok(vec![b'x'; 300_000]),
        _ => Answer::ok("hello"),
    }
}

const KINDS: [&str; 6] = ["length", "chunked", "trailers", "empty", "drip", "large"];

/// The n-th request of a client in a round, with an id of its own.
fn request(token: &str, name: &str, number: usize) -> Request {
    let kind = KINDS[number % KINDS.len()];
    let method = if number % 7 == 6 { "HEAD" } else { "GET" };
    let request = Request::new(method, &format!("/api/v1/documents/{kind}"));
    request.token(token).header("X-Request-ID", &format!("{name}-{number}"))
}

/// Load, then a kill at a random moment.
async fn killed_under_load(deployment: &mut Deployment, round: usize) -> Vec<Receipt> {
    let token = deployment.token("acme").unwrap();
    let gateway = deployment.gateway().unwrap();
    let load =
        Load::start(gateway, CLIENTS, move |client, number| request(&token, &format!("r{round}-c{client}"), number));
    wait_for("the first responses", PATIENCE, async || Ok((load.finished() > 0).then_some(()))).await.unwrap();
    let moment = rand::rng().random_range(0..150_000);
    tokio::time::sleep(Duration::from_micros(moment)).await;
    deployment.kill().await.unwrap();
    load.receipts().await.unwrap()
}

/// Load, and one client that kills the gateway the moment it has read a response's last byte.
async fn killed_by_a_client(deployment: &mut Deployment, round: usize) -> Vec<Receipt> {
    let token = deployment.token("acme").unwrap();
    let gateway = deployment.gateway().unwrap();
    let own = request(&token, &format!("r{round}-killer"), round % KINDS.len());
    let load = Load::start(gateway, 2, move |client, number| request(&token, &format!("r{round}-c{client}"), number));
    let mut connection = Connection::open(gateway).await.unwrap();
    let response = connection.ask(&own).await.unwrap();
    deployment.kill().await.unwrap();
    assert!(response.body.complete);
    let mut receipts = load.receipts().await.unwrap();
    receipts.push(Receipt::of(&response).unwrap());
    receipts
}

/// Starts it once more, lets it record what is left, and stops it.
async fn settled(deployment: &mut Deployment, receipts: &[Receipt], upstream: &Upstream) -> TableContents {
    deployment.start_again().await.unwrap();
    let expected: BTreeSet<String> = upstream.request_ids().into_iter().collect();
    let tables = deployment.tables().await.unwrap();
    let all_there = |contents: &TableContents| expected.is_subset(&client_ids(contents));
    let contents = tables.wait("every served request to be recorded", all_there).await;
    if contents.is_err() {
        let found = client_ids(&tables.contents().await.unwrap());
        let missing: Vec<_> = expected.difference(&found).collect();
        panic!("{} receipts; served but never recorded: {missing:?}", receipts.len());
    }
    let status = deployment.stop().await.unwrap();
    assert_eq!(status.code(), Some(0));
    tables.contents().await.unwrap()
}

fn compare(contents: &TableContents, receipts: &[Receipt], upstream: &Upstream) {
    let served = upstream.request_ids();
    let distinct: BTreeSet<&String> = served.iter().collect();
    assert_eq!(distinct.len(), served.len(), "the gateway asked twice for one request");
    assert!(contents.duplicates.is_empty(), "every id was used once: {:?}", contents.duplicates);
    let billed: BTreeSet<_> = contents.events.iter().map(|row| &row.client_request_id).collect();
    assert_eq!(billed.len(), contents.events.len(), "an id has two rows");
    let complaints = account::complaints(contents, receipts, &served, Unbilled::default());
    assert!(complaints.is_empty(), "{complaints:#?}");
    let reasons: BTreeSet<&str> = contents.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert!(reasons.iter().all(|reason| *reason == "unknown"), "{reasons:?}");
}

async fn survives(kind: Kind, durability: &str) {
    let upstream = Upstream::start(answer).await.unwrap();
    let settings = [("UPSTREAM_URL", upstream.url()), ("METER_DURABILITY", durability.to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut deployment = Deployment::prepare(kind, &settings).unwrap();
    let mut receipts = Vec::new();
    for round in 0..rounds() {
        deployment.start_again().await.unwrap();
        if round == 0 {
            deployment.redeliver_after(ACK_WAIT).await.unwrap();
        }
        let of_round = match round % 2 {
            0 => killed_under_load(&mut deployment, round).await,
            _ => killed_by_a_client(&mut deployment, round).await,
        };
        assert!(!of_round.is_empty(), "round {round} served nothing");
        receipts.extend(of_round);
    }
    let contents = settled(&mut deployment, &receipts, &upstream).await;
    compare(&contents, &receipts, &upstream);
    println!(
        "{durability}: {} responses read, {} rows, {} unknown",
        receipts.len(),
        contents.len(),
        contents.dead_letters.len()
    );
}

async fn kill_nine_loses_and_doubles_nothing(kind: Kind) {
    survives(kind, "available").await;
}

async fn kill_nine_loses_and_doubles_nothing_when_strict(kind: Kind) {
    survives(kind, "strict").await;
}

async fn ctrl_c_under_load_settles_every_request(kind: Kind) {
    let upstream = Upstream::start(answer).await.unwrap();
    let mut deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let token = deployment.token("acme").unwrap();
    let gateway = deployment.gateway().unwrap();
    let load = Load::start(gateway, CLIENTS, move |client, number| request(&token, &format!("c{client}"), number));
    wait_for("some responses", PATIENCE, async || Ok((load.finished() > 50).then_some(()))).await.unwrap();
    assert_eq!(deployment.stop_gateway().await.unwrap().code(), Some(0));
    let receipts = load.receipts().await.unwrap();
    let tables = deployment.tables().await.unwrap();
    let contents = match kind {
        // Nothing is left for the next start to do.
        Kind::Embedded => tables.contents().await.unwrap(),
        // The gateway has handed everything to the stream; the worker goes on without it.
        Kind::Distributed => {
            tables.wait("the worker", |contents| contents.len() >= upstream.served().len()).await.unwrap()
        }
    };
    compare(&contents, &receipts, &upstream);
    assert!(contents.dead_letters.is_empty(), "{:?}", contents.dead_letters);
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}
