//! Tests what the recorder owes: one settlement per call, whatever happens.

use goldleaves_domain::Outcome;
use goldleaves_spool::RealFileSystem;

use super::receiver::*;
use crate::{Durability, Unrecorded, VoidReason, open};

#[tokio::test]
async fn a_settled_call_arrives_once_with_everything_known_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    let call = call(&running.recorder);
    let owed = running.recorder.intend(call.clone()).unwrap();
    assert_eq!(owed.event_id(), call.event_id);
    owed.publish(settlement());
    assert_eq!(running.stop().await, 0);
    let events = receiver.events();
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(event.event_id, call.event_id);
    assert_eq!(event.tenant_id, call.tenant_id);
    assert_eq!(event.user_id, call.user_id);
    assert_eq!(event.ts, call.ts);
    assert_eq!(event.request_id, call.request_id);
    assert_eq!(event.route, call.route);
    assert_eq!(event.outcome, Outcome::Completed);
    assert_eq!(event.units, settlement().units);
    assert_eq!(event.seq, 1);
    assert_eq!(event.action.as_str(), "read");
    assert_eq!(event.metadata.status_code, 200);
    assert_eq!(event.metadata.response_bytes, 17);
}

#[tokio::test]
async fn a_void_call_leaves_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    for reason in VoidReason::ALL {
        announce(&running.recorder).await.void(reason);
    }
    assert_eq!(running.stop().await, 0);
    assert_eq!(receiver.messages(), []);
}

#[tokio::test]
async fn a_call_dropped_unsettled_is_recorded_as_unknown_also_by_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    let dropped = announce(&running.recorder).await;
    let panicked = announce(&running.recorder).await;
    let ids = [dropped.event_id(), panicked.event_id()];
    drop(dropped);
    let task = tokio::spawn(async move {
        let _owed = panicked;
        panic!("a bug");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(running.shows("goldleaves_capture_failures_total{step=\"dropped\"} 2"));
    assert_eq!(running.stop().await, 0);
    let events = receiver.events();
    assert_eq!(events.iter().map(|event| event.event_id).collect::<Vec<_>>(), ids);
    assert!(events.iter().all(|event| event.outcome == Outcome::Unknown && event.units.micro() == 0));
}

#[tokio::test]
async fn calls_open_when_the_process_died_come_first_in_the_next_epoch_as_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    let open_calls = [announce(&running.recorder).await, announce(&running.recorder).await];
    let orphans = open_calls.each_ref().map(|owed| owed.event_id());
    std::mem::forget(open_calls);
    let settled = capture(&running.recorder, 3).await;
    until(|| receiver.events().len() == 3).await;
    running.kill().await;

    // The killed process's handles are forgotten too, so its lock has to be looked past: a copy is what it left.
    let copy = tempfile::tempdir().unwrap();
    copy_files(directory.path(), copy.path());
    let second = Receiver::new();
    let running = Running::start(copy.path(), &second, NEVER).await;
    let live = capture(&running.recorder, 1).await;
    assert!(running.shows("goldleaves_recovered_calls_total 2"));
    assert_eq!(running.stop().await, 0);
    let mut events = second.events();
    events.retain(|event| !settled.contains(&event.event_id));
    let seen: Vec<_> = events.iter().map(|event| (event.event_id, event.outcome, event.seq)).collect();
    let expected =
        [(orphans[0], Outcome::Unknown, 1), (orphans[1], Outcome::Unknown, 2), (live[0], Outcome::Completed, 3)];
    assert_eq!(seen, expected);
    assert_eq!(events[0].epoch, events[2].epoch);
    assert_ne!(events[0].epoch, receiver.events()[0].epoch);
}

/// Copies what is there. A live spool may remove or rename a file between the list and the copy: then a crash at that
/// moment would have found it gone, too.
pub(super) fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
}

