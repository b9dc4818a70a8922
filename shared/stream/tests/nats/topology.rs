//! Stream and consumer are declared as designed, checked, and never changed back.

use std::time::Duration;

use async_nats::jetstream::{consumer, stream};
use goldleaves_stream::{
    CONSUMER, Declared, Existence, Footing, Mismatch, Present, STREAM, StreamRoom, Topology, TopologyError,
};
use goldleaves_testkit::nats::NatsServer;

use crate::support::{
    TOPOLOGY, connect, declare, deliveries, plain, publish_until_confirmed, publisher, stream_config,
};

#[tokio::test]
async fn the_declaration_is_what_the_design_says_and_a_second_one_finds_it() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let absent = Topology::check(&connection).await.unwrap();
    assert_eq!(absent, Present { stream: false, consumer: false });
    let made = TOPOLOGY.declare(&connection).await.unwrap();
    assert_eq!(made, Declared { stream: Existence::Created, consumer: Existence::Created });
    let found = TOPOLOGY.declare(&connection).await.unwrap();
    assert_eq!(found, Declared { stream: Existence::Found, consumer: Existence::Found });
    assert_eq!(Topology::check(&connection).await.unwrap(), Present { stream: true, consumer: true });

    let config = stream_config(&server.url()).await;
    assert_eq!(config.subjects, ["usage.v1.*", "usage.seal.v1.*"]);
    assert_eq!(config.retention, stream::RetentionPolicy::Limits);
    assert_eq!(config.storage, stream::StorageType::File);
    assert_eq!(config.discard, stream::DiscardPolicy::New);
    assert!(config.deny_delete && !config.deny_purge);
    assert_eq!(config.max_age, TOPOLOGY.history);
    assert_eq!(config.max_message_size, 128 * 1024);
    assert_eq!(config.max_age, Duration::from_secs(45 * 24 * 3_600));
    assert_eq!(config.max_bytes, 256 * 1024 * 1024);
    assert_eq!(config.duplicate_window, Duration::from_secs(300));
    assert_eq!(config.num_replicas, 1);
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    let meter = stream.consumer_info(CONSUMER).await.unwrap().config;
    assert_eq!(meter.durable_name.as_deref(), Some("meter"));
    assert_eq!(meter.ack_policy, consumer::AckPolicy::Explicit);
    assert_eq!(meter.deliver_policy, consumer::DeliverPolicy::All);
    assert_eq!(meter.max_deliver, -1);
    assert_eq!(meter.ack_wait, Duration::from_secs(60));
    assert_eq!(meter.max_ack_pending, 50_000);
    assert!(meter.filter_subject.is_empty() && meter.filter_subjects.is_empty(), "both subjects");
}

#[tokio::test]
async fn what_operations_may_change_is_compatible_and_stays_changed() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let plain = plain(&server.url()).await;
    let mut config = stream_config(&server.url()).await;
    config.max_age = Duration::from_secs(3_600);
    config.max_bytes = 1024 * 1024;
    config.duplicate_window = Duration::from_secs(30);
    config.subjects = vec!["usage.>".to_owned()];
    plain.update_stream(&config).await.unwrap();
    let stream = plain.get_stream(STREAM).await.unwrap();
    stream.delete_consumer(CONSUMER).await.unwrap();
    let replay = consumer::pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        deliver_policy: consumer::DeliverPolicy::ByStartSequence { start_sequence: 7 },
        max_ack_pending: 100,
        ..Default::default()
    };
    stream.create_consumer(replay).await.unwrap();

    let other_settings =
        Topology { replicas: 3, bytes_max: 1, bytes_min: 1, history: Duration::from_secs(45 * 86_400) };
    let found = other_settings.declare(&connection).await.unwrap();
    assert_eq!(found, Declared { stream: Existence::Found, consumer: Existence::Found });
    let after = stream_config(&server.url()).await;
    assert_eq!(after.max_age, Duration::from_secs(3_600));
    assert_eq!(after.max_bytes, 1024 * 1024);
    assert_eq!(after.num_replicas, 1);
    let meter = plain.get_stream(STREAM).await.unwrap().consumer_info(CONSUMER).await.unwrap().config;
    assert_eq!(meter.max_ack_pending, 100);
    assert_eq!(meter.deliver_policy, consumer::DeliverPolicy::ByStartSequence { start_sequence: 7 });
}

#[tokio::test]
async fn an_incompatible_stream_is_named_field_by_field() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["usage.v1.*".to_owned()],
        discard: stream::DiscardPolicy::Old,
        storage: stream::StorageType::Memory,
        deny_delete: true,
        ..Default::default()
    };
    plain(&server.url()).await.create_stream(config).await.unwrap();
    for error in [TOPOLOGY.declare(&connection).await.unwrap_err(), Topology::check(&connection).await.unwrap_err()] {
        assert!(!error.is_transient());
        let text = error.to_string();
        let TopologyError::Incompatible { mismatches } = error else { panic!("{error:?}") };
        let fields: Vec<&str> = mismatches.iter().map(|mismatch| mismatch.field).collect();
        assert_eq!(fields, ["storage", "discard", "subjects"]);
        let wanted = Mismatch {
            object: "stream USAGE",
            field: "discard",
            found: "\"old\"".to_owned(),
            wanted: "\"new\"".to_owned(),
        };
        assert!(mismatches.contains(&wanted), "{mismatches:?}");
        assert!(text.contains("stream USAGE: storage is \"memory\", must be \"file\""), "{text}");
    }
}

