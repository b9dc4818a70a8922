//! Batches come whole and in time, are delivered again unless acknowledged, and stop without leaving anything behind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer;
use goldleaves_stream::{
    Batch, CONSUMER, Connection, Consumer, ConsumerOptions, ConsumerState, Lag, Next, STREAM, Topology,
};
use goldleaves_testkit::nats::NatsServer;

use crate::support::{
    TOPOLOGY, connect, declare, deliveries, delivery, plain, publish_until_confirmed, publisher, within,
};

fn quick() -> ConsumerOptions {
    ConsumerOptions {
        batch_events: 100,
        batch_bytes: 4 << 20,
        batch_wait: Duration::from_millis(50),
        pull_expires: Duration::from_secs(1),
        heartbeat: Duration::from_millis(400),
    }
}

async fn batch(consumer: &mut Consumer) -> Batch {
    match within(consumer.next()).await {
        Next::Batch(batch) => batch,
        Next::Stopped => panic!("stopped"),
    }
}

fn sequences(batch: &Batch) -> Vec<u64> {
    batch.messages().iter().map(|message| message.sequence).collect()
}

/// The consumer with other settings, as operations may make it.
async fn remake_consumer(url: &str, config: consumer::pull::Config) {
    let stream = plain(url).await.get_stream(STREAM).await.unwrap();
    stream.delete_consumer(CONSUMER).await.unwrap();
    let config = consumer::pull::Config { durable_name: Some(CONSUMER.to_owned()), ..config };
    stream.create_consumer(config).await.unwrap();
}

/// From this sequence on, with this `ack_wait`.
fn starting_at(start_sequence: u64, ack_wait: Duration) -> consumer::pull::Config {
    let deliver_policy = consumer::DeliverPolicy::ByStartSequence { start_sequence };
    consumer::pull::Config { deliver_policy, ack_wait, ..Default::default() }
}

async fn lag(connection: &Connection) -> Lag {
    within(Lag::read(connection)).await.unwrap().unwrap()
}

/// Acks travel as plain messages: the server needs a moment. What reached a consumer too late to be read, as on a busy machine,
/// is delivered again after `ack_wait`, which is a minute.
async fn wait_for_lag(connection: &Connection, pending: u64, ack_pending: u64) {
    let settled = async {
        loop {
            let lag = lag(connection).await;
            if (lag.pending, lag.ack_pending) == (pending, ack_pending) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), settled).await.expect("settled within three minutes");
}

#[tokio::test]
async fn batches_are_full_or_due_and_never_wait_for_a_pull_to_expire() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    // Were a batch to wait for its pull, `within` would run out first.
    let slow =
        ConsumerOptions { pull_expires: Duration::from_secs(600), heartbeat: Duration::from_secs(200), ..quick() };
    let mut consumer = Consumer::new(connection.clone(), slow);
    publish_until_confirmed(&publisher, &deliveries(250)).await;
    let mut seen = Vec::new();
    while seen.len() < 250 {
        let batch = batch(&mut consumer).await;
        assert!(batch.messages().len() <= 100);
        consumer.settle(&batch, |_| false).await;
        seen.extend(sequences(&batch));
    }
    assert_eq!(seen, (1..=250).collect::<Vec<u64>>());
    for sequence in 251..=260 {
        let sent = delivery("acme");
        publish_until_confirmed(&publisher, std::slice::from_ref(&sent)).await;
        let batch = batch(&mut consumer).await;
        assert_eq!(sequences(&batch), [sequence]);
        assert_eq!(batch.messages()[0].payload, sent.payload);
        assert_eq!(batch.messages()[0].traceparent, sent.traceparent);
        assert_eq!(batch.messages()[0].delivered, 1);
        consumer.settle(&batch, |_| false).await;
    }
    wait_for_lag(&connection, 0, 0).await;
}

