//! A part of the stream is read again in its order, whatever happens meanwhile, and nothing of it is taken from anybody.

use std::time::Duration;

use async_nats::jetstream::stream;
use goldleaves_domain::Timestamp;
use goldleaves_stream::{Connection, Lag, Position, ReadError, Reader, ReaderOptions, STREAM, Span};
use goldleaves_testkit::nats::NatsServer;

use crate::support::{TOPOLOGY, connect, declare, deliveries, plain, publish_until_confirmed, publisher, within};

fn quick() -> ReaderOptions {
    ReaderOptions { batch_events: 100, patience: Duration::from_secs(30), ..ReaderOptions::default() }
}

async fn open(connection: &Connection, from: Position, to: Option<Position>) -> Result<Option<Reader>, ReadError> {
    within(Reader::open(connection, from, to, quick())).await
}

async fn span(connection: &Connection, from: Position, to: Option<Position>) -> Option<(u64, u64)> {
    open(connection, from, to).await.unwrap().map(|reader| (reader.span().first, reader.span().last))
}

/// Every sequence to the end, and the times they were stored.
async fn read(reader: &mut Reader) -> Vec<(u64, Timestamp)> {
    let mut read = Vec::new();
    while let Some(batch) = within(reader.next()).await.unwrap() {
        assert!(batch.len() <= 100, "{}", batch.len());
        read.extend(batch.iter().map(|message| (message.sequence, message.stored)));
    }
    read
}

fn sequences(read: &[(u64, Timestamp)]) -> Vec<u64> {
    read.iter().map(|(sequence, _)| *sequence).collect()
}

async fn filled(count: usize) -> (NatsServer, Connection) {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(count)).await;
    (server, connection)
}

#[tokio::test]
async fn a_span_is_read_whole_and_in_order_and_workers_lose_nothing() {
    let (server, connection) = filled(1_234).await;
    let mut reader = open(&connection, Position::Sequence(7), None).await.unwrap().unwrap();
    assert_eq!(reader.span(), Span { first: 7, last: 1_234 });
    assert_eq!(reader.span().len(), 1_228);
    // What comes meanwhile is not asked for.
    publish_until_confirmed(&publisher(&connection), &deliveries(50)).await;
    assert_eq!(sequences(&read(&mut reader).await), (7..=1_234).collect::<Vec<_>>());
    assert!(within(reader.next()).await.unwrap().is_none(), "and no more after the end");
    let lag = Lag::read(&connection).await.unwrap().unwrap();
    assert_eq!(lag.pending, 1_284);
    assert_eq!(lag.ack_pending, 0);
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.consumer_count, 1, "the reader's own consumer is gone");
}

#[tokio::test]
async fn ends_are_sequences_or_moments_of_storing() {
    let (_server, connection) = filled(40).await;
    let mut reader = open(&connection, Position::First, None).await.unwrap().unwrap();
    let read = read(&mut reader).await;
    for (sequence, stored) in &read {
        let at = Position::Time(*stored);
        // Several may have been stored in one microsecond.
        let first = read.iter().find(|(_, other)| other >= stored).unwrap().0;
        assert_eq!(span(&connection, at, None).await, Some((first, 40)), "{sequence} at {stored}");
        assert_eq!(span(&connection, Position::First, Some(at)).await, (first > 1).then_some((1, first - 1)));
    }
    let from_to = async |from, to| span(&connection, Position::Sequence(from), Some(Position::Sequence(to))).await;
    assert_eq!(from_to(3, 40).await, Some((3, 40)));
    assert_eq!(from_to(5, 5).await, Some((5, 5)));
    // The stream lost nothing: before its first message there was none, and after its last there is none yet.
    let long_ago = Position::Time("2020-01-01".parse().unwrap());
    let far = Position::Time("2100-01-01".parse().unwrap());
    assert_eq!(span(&connection, long_ago, Some(far)).await, Some((1, 40)));
    assert_eq!(span(&connection, far, None).await, None);
    assert_eq!(span(&connection, long_ago, Some(long_ago_and_a_day())).await, None);
}

