//! An event that nats-server does not take for its size: named, set aside with all of its bytes, and nothing waits behind it.

use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Upstream};

/// Less than an event with long names takes, and more than one with short ones.
const MAX_PAYLOAD: &str = "max_payload: 2500";

async fn call(fleet: &Fleet, tenant: &str, user_agent: &str) {
    let request = Request::get("/api/v1/documents").token(&fleet.token(tenant).unwrap());
    let gateway = fleet.address().borrow().unwrap();
    assert_eq!(request.header("User-Agent", user_agent).send(gateway).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_larger_than_max_payload_is_set_aside_and_stops_nothing() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let server = NatsServer::start_with(MAX_PAYLOAD).await.unwrap();
    let mut fleet = Fleet::start(vec![server], &upstream.url()).await.unwrap();
    let long = "t".repeat(255);
    call(&fleet, "acme", "short").await;
    call(&fleet, &long, &"x".repeat(3_000)).await;
    call(&fleet, "acme", "short").await;

    fleet.relayed(PATIENCE).await.unwrap();
    let tables = fleet.tables().await.unwrap();
    let contents = wait_for("what is behind it, and its parts", PATIENCE, async || {
        let contents = tables.contents().await?;
        Ok((contents.events.len() == 2 && contents.dead_letters.len() > 1).then_some(contents))
    })
    .await
    .unwrap();
    assert_eq!(fleet.count("goldleaves_relay_oversized_records_total").await.unwrap(), 1);
    let named = |said: &str| said.contains("larger than the receiver takes").then_some(());
    fleet.gateway().unwrap().printed("what was set aside", named).await.unwrap();

    // Together they are the event, to the last byte.
    let sql = "SELECT convert_from(payload, 'UTF8') FROM usage_dead_letters";
    let mut parts: Vec<(u64, String)> = tables
        .texts(sql)
        .await
        .unwrap()
        .iter()
        .map(|text| {
            let part: serde_json::Value = serde_json::from_str(text).unwrap();
            (part["data"]["part"].as_u64().unwrap(), part["data"]["bytes"].as_str().unwrap().to_owned())
        })
        .collect();
    parts.sort();
    assert_eq!(parts.len(), contents.dead_letters.len());
    let digits = parts.into_iter().map(|(_, digits)| digits).collect::<String>().into_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let event: serde_json::Value = serde_json::from_slice(&digits.chunks(2).map(byte).collect::<Vec<u8>>()).unwrap();
    assert_eq!((event["type"].as_str(), event["subject"].as_str()), (Some("goldleaves.usage.v1"), Some(&*long)));
    assert_eq!(tables.number("SELECT COUNT(*) FROM usage_dead_letters WHERE seq IS NOT NULL").await.unwrap(), 1);
}