/// Holds for longer than `ack_wait`. False when the machine paused between two holds for so long that the server may have
/// delivered again.
async fn holds_without_pause(consumer: &mut Consumer, held: &Batch, ack_wait: Duration) -> bool {
    let begun = Instant::now();
    let mut last = begun;
    while begun.elapsed() < ack_wait + Duration::from_secs(1) {
        consumer.hold(held).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if last.elapsed() > ack_wait / 2 {
            return false;
        }
        last = Instant::now();
    }
    true
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_unless_it_is_held() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(5)).await;
    // A machine that has other work may pause for longer than `ack_wait` between two holds: then the next try has more of it.
    let mut tries = [8, 32, 120].into_iter().map(Duration::from_secs);
    let (mut consumer, held) = loop {
        let ack_wait = tries.next().expect("no pause is longer than the last try's wait");
        remake_consumer(&server.url(), starting_at(1, ack_wait)).await;
        let mut consumer = Consumer::new(connection.clone(), quick());
        let held = batch(&mut consumer).await;
        assert_eq!(sequences(&held), [1, 2, 3, 4, 5]);
        if holds_without_pause(&mut consumer, &held, ack_wait).await {
            break (consumer, held);
        }
    };
    assert_eq!(lag(&connection).await.redelivered, 0, "held");
    // One is set aside for good, two are acknowledged, two are not.
    consumer.settle(&held, |index| index == 0).await;
    wait_for_lag(&connection, 0, 0).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(2)).await;
    let unanswered = batch(&mut consumer).await;
    assert_eq!(sequences(&unanswered), [6, 7]);
    // In whatever order, and together or one by one.
    let mut again = BTreeSet::new();
    while again.len() < 2 {
        let batch = batch(&mut consumer).await;
        assert!(batch.messages().iter().all(|message| message.delivered >= 2));
        again.extend(sequences(&batch));
        consumer.settle(&batch, |_| false).await;
    }
    assert_eq!(again, [6, 7].into());
    wait_for_lag(&connection, 0, 0).await;
}

#[tokio::test]
async fn when_to_hold_moves_with_holding_alone() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = publisher(&connection);
    let mut consumer = Consumer::new(connection.clone(), quick());
    publish_until_confirmed(&publisher, &deliveries(1)).await;
    let first = batch(&mut consumer).await;
    let due = consumer.hold_at();
    consumer.settle(&first, |_| false).await;
    publish_until_confirmed(&publisher, &deliveries(1)).await;
    let second = batch(&mut consumer).await;
    assert_eq!(consumer.hold_at(), due, "a batch that comes later is held no later");
    consumer.hold(&second).await;
    assert!(consumer.hold_at() > due);
    consumer.settle(&second, |_| false).await;
}

/// A thread with a runtime of its own that publishes when it is told to, and says when it has.
fn publishing_beside(url: String) -> (std::sync::mpsc::Sender<usize>, std::sync::mpsc::Receiver<()>) {
    let (tell, told) = std::sync::mpsc::channel();
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let publisher = runtime.block_on(async { publisher(&connect(&url).await) });
        for count in told {
            runtime.block_on(publish_until_confirmed(&publisher, &deliveries(count)));
            say.send(()).unwrap();
        }
    });
    (tell, said)
}

#[tokio::test]
async fn what_arrives_while_a_worker_gets_no_processor_is_not_missed() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let (tell, said) = publishing_beside(server.url());
    let mut consumer = Consumer::new(connection.clone(), quick());
    for round in 0..3 {
        // A pull is open at the server, then this thread, which is all of the client, stands still for longer than a
        // server may be silent. What the server sends meanwhile lies in the socket.
        let asking = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await;
        assert!(asking.is_err(), "nothing to hand over: {asking:?}");
        tell.send(5).unwrap();
        said.recv().unwrap();
        std::thread::sleep(Duration::from_millis(1_500));
        let came = batch(&mut consumer).await;
        assert_eq!(sequences(&came), (round * 5 + 1..=round * 5 + 5).collect::<Vec<u64>>());
        assert!(came.messages().iter().all(|message| message.delivered == 1), "not only after a minute: {came:?}");
        consumer.settle(&came, |_| false).await;
    }
    wait_for_lag(&connection, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_share_everything() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let publisher = Arc::new(publisher(&connection));
    let load = tokio::spawn(async move {
        for _ in 0..20 {
            publish_until_confirmed(&publisher, &deliveries(200)).await;
        }
    });
    let mut handles = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..4 {
        let mut consumer = Consumer::new(connect(&server.url()).await, quick());
        handles.push(consumer.stop_handle());
        workers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Next::Batch(batch) = consumer.next().await {
                seen.extend(sequences(&batch));
                consumer.settle(&batch, |_| false).await;
            }
            seen
        }));
    }
    // One stops in the middle of the load, with messages on their way to it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    handles[0].stop();
    let mut all = within(workers.remove(0)).await.unwrap();
    within(load).await.unwrap();
    wait_for_lag(&connection, 0, 0).await;
    for handle in &handles {
        handle.stop();
    }
    for worker in workers {
        all.extend(within(worker).await.unwrap());
    }
    assert_eq!(all.iter().copied().collect::<BTreeSet<u64>>(), (1..=4_000).collect());
}

