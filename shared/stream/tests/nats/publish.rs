//! Batches on a healthy server: everything confirmed is stored, once, with its headers.

use goldleaves_domain::{PublishError, Publisher};
use goldleaves_stream::{STREAM, StreamPublisher, Topology};
use goldleaves_testkit::nats::NatsServer;

use crate::support::{
    TOPOLOGY, assert_stored_once, connect, declare, deliveries, delivery, plain, publish_until_confirmed, publisher,
    quick, stream_config, within,
};

#[tokio::test]
async fn a_batch_is_stored_once_however_often_it_is_published() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    let batch = deliveries(5_000);
    within(publisher.publish(batch.clone())).await.unwrap();
    within(publisher.publish(batch.clone())).await.unwrap();
    within(publisher.publish(Vec::new())).await.unwrap();
    assert_stored_once(&server.url(), &batch).await;
    let stats = publisher.stats();
    assert_eq!(stats.confirmed, 10_000);
    assert_eq!(stats.duplicates, 5_000);
    assert_eq!(stats.without_receipt, 0);
    assert_eq!(stats.troubles, 0);
    within(publisher.verify()).await.unwrap();
}

#[tokio::test]
async fn a_message_carries_its_id_its_trace_and_its_bytes() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let mut sent = delivery("=C3=A9");
    let mut odd = delivery("acme");
    odd.traceparent = Some("no\r\nheader".to_owned());
    sent.payload = "{}".into();
    let mut several = delivery("acme");
    (several.payload, several.traceparent) = ("[{},{}]".into(), None);
    within(publisher(&connection).publish(vec![sent.clone(), odd, several])).await.unwrap();
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    let stored = stream.get_raw_message(1).await.unwrap();
    assert_eq!(stored.subject.as_str(), "usage.v1.=C3=A9");
    assert_eq!(stored.payload, sent.payload);
    assert_eq!(stored.headers.get("Nats-Msg-Id").unwrap().as_str(), sent.message_id);
    assert_eq!(stored.headers.get("traceparent").unwrap().as_str(), sent.traceparent.unwrap());
    assert!(stored.headers.get("Content-Type").is_none(), "one event alone is as it ever was");
    assert!(stream.get_raw_message(2).await.unwrap().headers.get("traceparent").is_none(), "left out, not fatal");
    let several = stream.get_raw_message(3).await.unwrap();
    assert_eq!(several.headers.get("Content-Type").unwrap().as_str(), "application/cloudevents-batch+json");
}

#[tokio::test]
async fn concurrent_batches_do_not_take_each_others_acks() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    let batches: Vec<_> = (0..8).map(|_| deliveries(300)).collect();
    let publishing = batches.iter().map(|batch| publisher.publish(batch.clone()));
    for outcome in within(futures_util::future::join_all(publishing)).await {
        outcome.unwrap();
    }
    // A batch whose caller went away in the middle disturbs the next one as little.
    let abandoned = deliveries(2_000);
    let _ = futures_util::FutureExt::now_or_never(publisher.publish(abandoned.clone()));
    within(publisher.publish(abandoned.clone())).await.unwrap();
    let all: Vec<_> = batches.into_iter().flatten().chain(abandoned).collect();
    assert_stored_once(&server.url(), &all).await;
}

#[tokio::test]
async fn a_full_stream_only_delays() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let small = Topology {
        replicas: 1,
        bytes_max: 256 * 1024,
        bytes_min: 256 * 1024,
        history: std::time::Duration::from_secs(45 * 86_400),
    };
    declare(&connection, small).await;
    let publisher = StreamPublisher::new(connection.clone(), small, quick());
    let batch = deliveries(2_000);
    let full = within(publisher.publish(batch.clone())).await.unwrap_err();
    assert!(matches!(&full, PublishError::Unconfirmed { reason } if reason.contains("maximum bytes")), "{full:?}");
    let mut config = stream_config(&server.url()).await;
    config.max_bytes = 64 * 1024 * 1024;
    plain(&server.url()).await.update_stream(&config).await.unwrap();
    // As a caller does that first tries with one message.
    publish_until_confirmed(&publisher, &batch[..1]).await;
    publish_until_confirmed(&publisher, &batch[1..]).await;
    assert_stored_once(&server.url(), &batch).await;
    assert_eq!(publisher.stats().duplicates, 0, "what was confirmed before it was full is not sent again");
}

#[tokio::test]
async fn a_message_larger_than_server_or_stream_take_is_named_before_anything_is_sent() {
    let server = NatsServer::start_with("max_payload: 4096").await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = StreamPublisher::new(connection, TOPOLOGY, quick());
    let of_size = |bytes| {
        let mut large = delivery("acme");
        large.payload = vec![b'x'; bytes].into();
        large
    };
    let error = within(publisher.publish(vec![delivery("acme"), of_size(10_000)])).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { bytes_max: 3_840 }), "{error:?}");
    let batch = vec![of_size(3_000)];
    publish_until_confirmed(&publisher, &batch).await;
    assert_stored_once(&server.url(), &batch).await;
    // Operations lower the limit: what the stream refuses shows the new one.
    let mut config = stream_config(&server.url()).await;
    config.max_message_size = 2_048;
    plain(&server.url()).await.update_stream(&config).await.unwrap();
    let error = within(publisher.publish(vec![of_size(3_000)])).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { bytes_max: 1_792 }), "{error:?}");
}
