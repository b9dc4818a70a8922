//! Three servers that replicate: leaders that die, servers that ask their clients to go.

use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::Publisher as _;
use goldleaves_stream::{STREAM, Topology};
use goldleaves_testkit::nats::NatsCluster;

use crate::faults::soak;
use crate::support::{
    Load, assert_stored_once, connect, declare, deliveries, plain, publish_until_confirmed, publisher, within,
};

/// Room for all that a soak publishes.
const REPLICATED: Topology = Topology {
    replicas: 3,
    bytes_max: 4 * 1024 * 1024 * 1024,
    bytes_min: 4 * 1024 * 1024 * 1024,
    history: Duration::from_secs(45 * 86_400),
};

/// The name of the stream's leader, once there is one.
async fn leader(url: &str) -> String {
    within(async {
        loop {
            let stream = plain(url).await.get_stream(STREAM).await;
            let cluster = stream.ok().and_then(|stream| stream.cached_info().cluster.clone());
            if let Some(leader) = cluster.and_then(|cluster| cluster.leader) {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_killed_in_a_loop_lose_nothing_and_store_nothing_twice() {
    let mut cluster = NatsCluster::start().await.unwrap();
    let url = cluster.url();
    let connection = connect(&url).await;
    declare(&connection, REPLICATED).await;
    let publisher = Arc::new(publisher(&connection));
    let load = Load::start(&publisher, 200);
    for _ in 0..if soak() { 18 } else { 2 } {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let name = leader(&url).await;
        let server = cluster.server(&name).unwrap();
        server.kill().await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.restart().await.unwrap();
        leader(&url).await;
    }
    let sent = load.stop().await;
    assert!(publisher.stats().troubles > 0, "the kills were felt");
    leader(&url).await;
    assert_stored_once(&url, &sent).await;
    assert_eq!(publisher.stats().rewinds, 0, "an election is no loss");
    // The lame duck: a server that is about to go is left at once, and nobody notices.
    let name = connection.server_name();
    cluster.server(&name).unwrap().lame_duck().unwrap();
    within(async {
        while connection.server_name() == name || !connection.is_connected() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let more = deliveries(500);
    publish_until_confirmed(&publisher, &more).await;
    within(publisher.verify()).await.unwrap();
    let all: Vec<_> = sent.into_iter().chain(more).collect();
    let elsewhere: Vec<_> = cluster.servers.iter().filter(|server| server.name() != name).collect();
    assert_stored_once(&elsewhere[0].url(), &all).await;
}