fn long_ago_and_a_day() -> Position {
    Position::Time("2020-01-02".parse().unwrap())
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_is() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let words = async |from: &str, to: Option<&str>| {
        let to = to.map(|to| to.parse().unwrap());
        open(&connection, from.parse().unwrap(), to).await.unwrap_err().to_string()
    };
    assert!(words("first", None).await.contains("there is no stream USAGE"));
    let context = plain(&server.url()).await;
    let config = stream::Config { name: STREAM.to_owned(), subjects: vec!["usage.>".to_owned()], ..Default::default() };
    let stream = context.create_stream(config).await.unwrap();
    assert!(words("1", None).await.ends_with("holds nothing; its next message will be sequence 1"));
    assert_eq!(span(&connection, Position::First, None).await, None);

    for _ in 0..30 {
        context.publish("usage.v1.acme", "{}".into()).await.unwrap().await.unwrap();
    }
    stream.purge().sequence(11).await.unwrap();
    let expired = "is no longer in the stream USAGE, which begins with sequence 11, stored 20";
    for (from, to) in [("10", None), ("2020-01-01", None), ("first", Some("10")), ("first", Some("2020-01-01"))] {
        let words = words(from, to).await;
        assert!(words.contains(expired), "{from} {to:?}: {words}");
    }
    let beyond = "sequence 31 is not yet in the stream USAGE, which ends with sequence 30, stored 20";
    assert!(words("31", None).await.contains(beyond));
    assert!(words("11", Some("31")).await.contains(beyond));
    let reversed = words("20", Some("19")).await;
    assert!(reversed.contains("nothing lies between sequence 20 and sequence 19"), "{reversed}");
    let reversed = words("2100-01-02", Some("2100-01-01")).await;
    assert!(reversed.contains("the end comes before the start"), "{reversed}");
    assert_eq!(span(&connection, Position::First, None).await, Some((11, 30)));
}

#[tokio::test]
async fn what_expires_meanwhile_is_left_out_and_the_end_is_still_found() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let context = plain(&server.url()).await;
    let config = stream::Config { name: STREAM.to_owned(), subjects: vec!["usage.>".to_owned()], ..Default::default() };
    let stream = context.create_stream(config).await.unwrap();
    for _ in 0..20 {
        context.publish("usage.v1.acme", "{}".into()).await.unwrap().await.unwrap();
    }
    let mut holes = open(&connection, Position::First, Some(Position::Sequence(15))).await.unwrap().unwrap();
    let mut tail = open(&connection, Position::Sequence(18), None).await.unwrap().unwrap();
    for sequence in [3, 4, 14, 15, 19, 20] {
        stream.delete_message(sequence).await.unwrap();
    }
    let expected: Vec<u64> = (1..=13).filter(|sequence| ![3, 4].contains(sequence)).collect();
    assert_eq!(sequences(&read(&mut holes).await), expected);
    assert_eq!(sequences(&read(&mut tail).await), [18]);
    let mut gone = open(&connection, Position::Sequence(17), None).await.unwrap().unwrap();
    stream.purge().await.unwrap();
    assert!(read(&mut gone).await.is_empty());
}

#[tokio::test]
async fn a_server_that_dies_and_a_consumer_that_is_removed_cost_no_message() {
    let (mut server, connection) = filled(1_000).await;
    let mut reader = open(&connection, Position::First, None).await.unwrap().unwrap();
    let mut seen = Vec::new();
    let mut batches = 0;
    while let Some(batch) = within(reader.next()).await.unwrap() {
        seen.extend(batch.iter().map(|message| message.sequence));
        batches += 1;
        match batches {
            2 => {
                server.kill().await.unwrap();
                // Dropped while it waits, as by somebody who looks at something else too.
                assert!(tokio::time::timeout(Duration::from_millis(300), reader.next()).await.is_err());
                server.restart().await.unwrap();
            }
            5 => {
                let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
                let names = futures_util::TryStreamExt::try_collect::<Vec<_>>(stream.consumer_names()).await.unwrap();
                for name in names.into_iter().filter(|name| name.starts_with("replay-")) {
                    stream.delete_consumer(&name).await.unwrap();
                }
            }
            _ => {}
        }
    }
    assert_eq!(seen, (1..=1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_may_not_make_consumers_is_told_so() {
    let extra = "authorization { users: [ { user: all, password: all }, { user: some, password: some, permissions: { \
                 publish: { deny: [\"$JS.API.CONSUMER.CREATE.>\"] } } } ] }";
    let server = NatsServer::start_with(extra).await.unwrap();
    let as_user = |name: &str| server.url().replace("nats://", &format!("nats://{name}:{name}@"));
    let admin = connect(&as_user("all")).await;
    declare(&admin, TOPOLOGY).await;
    publish_until_confirmed(&publisher(&admin), &deliveries(3)).await;
    let connection = connect(&as_user("some")).await;
    let options = ReaderOptions { patience: Duration::from_millis(100), ..quick() };
    let mut reader = within(Reader::open(&connection, Position::First, None, options)).await.unwrap().unwrap();
    let error = within(reader.next()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string().to_lowercase();
    assert!(cause.contains("permissions violation"), "{error}: {cause}");
}