#[tokio::test]
async fn a_worker_waits_for_stream_and_consumer_and_makes_neither() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    let mut consumer = Consumer::new(connection.clone(), quick());
    let mut state = consumer.state();
    let stop = consumer.stop_handle();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let worker = tokio::spawn(async move {
        while let Next::Batch(batch) = consumer.next().await {
            noted.lock().unwrap().extend(sequences(&batch));
            consumer.settle(&batch, |_| false).await;
        }
    });
    // How often a message comes is JetStream's affair: a consumer that is made again delivers again. That it comes is ours.
    let mut before = 0;
    let mut came_since = || {
        let all = seen.lock().unwrap().clone();
        let came: BTreeSet<u64> = all.get(before..).unwrap().iter().copied().collect();
        before = all.len();
        came
    };
    let waiting = |state: &ConsumerState| matches!(state, ConsumerState::Waiting(why) if why.contains("no consumer"));
    within(state.wait_for(waiting)).await.unwrap();
    assert!(plain(&server.url()).await.get_stream(STREAM).await.is_err(), "it makes no stream");
    declare(&connection, TOPOLOGY).await;
    within(state.wait_for(|state| *state == ConsumerState::Ready)).await.unwrap();
    publish_until_confirmed(&publisher(&connection), &deliveries(10)).await;
    wait_for_lag(&connection, 0, 0).await;
    assert_eq!(came_since(), (1..=10).collect());
    // Operations replay from a sequence: delete the consumer and add it with another start.
    let stream = plain(&server.url()).await.get_stream(STREAM).await.unwrap();
    stream.delete_consumer(CONSUMER).await.unwrap();
    within(state.wait_for(waiting)).await.unwrap();
    declare(&connection, TOPOLOGY).await;
    remake_consumer(&server.url(), starting_at(8, Duration::from_secs(60))).await;
    wait_for_lag(&connection, 0, 0).await;
    let replayed = came_since();
    assert!((8..=10).all(|sequence| replayed.contains(&sequence)), "{replayed:?}");
    // The stream itself goes, and another one comes.
    plain(&server.url()).await.delete_stream(STREAM).await.unwrap();
    within(state.wait_for(waiting)).await.unwrap();
    declare(&connection, TOPOLOGY).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(3)).await;
    wait_for_lag(&connection, 0, 0).await;
    let of_the_new_stream = came_since();
    assert!((1..=3).all(|sequence| of_the_new_stream.contains(&sequence)), "{of_the_new_stream:?}");
    stop.stop();
    within(worker).await.unwrap();
}

#[tokio::test]
async fn a_consumer_made_incompatible_is_left_alone_and_named() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let config = consumer::pull::Config { max_deliver: 3, ..Default::default() };
    remake_consumer(&server.url(), config).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(1)).await;
    let mut consumer = Consumer::new(connection.clone(), quick());
    let mut state = consumer.state();
    let stop = consumer.stop_handle();
    let next = tokio::spawn(async move { consumer.next().await });
    let named =
        |state: &ConsumerState| matches!(state, ConsumerState::Waiting(why) if why.contains("max_deliver is 3"));
    within(state.wait_for(named)).await.unwrap();
    stop.stop();
    assert!(matches!(within(next).await.unwrap(), Next::Stopped));
    assert_eq!(lag(&connection).await.pending, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_or_dies_is_pulled_from_again() {
    let mut server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, Topology { ..TOPOLOGY }).await;
    let mut consumer = Consumer::new(connection.clone(), quick());
    let mut state = consumer.state();
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let stop = consumer.stop_handle();
    let worker = tokio::spawn(async move {
        while let Next::Batch(batch) = consumer.next().await {
            consumer.settle(&batch, |_| false).await;
            sequences(&batch).into_iter().for_each(|sequence| said.send(sequence).unwrap());
        }
    });
    within(state.wait_for(|state| *state == ConsumerState::Ready)).await.unwrap();
    server.suspend().unwrap();
    let silent = |state: &ConsumerState| matches!(state, ConsumerState::Waiting(_));
    within(state.wait_for(silent)).await.unwrap();
    server.resume().unwrap();
    let publisher = publisher(&connection);
    publish_until_confirmed(&publisher, &deliveries(1)).await;
    assert_eq!(within(heard.recv()).await, Some(1));
    server.kill().await.unwrap();
    within(state.wait_for(silent)).await.unwrap();
    server.restart().await.unwrap();
    publish_until_confirmed(&publisher, &deliveries(1)).await;
    let mut last = within(heard.recv()).await;
    // The ack of the first may have died with the server.
    while last == Some(1) {
        last = within(heard.recv()).await;
    }
    assert_eq!(last, Some(2));
    stop.stop();
    within(worker).await.unwrap();
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes_too_and_one_large_message_is_a_batch() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let mut messages = deliveries(6);
    for (message, bytes) in messages.iter_mut().zip([400, 400, 400, 5_000, 400, 400]) {
        message.payload = vec![b'x'; bytes].into();
    }
    publish_until_confirmed(&publisher(&connection), &messages).await;
    let options = ConsumerOptions { batch_bytes: 1_000, ..quick() };
    let mut consumer = Consumer::new(connection.clone(), options);
    let mut batches = Vec::new();
    while batches.iter().map(Vec::len).sum::<usize>() < 6 {
        let next = batch(&mut consumer).await;
        consumer.settle(&next, |_| false).await;
        batches.push(sequences(&next));
    }
    let sizes: Vec<usize> = batches
        .iter()
        .map(|batch| batch.iter().map(|at| messages[usize::try_from(*at).unwrap() - 1].payload.len()).sum())
        .collect();
    assert!(sizes.iter().all(|bytes| *bytes <= 1_000 || *bytes == 5_000), "{sizes:?}");
}

