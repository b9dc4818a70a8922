//! Three nats-servers whose leader dies again and again, and a stream that is deleted: through the whole system nothing is
//! lost and nothing is billed twice.
//!
//! Two leaders as a rule, eighteen with `GOLDLEAVES_SOAK=1`; a deleted stream is declared again by hand as a rule, and left to
//! the gateway's half minute then.

use std::time::Duration;

use goldleaves_e2e::account::Unbilled;
use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::{LoadPlan, SteadyLoad};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::{NatsCluster, NatsServer};
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::Value;

use crate::chaos::{ACK_WAIT, judge};
use crate::soak;

const PLAN: LoadPlan = LoadPlan { clients: 4, pause: Duration::from_millis(20), requests: None };

fn load(fleet: &Fleet) -> SteadyLoad {
    let token = fleet.token("acme").unwrap();
    SteadyLoad::start(fleet.address(), PLAN, move |number| {
        Request::get("/api/v1/documents").token(&token).header("X-Request-ID", &format!("cluster-{number}"))
    })
}

/// The place of the stream's leader, once there is one that answers.
async fn leader(fleet: &Fleet) -> usize {
    wait_for("a leader of the stream", PATIENCE, async || {
        let found = fleet.ask_nats("$JS.API.STREAM.INFO.USAGE", &Value::Null).await.unwrap_or_default();
        let name = found.pointer("/cluster/leader").and_then(Value::as_str).map(str::to_owned);
        Ok(name.and_then(|name| fleet.nats.iter().position(|server| server.name() == name)))
    })
    .await
    .unwrap()
}

async fn more(load: &SteadyLoad, count: u64) {
    let wanted = load.finished() + count;
    wait_for("more requests", PATIENCE, async || Ok((load.finished() >= wanted).then_some(()))).await.unwrap();
}

/// Lets everything through, stops, and compares.
async fn settle(mut fleet: Fleet, load: SteadyLoad, upstream: &Upstream) {
    let asked = load.stop().await.unwrap();
    fleet.relayed(3 * PATIENCE).await.unwrap();
    assert_eq!(fleet.stop_gateway().await.unwrap().code(), Some(0));
    fleet.recorded(3 * PATIENCE).await.unwrap();
    assert!(asked.iter().all(|asked| asked.broken.is_none()), "no request breaks");
    let contents = judge(&fleet, &asked, upstream, Unbilled::default()).await;
    assert_eq!(contents.events.len(), upstream.request_ids().len(), "each once, nothing else");
    fleet.scale(0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_killed_in_a_loop_lose_and_double_nothing() {
    let upstream = Upstream::start_keeping_ids(|_| Answer::ok("hello")).await.unwrap();
    let cluster = NatsCluster::start().await.unwrap();
    let mut fleet = Fleet::start(cluster.servers, &upstream.url()).await.unwrap();
    fleet.redeliver_after(ACK_WAIT).await.unwrap();
    fleet.scale(2).await.unwrap();
    let load = load(&fleet);
    for _ in 0..if soak() { 18 } else { 2 } {
        more(&load, 50).await;
        let leader = leader(&fleet).await;
        fleet.server(leader).unwrap().kill().await.unwrap();
        more(&load, 50).await;
        fleet.server(leader).unwrap().restart().await.unwrap();
    }
    leader(&fleet).await;
    assert_eq!(fleet.count("goldleaves_relay_batches_total{result=\"rewound\"}").await.unwrap(), 0, "no loss is seen");
    settle(fleet, load, &upstream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_stream_is_filled_again_from_the_spool() {
    let upstream = Upstream::start_keeping_ids(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    let load = load(&fleet);
    more(&load, 100).await;
    // What the workers have is recorded; what comes now is in the stream alone.
    fleet.scale(0).await.unwrap();
    more(&load, 100).await;
    wait_for("a stream with messages nobody has recorded", PATIENCE, async || {
        Ok(fleet.consumer().await?.get("num_pending").and_then(Value::as_u64).filter(|pending| *pending > 50))
    })
    .await
    .unwrap();
    let deleted = fleet.ask_nats("$JS.API.STREAM.DELETE.USAGE", &Value::Null).await.unwrap();
    assert_eq!(deleted["success"], true, "{deleted}");
    if !soak() {
        fleet.migrate().await.unwrap();
    }
    more(&load, 100).await;
    wait_for("the loss to be seen", 2 * PATIENCE, async || {
        Ok((fleet.count("goldleaves_relay_batches_total{result=\"rewound\"}").await? > 0).then_some(()))
    })
    .await
    .unwrap();
    fleet.scale(2).await.unwrap();
    settle(fleet, load, &upstream).await;
}