#[tokio::test]
async fn an_incompatible_consumer_is_named() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    stream.delete_consumer(CONSUMER).await.unwrap();
    let bounded = consumer::pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        max_deliver: 5,
        filter_subject: "usage.v1.acme".to_owned(),
        ..Default::default()
    };
    stream.create_consumer(bounded).await.unwrap();
    let TopologyError::Incompatible { mismatches } = TOPOLOGY.declare(&connection).await.unwrap_err() else {
        panic!("incompatible");
    };
    let fields: Vec<&str> = mismatches.iter().map(|mismatch| mismatch.field).collect();
    assert_eq!(fields, ["max_deliver", "filter_subjects"]);
}

#[tokio::test]
async fn what_the_server_can_not_give_is_refused_with_its_words() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let error = Topology {
        replicas: 3,
        bytes_max: 1024 * 1024,
        bytes_min: 1024 * 1024,
        history: Duration::from_secs(45 * 86_400),
    }
    .declare(&connection)
    .await
    .unwrap_err();
    let TopologyError::Refused { object, source } = &error else { panic!("{error:?}") };
    assert_eq!(*object, "stream USAGE");
    assert!(source.to_string().contains("replicas > 1 not supported"), "{source}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_default_that_there_is_no_room_for_is_halved_until_there_is() {
    const EXBIBYTE: u64 = 1 << 60;
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let chosen =
        Topology { replicas: 1, bytes_max: EXBIBYTE, bytes_min: EXBIBYTE, history: Duration::from_secs(45 * 86_400) };
    let error = chosen.declare(&connection).await.unwrap_err();
    assert!(format!("{:#}", anyhow::Error::new(error)).contains("insufficient storage"));
    let default = Topology { bytes_min: 1 << 20, ..chosen };
    assert_eq!(default.declare(&connection).await.unwrap().stream, Existence::Created);
    let bytes = u64::try_from(stream_config(&server.url()).await.max_bytes).unwrap();
    assert!(bytes.is_power_of_two() && (1 << 20..EXBIBYTE).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn no_event_can_be_deleted_and_history_is_purged_up_to_a_place() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(10)).await;
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    assert!(stream.delete_message(1).await.is_err());
    let room = StreamRoom::read(&connection).await.unwrap().unwrap();
    assert_eq!(room.messages, 10);
    assert_eq!(room.first_sequence, 1);
    assert_eq!(room.last_sequence, 10);
    assert_eq!(room.bytes_max, Some(TOPOLOGY.bytes_max));
    assert_eq!(room.age_max, Some(TOPOLOGY.history));
    assert!(room.oldest <= room.newest && room.oldest.is_some(), "{room:?}");
    assert_eq!(StreamRoom::purge(&connection, 8).await.unwrap(), 7);
    let room = StreamRoom::read(&connection).await.unwrap().unwrap();
    assert_eq!(room.messages, 3, "the one at the place is kept");
    assert_eq!(room.first_sequence, 8, "the one at the place is kept");
}

/// An earlier release changes of the consumer how much may be unacknowledged.
#[tokio::test]
async fn a_note_beside_the_acknowledgements_stays_whoever_changes_or_declares_the_consumer() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    Topology::note(&connection, "nobody is there").await.unwrap();
    declare(&connection, TOPOLOGY).await;
    let note = async || Footing::read(&connection).await.unwrap().unwrap().note;
    assert_eq!(note().await, None);
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    let before = stream.consumer_info(CONSUMER).await.unwrap().config;
    // As long as a note may be, in lines.
    let long = format!("{}\n", "x".repeat(127)).repeat(256);
    for text in ["one", &long, &long] {
        Topology::note(&connection, text).await.unwrap();
        assert_eq!(note().await.as_deref(), Some(text));
    }
    Topology::raise_ack_pending(&connection, 60_000).await.unwrap();
    TOPOLOGY.declare(&connection).await.unwrap();
    assert_eq!(note().await, Some(long));
    let after = stream.consumer_info(CONSUMER).await.unwrap().config;
    assert_eq!((before.max_ack_pending, after.max_ack_pending), (50_000, 60_000));
    let but_for_both =
        |config: consumer::Config| consumer::Config { max_ack_pending: 0, metadata: Default::default(), ..config };
    assert_eq!(but_for_both(after), but_for_both(before));
    stream.delete_consumer(CONSUMER).await.unwrap();
    Topology::make_consumer(&connection, 1).await.unwrap();
    assert_eq!(note().await, None, "a consumer that is made anew has none");
}
