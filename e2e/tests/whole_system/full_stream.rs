//! A stream that fills up, and one whose consumer is deleted: what is billed makes room, what is not waits, and all of it is
//! billed once, without anyone asking.

use goldleaves_e2e::account::{self, Unbilled};
use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::{Load, Receipt};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::Value;

/// Room for some 1,400 events, several to a message.
const BYTES_MAX: u64 = 1024 * 1024;
const CALLS: u64 = 2_000;

async fn call(fleet: &Fleet, round: &'static str, calls: u64) -> Vec<Receipt> {
    let (token, gateway) = (fleet.token("acme").unwrap(), fleet.address().borrow().unwrap());
    let load = Load::start(gateway, 4, move |client, number| {
        Request::get("/api/v1/documents").token(&token).header("X-Request-ID", &format!("{round}-{client}-{number}"))
    });
    wait_for("the calls", PATIENCE, async || Ok((load.finished() >= calls).then_some(()))).await.unwrap();
    load.receipts().await.unwrap()
}

async fn stream(fleet: &Fleet) -> Value {
    fleet.ask_nats("$JS.API.STREAM.INFO.USAGE", &Value::Null).await.unwrap()["state"].clone()
}

/// Waits until the ledger has every call that was answered.
async fn all_billed(fleet: &Fleet, receipts: &[Receipt], upstream: &Upstream) {
    let tables = fleet.tables().await.unwrap();
    let served = upstream.request_ids();
    let mut complaints = Vec::new();
    let billed = wait_for("every call to be billed", PATIENCE * 2, async || {
        let contents = tables.contents().await?;
        complaints = account::complaints(&contents, receipts, &served, Unbilled::default());
        Ok(complaints.is_empty().then_some(()))
    });
    assert!(billed.await.is_ok(), "{complaints:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_billed_makes_room_and_what_is_not_never_goes() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let server = NatsServer::start().await.unwrap();
    let settings = [("STREAM_BYTES_MAX", BYTES_MAX.to_string())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut fleet = Fleet::start_with(vec![server], &upstream.url(), &settings).await.unwrap();

    // No worker: it fills up, and keeps all it has.
    fleet.scale(0).await.unwrap();
    let mut receipts = call(&fleet, "unbilled", CALLS).await;
    let full = wait_for("the stream to be full", PATIENCE, async || {
        let state = stream(&fleet).await;
        Ok((state["bytes"].as_u64() > Some(BYTES_MAX * 95 / 100)).then_some(state))
    })
    .await
    .unwrap();
    assert_eq!(full["first_seq"], 1, "{full}");
    assert!(fleet.count("goldleaves_spool_unsent_records").await.unwrap() > 0, "the rest waits in the spool");

    // A worker records it, and history makes room for what waits and for what comes.
    fleet.start_worker().await.unwrap();
    fleet.relayed(PATIENCE * 2).await.unwrap();
    receipts.extend(call(&fleet, "billed", CALLS).await);
    fleet.relayed(PATIENCE * 2).await.unwrap();
    all_billed(&fleet, &receipts, &upstream).await;
    let state = stream(&fleet).await;
    assert!(state["first_seq"].as_u64() > Some(1) && state["messages"].as_u64() > Some(10), "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_consumer_is_made_again_from_where_the_ledger_is() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let server = NatsServer::start().await.unwrap();
    let fleet = Fleet::start(vec![server], &upstream.url()).await.unwrap();
    let mut receipts = call(&fleet, "before", 50).await;
    fleet.relayed(PATIENCE).await.unwrap();
    fleet.recorded(PATIENCE).await.unwrap();
    let reached = stream(&fleet).await["last_seq"].as_u64().unwrap();
    let gone = fleet.ask_nats("$JS.API.CONSUMER.DELETE.USAGE.meter", &Value::Null).await.unwrap();
    assert_eq!(gone["success"], true, "{gone}");
    receipts.extend(call(&fleet, "after", 50).await);
    all_billed(&fleet, &receipts, &upstream).await;
    let config = fleet.consumer().await.unwrap()["config"].clone();
    assert_eq!(
        (&config["deliver_policy"], &config["max_deliver"]),
        (&"by_start_sequence".into(), &(-1).into()),
        "{config}"
    );
    assert!(config["opt_start_seq"].as_u64() > Some(reached), "what is recorded is not read again: {config}");
}
