//! A stream that lost what it confirmed is noticed, however it happened, and told as a rewind.

use goldleaves_domain::{PublishError, Publisher, RECEIPT_BYTES_MAX};
use goldleaves_stream::{CONSUMER, STREAM, StreamPublisher};
use goldleaves_testkit::nats::NatsServer;

use crate::support::{
    TOPOLOGY, assert_stored_once, connect, declare, deliveries, plain, publish_until_confirmed, publisher, within,
};

fn is_rewound(error: &PublishError) -> bool {
    matches!(error, PublishError::Rewound { .. })
}

#[tokio::test]
async fn a_deleted_stream_is_made_again_after_the_grace_and_told() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    let batch = deliveries(100);
    within(publisher.publish(batch.clone())).await.unwrap();
    plain(&server.url()).await.delete_stream(STREAM).await.unwrap();
    let first = within(publisher.verify()).await.unwrap_err();
    assert!(matches!(&first, PublishError::Unconfirmed { reason } if reason.contains("no stream")), "{first:?}");
    let rewound = within(async {
        loop {
            match publisher.publish(deliveries(1)).await.unwrap_err() {
                PublishError::Unconfirmed { .. } => {}
                rewound => break rewound,
            }
        }
    })
    .await;
    assert!(is_rewound(&rewound));
    assert_eq!(publisher.stats().rewinds, 1);
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    assert!(stream.consumer_info(CONSUMER).await.is_ok(), "the consumer is made again with it");
    publish_until_confirmed(&publisher, &batch).await;
    within(publisher.verify()).await.unwrap();
    assert_stored_once(&server.url(), &batch).await;
}

#[tokio::test]
async fn a_stream_made_by_another_hand_is_noticed_once() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    within(publisher.publish(deliveries(10))).await.unwrap();
    within(publisher.verify()).await.unwrap();
    plain(&server.url()).await.delete_stream(STREAM).await.unwrap();
    declare(&connection, TOPOLOGY).await;
    assert!(is_rewound(&within(publisher.verify()).await.unwrap_err()));
    within(publisher.verify()).await.unwrap();
}

/// Publishes 100, keeps a copy, publishes 100 more and puts the copy back, as a power cut or a restored backup would.
async fn roll_back(server: &mut NatsServer, publisher: &StreamPublisher) {
    publish_until_confirmed(publisher, &deliveries(100)).await;
    within(publisher.verify()).await.unwrap();
    server.kill().await.unwrap();
    let backup = server.back_up().unwrap();
    server.restart().await.unwrap();
    publish_until_confirmed(publisher, &deliveries(100)).await;
    server.kill().await.unwrap();
    server.restore(&backup).unwrap();
    server.restart().await.unwrap();
    within(publisher.connection().connected()).await;
}

async fn verdict(publisher: &StreamPublisher) -> Result<(), PublishError> {
    within(async {
        loop {
            match publisher.verify().await {
                Err(PublishError::Unconfirmed { .. }) => {}
                verdict => break verdict,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_stream_that_went_back_is_noticed() {
    let mut server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    roll_back(&mut server, &publisher).await;
    // What one look says may be a replica that still reads its log: nothing is sent, and it is looked at again.
    let suspicion = within(publisher.publish(deliveries(1))).await.unwrap_err();
    assert!(
        matches!(&suspicion, PublishError::Rewound { .. })
            || matches!(&suspicion, PublishError::Unconfirmed { reason } if reason.contains("seems to have lost")),
        "{suspicion:?}"
    );
    if !is_rewound(&suspicion) {
        assert!(is_rewound(&verdict(&publisher).await.unwrap_err()));
    }
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.last_sequence, 100, "nothing was sent meanwhile");
    verdict(&publisher).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_went_back_is_noticed_even_when_others_published_past_it() {
    let mut server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let (publisher, other) = (publisher(&connection), publisher(&connection));
    roll_back(&mut server, &publisher).await;
    publish_until_confirmed(&other, &deliveries(500)).await;
    // The batch itself is the first to meet the other stream: it looks before it sends.
    let mut outcome = within(publisher.publish(deliveries(50))).await;
    if outcome.is_ok() {
        outcome = verdict(&publisher).await;
    }
    assert!(is_rewound(&outcome.unwrap_err()));
}

/// A publisher that starts with what another one kept.
fn restarted(before: &StreamPublisher) -> StreamPublisher {
    let after = publisher(before.connection());
    let receipt = before.receipt();
    assert!(!receipt.is_empty() && receipt.len() <= RECEIPT_BYTES_MAX, "{receipt:?}");
    after.recall(&receipt);
    after
}

#[tokio::test]
async fn a_stream_made_anew_over_a_restart_of_the_publisher_is_noticed() {
    let mut server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let before = publisher(&connection);
    publish_until_confirmed(&before, &deliveries(100)).await;
    verdict(&restarted(&before)).await.unwrap();
    server.kill().await.unwrap();
    server.wipe().unwrap();
    server.restart().await.unwrap();
    within(connection.connected()).await;
    declare(&connection, TOPOLOGY).await;
    assert!(is_rewound(&verdict(&restarted(&before)).await.unwrap_err()));
}

#[tokio::test]
async fn a_stream_that_went_back_over_a_restart_of_the_publisher_is_noticed() {
    let mut server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let before = publisher(&connection);
    // No look at the stream lies between the last acknowledgement and the end: the receipt says it all.
    roll_back(&mut server, &before).await;
    let after = restarted(&before);
    assert!(is_rewound(&verdict(&after).await.unwrap_err()));
    verdict(&after).await.unwrap();
    assert_eq!(after.receipt(), "", "what was confirmed before the loss is forgotten");
}

#[tokio::test]
async fn a_stream_that_became_incompatible_takes_nothing_more() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let mut config = crate::support::stream_config(&server.url()).await;
    config.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
    plain(&server.url()).await.update_stream(&config).await.unwrap();
    let error = within(publisher(&connection).publish(deliveries(1))).await.unwrap_err();
    assert!(matches!(&error, PublishError::Unconfirmed { reason } if reason.contains("discard")), "{error:?}");
}