#[tokio::test]
async fn more_may_be_on_its_way_where_workers_wait_for_what_others_hold() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let config = consumer::pull::Config { max_ack_pending: 10, ..Default::default() };
    remake_consumer(&server.url(), config).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(30)).await;
    assert!(!lag(&connection).await.starves_workers(), "nobody waits");
    let (mut first, mut second) =
        (Consumer::new(connection.clone(), quick()), Consumer::new(connection.clone(), quick()));
    let held = batch(&mut first).await;
    assert_eq!(held.messages().len(), 10);
    let waiting = async {
        while !lag(&connection).await.starves_workers() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Topology::raise_ack_pending(&connection, 20).await.unwrap();
    };
    let (got, ()) = tokio::join!(batch(&mut second), waiting);
    assert!(!got.messages().is_empty());
    assert_eq!(lag(&connection).await.ack_pending_max, Some(20));
    Topology::raise_ack_pending(&connection, 15).await.unwrap();
    assert_eq!(lag(&connection).await.ack_pending_max, Some(20), "it is never lowered");
}

#[tokio::test]
async fn of_eighteen_workers_none_is_idle() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    // As many as seventeen hold that ask for two batches of five each.
    let config =
        consumer::pull::Config { max_ack_pending: 170, ack_wait: Duration::from_secs(600), ..Default::default() };
    remake_consumer(&server.url(), config).await;
    publish_until_confirmed(&publisher(&connection), &deliveries(400)).await;
    let options = || ConsumerOptions { batch_events: 5, ..quick() };
    let mut workers = Vec::new();
    for _ in 0..17 {
        let mut worker = Consumer::new(connection.clone(), options());
        assert_eq!(batch(&mut worker).await.messages().len(), 5);
        workers.push(worker);
    }
    let mut last = Consumer::new(connection.clone(), options());
    let fed = async {
        while !lag(&connection).await.starves_workers() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Topology::raise_ack_pending(&connection, 340).await.unwrap();
    };
    let (got, ()) = within(async { tokio::join!(batch(&mut last), fed) }).await;
    assert_eq!(got.messages().len(), 5, "the eighteenth has work");
}

#[tokio::test]
async fn no_more_bytes_are_asked_for_than_two_batches_have() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let mut messages = deliveries(400);
    // Small ones first, by which one would ask for many.
    for message in &mut messages[300..] {
        message.payload = vec![b'x'; 50_000].into();
    }
    publish_until_confirmed(&publisher(&connection), &messages).await;
    let options = ConsumerOptions { batch_bytes: 500_000, ..quick() };
    let mut consumer = Consumer::new(connection.clone(), options);
    let (mut read, mut most) = (Vec::new(), 0);
    while read.len() < 400 {
        let next = batch(&mut consumer).await;
        assert!(next.messages().iter().map(|message| message.payload.len()).sum::<usize>() <= 500_000);
        read.extend(sequences(&next));
        if read.len() > 300 {
            most = most.max(400 - lag(&connection).await.pending - read.len() as u64);
        }
        consumer.settle(&next, |_| false).await;
    }
    read.sort_unstable();
    assert_eq!(read, (1..=400).collect::<Vec<u64>>(), "each once");
    assert!(most <= 60, "{most} messages of 50,000 bytes were on their way at once");
}

/// Operations may allow a request less than the largest message has: that one comes all the same, alone.
#[tokio::test]
async fn a_message_larger_than_a_request_may_bring_comes_alone() {
    let server = NatsServer::start().await.unwrap();
    let connection = connect(&server.url()).await;
    declare(&connection, TOPOLOGY).await;
    let config = consumer::pull::Config { max_bytes: 3_000, ..Default::default() };
    remake_consumer(&server.url(), config).await;
    let mut messages = deliveries(20);
    messages[10].payload = vec![b'x'; 5_000].into();
    publish_until_confirmed(&publisher(&connection), &messages).await;
    let mut consumer = Consumer::new(connection.clone(), quick());
    let mut read = Vec::new();
    while read.len() < 20 {
        let next = batch(&mut consumer).await;
        read.extend(sequences(&next));
        consumer.settle(&next, |_| false).await;
    }
    assert_eq!(read, (1..=20).collect::<Vec<u64>>(), "each once, in order");
}
