//! The relay: in order, again after every doubt, and never past what has a receipt.

use std::time::Duration;

use goldleaves_domain::wire::{self, UnreadableReason};
use goldleaves_spool::{RealFileSystem, Spool};

use super::receiver::*;
use crate::RelayPace;

#[tokio::test]
async fn a_backlog_arrives_in_order_in_bounded_batches() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    receiver.becomes(Mood::Away);
    let mut options = options(directory.path(), Default::default());
    options.spool.bytes_max = 32 << 20;
    let running = Running::start_with(options, &receiver, NEVER).await;
    let ids = capture(&running.recorder, 5_000).await;
    receiver.becomes(Mood::Confirms);
    until(|| receiver.counts().0 == 5_000).await;
    assert_eq!(running.stop().await, 0);
    let events = receiver.events();
    assert_eq!(events.iter().map(|event| event.event_id).collect::<Vec<_>>(), ids);
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=5_000).collect::<Vec<_>>());
    assert!(receiver.batches().iter().all(|batch| batch.len() <= 4_000));
}

#[tokio::test]
async fn a_first_call_goes_at_once_and_those_close_behind_it_together() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    // So long that only the stop ends it.
    let pace = RelayPace { gather: Duration::from_secs(3_600), ..NEVER };
    let running = Running::start(directory.path(), &receiver, pace).await;
    let mut ids = capture(&running.recorder, 1).await;
    until(|| receiver.counts().0 == 1).await;
    for _ in 0..20 {
        ids.extend(capture(&running.recorder, 1).await);
    }
    assert_eq!(running.stop().await, 0);
    let sizes: Vec<_> = receiver.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 21], "twenty events and their seal");
    assert_eq!(receiver.events().iter().map(|event| event.event_id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn without_a_receipt_the_same_messages_come_again_with_the_same_ids() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    receiver.becomes(Mood::Silent(2));
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    let ids = capture(&running.recorder, 1).await;
    until(|| receiver.batches().len() == 3).await;
    let batches = receiver.batches();
    assert!(batches.iter().all(|batch| *batch == batches[0]), "{batches:?}");
    assert_eq!(batches[0][0].message_id, ids[0].to_string());
    until(|| running.shows("goldleaves_relay_batches_total{result=\"confirmed\"} 1")).await;
    assert!(running.shows("goldleaves_relay_batches_total{result=\"retried\"} 2"));
    assert!(running.shows("goldleaves_relay_failures_in_a_row 0"));
    assert_eq!(running.stop().await, 0);
}

#[tokio::test]
async fn a_receiver_that_is_away_is_probed_with_single_messages() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    receiver.becomes(Mood::Silent(4));
    let mut owed = Vec::new();
    for _ in 0..5 {
        owed.push(announce(&running.recorder).await);
    }
    owed.into_iter().for_each(|owed| owed.publish(settlement()));
    until(|| running.shows("goldleaves_spool_unsent_records 0")).await;
    let sizes: Vec<_> = receiver.batches().iter().map(Vec::len).collect();
    let doubted = &sizes[2..5];
    assert_eq!(doubted, [1, 1, 1], "{sizes:?}");
    assert_eq!(running.stop().await, 0);
}

#[tokio::test]
async fn a_receiver_that_lost_what_it_confirmed_gets_everything_retained_again() {
    for by_question in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let receiver = Receiver::new();
        let pace = RelayPace { verify: Duration::from_millis(30), ..NEVER };
        let running = Running::start(directory.path(), &receiver, if by_question { pace } else { NEVER }).await;
        let mut ids = capture(&running.recorder, 3).await;
        until(|| receiver.events().len() == 3).await;
        receiver.becomes(Mood::Forgot);
        if !by_question {
            ids.extend(capture(&running.recorder, 1).await);
        }
        until(|| receiver.events().len() == ids.len() + 3).await;
        let again: Vec<_> = receiver.events()[3..].iter().map(|event| event.event_id).collect();
        assert_eq!(again, ids);
        assert!(running.shows("goldleaves_relay_batches_total{result=\"rewound\"} 1"));
        assert_eq!(running.stop().await, 0);
        let seals = receiver.seals();
        assert_eq!(seals.iter().map(|seal| seal.count).max(), Some(ids.len() as u64), "nothing is sealed twice");
    }
}

#[tokio::test]
async fn a_stop_relays_what_it_can_and_leaves_the_rest_to_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    receiver.becomes(Mood::Away);
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    let ids = capture(&running.recorder, 40).await;
    assert_eq!(running.stop().await, 41, "forty events and their seal");
    assert_eq!(receiver.batches().len(), 0);
    receiver.becomes(Mood::Confirms);
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    assert_eq!(running.stop().await, 0);
    assert_eq!(receiver.events().iter().map(|event| event.event_id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn what_this_program_cannot_read_is_handed_on_as_bytes_and_is_not_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    {
        let (spool, _) = Spool::open(options(directory.path(), Default::default()).spool, RealFileSystem).unwrap();
        for (version, payload) in [(1_u8, b"damaged".as_slice()), (9, b"from a newer program")] {
            let intent = spool.intent(version, payload).unwrap();
            spool.publish(intent, version, payload).unwrap();
        }
        spool.intent(9, b"an open call of a newer program").unwrap();
        spool.intent(1, b"a damaged open call").unwrap();
        spool.note(1, b"a damaged seal").unwrap();
        spool.sync_all().await.unwrap();
        spool.close();
    }
    let receiver = Receiver::new();
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    let ids = capture(&running.recorder, 1).await;
    until(|| running.shows("goldleaves_relay_unreadable_records_total 4")).await;
    until(|| running.shows("goldleaves_spool_unsent_records 0")).await;
    assert!(running.shows("goldleaves_spool_open_intents 1"), "the newer program's call stays open for it");
    assert_eq!(running.stop().await, 0);
    let deliveries = receiver.batches().concat();
    let (mut reasons, mut read) = (Vec::new(), Vec::new());
    for delivery in &deliveries {
        match wire::parse(&delivery.payload) {
            Ok(message) => read.push(message),
            Err(unreadable) => reasons.push(unreadable.reason),
        }
    }
    let (bad, newer) = (UnreadableReason::Malformed, UnreadableReason::NewerVersion);
    assert_eq!(reasons, [bad, newer, bad, bad]);
    let hex: String = b"from a newer program".iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = |delivery: &goldleaves_domain::Delivery| String::from_utf8_lossy(&delivery.payload).contains(&hex);
    assert!(deliveries.iter().any(kept), "its bytes are kept");
    assert!(read.iter().any(|message| matches!(message, wire::Message::Event(event) if event.event_id == ids[0])));
}