#[tokio::test]
async fn a_full_spool_is_served_on_counted_and_red_and_says_so_in_the_seal() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    receiver.becomes(Mood::Away);
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    assert_eq!(running.recorder.health().unrecorded, 0);
    let (mut unrecorded, mut recorded) = (0, 0);
    while unrecorded < 5 {
        match running.recorder.intend(call(&running.recorder)) {
            Ok(owed) => {
                recorded += 1;
                owed.publish(settlement());
            }
            Err(Unrecorded) => unrecorded += u64::from(!running.recorder.health().has_room && is_full(&running)),
        }
    }
    let health = running.recorder.health();
    assert!(!health.has_room && health.unrecorded >= 5, "{health:?}");
    assert!(running.shows(&format!("goldleaves_unrecorded_calls_total {}", health.unrecorded)));
    assert!(running.shows(&format!("goldleaves_capture_failures_total{{step=\"intent\"}} {}", health.unrecorded)));
    let detail = "the spool takes no records; {} calls were served without a record since the start";
    assert_eq!(health.to_string(), detail.replace("{}", &health.unrecorded.to_string()));
    assert!(running.shows("goldleaves_spool_writable 0"));
    assert!(running.shows(&format!("goldleaves_captured_events_total{{outcome=\"completed\"}} {recorded}")));

    receiver.becomes(Mood::Confirms);
    until(|| receiver.counts().0 == recorded).await;
    until(|| running.recorder.health().has_room).await;
    assert_eq!(running.stop().await, 0);
    let last = receiver.seals().pop().unwrap();
    assert_eq!(last.unrecorded, health.unrecorded);
    assert_eq!(last.count, recorded as u64);
    assert!(last.closed);
}

/// The file system is never full here, so what refuses is the limit.
fn is_full(running: &Running) -> bool {
    running.metrics.text().lines().any(|line| {
        line.strip_prefix("goldleaves_spool_bytes ").is_some_and(|bytes| bytes.parse::<u64>().unwrap() > 3 << 20)
    })
}

#[tokio::test]
async fn strict_counts_no_call_as_served_without_a_record_and_waits_for_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let metrics = goldleaves_runtime::Metrics::new();
    let side = open(options(directory.path(), Durability::Strict), RealFileSystem, &metrics).await.unwrap();
    assert_eq!(side.recorder.durability(), Durability::Strict);
    let owed = side.recorder.intend(call(&side.recorder)).unwrap();
    assert_eq!(owed.durable().await, Ok(()));
    owed.void(VoidReason::StatusNotBillable);
    while side.recorder.intend(call(&side.recorder)).map(|owed| owed.publish(settlement())).is_ok() {}
    assert!(shows(&metrics, "goldleaves_capture_failures_total{step=\"intent\"} 1"));
    assert!(shows(&metrics, "goldleaves_unrecorded_calls_total 0"));
}

#[tokio::test]
async fn what_ends_after_the_last_seal_is_left_to_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    capture(&running.recorder, 2).await;
    let late = announce(&running.recorder).await;
    let (late_id, recorder, metrics) = (late.event_id(), running.recorder.clone(), running.metrics.clone());
    assert_eq!(running.stop().await, 0);
    assert_eq!(late.durable().await, Ok(()), "it was durable before");
    late.publish(settlement());
    assert!(shows(&metrics, "goldleaves_capture_failures_total{step=\"late\"} 1"));
    assert_eq!(recorder.intend(call(&recorder)).unwrap_err(), Unrecorded);
    drop(recorder);
    drop(metrics);

    let second = Receiver::new();
    let running = Running::start(directory.path(), &second, NEVER).await;
    assert_eq!(running.stop().await, 0);
    let events = second.events();
    assert_eq!(
        events.iter().map(|event| (event.event_id, event.outcome)).collect::<Vec<_>>(),
        [(late_id, Outcome::Unknown)]
    );
    assert!(receiver.seals().iter().any(|seal| seal.closed && seal.count == 2));
}
