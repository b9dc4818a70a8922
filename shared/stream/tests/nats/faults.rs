//! Servers that die, hang and are away: nothing lost, nothing stored twice, nothing sent into the void.

use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{PublishError, Publisher};
use goldleaves_testkit::nats::NatsServer;

use crate::support::{
    Load, TOPOLOGY, assert_stored_once, connect, declare, deliveries, publish_until_confirmed, publisher, within,
};

/// More of everything that repeats.
pub(crate) fn soak() -> bool {
    std::env::var_os("GOLDLEAVES_SOAK").is_some_and(|value| value == "1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_restarted_under_load_nothing_is_lost_or_stored_twice() {
    let mut server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = Arc::new(publisher(&connection));
    let load = Load::start(&publisher, 500);
    for round in 0..if soak() { 30 } else { 4 } {
        tokio::time::sleep(Duration::from_millis(300 + 70 * (round % 5))).await;
        server.kill().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100 * (round % 3))).await;
        server.restart().await.unwrap();
    }
    let sent = load.stop().await;
    assert!(publisher.stats().troubles > 0, "the kills were felt");
    assert_stored_once(&server.url(), &sent).await;
    within(publisher.verify()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_for_ten_seconds_costs_only_time() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = Arc::new(publisher(&connection));
    let batch = deliveries(3_000);
    within(publisher.publish(batch[..1_000].to_vec())).await.unwrap();
    server.suspend().unwrap();
    let publishing = tokio::spawn({
        let (publisher, batch) = (publisher.clone(), batch[1_000..].to_vec());
        async move { publish_until_confirmed(&publisher, &batch).await }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!publishing.is_finished(), "nothing is confirmed by a server that hangs");
    server.resume().unwrap();
    within(publishing).await.unwrap();
    assert_stored_once(&server.url(), &batch).await;
}

#[tokio::test]
async fn while_the_server_is_away_nothing_is_sent() {
    let mut server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    let batch = deliveries(1_000);
    within(publisher.publish(batch[..1].to_vec())).await.unwrap();
    server.kill().await.unwrap();
    within(connection.disconnected()).await;
    let before = connection.messages_sent();
    for _ in 0..2 {
        let away = within(publisher.publish(batch.clone())).await.unwrap_err();
        assert!(matches!(&away, PublishError::Unconfirmed { reason } if reason.contains("not connected")), "{away:?}");
    }
    let away = within(publisher.verify()).await.unwrap_err();
    assert!(matches!(away, PublishError::Unconfirmed { .. }));
    server.restart().await.unwrap();
    within(connection.connected()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(connection.messages_sent() - before, 0, "what was queued would be sent after the reconnect");
    publish_until_confirmed(&publisher, &batch).await;
    assert_stored_once(&server.url(), &batch).await;
}
