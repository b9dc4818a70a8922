//! Events of one tenant share messages, and a message's id says which events are in it, however they are read.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::wire::{self, BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Message};
use goldleaves_domain::{Delivery, EventId, Outcome, Source, UsageEvent};
use goldleaves_spool::{RealFileSystem, Record, RecordKind, Spool};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::receiver::*;
use crate::codec::{self, CodecError};
use crate::delivery::{self, ReadRecord};
use crate::packing::{PackingLimits, messages};
use crate::{CallIntent, Settlement};

/// One record to write.
#[derive(Debug, Clone)]
enum Step {
    /// A call of this tenant, with a user agent of so many bytes.
    Call(u8, usize),
    /// A call that an earlier epoch settled, as recovery settles it once more: a spool that was put back.
    Unknown(Index),
}

/// The records as they are read once.
#[derive(Debug, Clone)]
struct Reading {
    from: Index,
    windows: Vec<usize>,
    lost: Vec<Index>,
    unreadable: Vec<Index>,
    limits: (Option<usize>, Option<usize>),
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..3_u8, prop_oneof![8 => 0..40_usize, 1 => 0..2_000_usize]).prop_map(|(tenant, agent)| Step::Call(tenant, agent)),
        1 => any::<Index>().prop_map(Step::Unknown),
    ];
    vec(step, 1..300)
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let some = || vec(any::<Index>(), 0..4);
    let bytes = || prop_oneof![3 => Just(None), 1 => (2_000..60_000_usize).prop_map(Some)];
    let packs =
        prop_oneof![1 => Just(None), 6 => Just(Some(BATCH_BYTES_MAX)), 2 => (1_000..60_000_usize).prop_map(Some)];
    (any::<Index>(), vec(1..200_usize, 1..6), some(), some(), (bytes(), packs))
        .prop_map(|(from, windows, lost, unreadable, limits)| Reading { from, windows, lost, unreadable, limits })
}

/// Writes calls in one epoch, and copies of them as `unknown`, between others, in a second one.
async fn written(steps: &[Step]) -> Vec<Record> {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path(), crate::Durability::Available).spool;
    (options.bytes_max, options.segment_bytes) = (64 << 20, 1 << 20);
    let mut ids: Vec<EventId> = Vec::new();
    let half = steps.len() / 2;
    for (is_second, part) in [(false, &steps[..half]), (true, &steps[half..])] {
        let (spool, _) = Spool::open(options.clone(), RealFileSystem).unwrap();
        for step in part {
            let (call, settlement) = match step {
                Step::Call(tenant, agent) => (a_call(*tenant, *agent), settlement()),
                Step::Unknown(index) if is_second && !ids.is_empty() => {
                    (CallIntent { event_id: *index.get(&ids), ..a_call(0, 0) }, codec::unknown_settlement())
                }
                Step::Unknown(_) => continue,
            };
            if settlement.outcome != Outcome::Unknown && !is_second {
                ids.push(call.event_id);
            }
            write(&spool, &call, &settlement).await;
        }
        spool.sync_all().await.unwrap();
        spool.close();
    }
    let (spool, _) = Spool::open(options, RealFileSystem).unwrap();
    let mut reader = spool.history(None);
    let mut records = Vec::new();
    loop {
        let batch = reader.next_batch(1_000, 1 << 20).unwrap();
        if batch.is_empty() {
            spool.close();
            return records;
        }
        records.extend(batch);
    }
}

fn a_call(tenant: u8, agent: usize) -> CallIntent {
    CallIntent {
        event_id: EventId::new(Uuid::now_v7()),
        tenant_id: format!("tenant-{tenant}").parse().unwrap(),
        user_id: "user-1".parse().unwrap(),
        ts: goldleaves_domain::Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap(),
        traceparent: None,
        request_id: goldleaves_domain::RequestId::from_uuid(Uuid::now_v7()),
        client_request_id: None,
        route: "/api/v1/documents".parse().unwrap(),
        method: "GET".into(),
        user_agent: (agent > 0).then(|| "a".repeat(agent)),
        client_ip: None,
    }
}

async fn write(spool: &Spool, call: &CallIntent, settlement: &Settlement) {
    let mut bytes = codec::encode_call(call);
    let intent = loop {
        // A burst may outrun the next segment.
        match spool.intent(codec::CALL_VERSION, &bytes) {
            Ok(intent) => break intent,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    };
    codec::append_settlement(&mut bytes, settlement);
    spool.publish(intent, codec::CALL_VERSION, &bytes).unwrap();
}

fn source() -> Source {
    Source::new(Uuid::nil())
}

fn events(delivery: &Delivery) -> Vec<UsageEvent> {
    let event = |place: std::ops::Range<usize>| match wire::parse(&delivery.payload[place]) {
        Ok(Message::Event(event)) => Some(*event),
        Ok(Message::Seal(_)) | Err(_) => None,
    };
    wire::pieces(&delivery.payload).into_iter().filter_map(event).collect()
}

/// Checks one message, and notes which events its id stands for.
fn check(delivery: &Delivery, limits: (Option<usize>, Option<usize>), known: &mut BTreeMap<String, Vec<EventId>>) {
    let events = events(delivery);
    let Some(first) = events.first() else { return };
    let ids: Vec<EventId> = events.iter().map(|event| event.event_id).collect();
    assert_eq!(delivery.subject, wire::event_subject(&first.tenant_id));
    if ids.len() == 1 {
        assert_eq!(*delivery, Delivery::of_event(first), "one alone is not wrapped");
    } else {
        assert_eq!(delivery.message_id, format!("{}+{}", first.event_id, ids.len()));
        assert!(ids.len() <= BATCH_EVENTS_MAX && delivery.payload.len() <= limits.1.unwrap().min(BATCH_BYTES_MAX));
        assert!(limits.0.is_none_or(|most| delivery.payload.len() <= most));
        assert!(events.iter().all(|event| event.tenant_id == first.tenant_id && event.outcome != Outcome::Unknown));
        assert!(events.is_sorted_by(|a, b| a.epoch == b.epoch && a.seq < b.seq));
    }
    let before = known.entry(delivery.message_id.clone()).or_insert_with(|| ids.clone());
    if ids.len() > 1 || before.len() > 1 {
        assert_eq!(*before, ids, "the same id means the same events");
    }
}

/// Reads once, in these windows, and checks every message.
fn read_once(records: &[Record], reading: &Reading, known: &mut BTreeMap<String, Vec<EventId>>) {
    let pick = |picks: &[Index]| picks.iter().map(|pick| pick.index(records.len())).collect::<BTreeSet<_>>();
    let (lost, unreadable) = (pick(&reading.lost), pick(&reading.unreadable));
    let from = reading.from.index(records.len());
    let seen = records.iter().enumerate().skip(from).filter(|(place, _)| !lost.contains(place));
    let read = |(place, record): (usize, &Record)| {
        let damaged = unreadable.contains(&place);
        let read = if damaged {
            ReadRecord::Unreadable(CodecError::NewerVersion(9))
        } else {
            delivery::read(record, source())
        };
        (record.clone(), read)
    };
    let all: Vec<(Record, ReadRecord)> = seen.map(read).collect();
    let (bytes_max, packs) = reading.limits;
    let mut left = all.as_slice();
    for size in reading.windows.iter().cycle() {
        if left.is_empty() {
            break;
        }
        let (window, rest) = left.split_at((*size).min(left.len()));
        left = rest;
        let sent = messages(window, source(), PackingLimits { bytes_max, packs });
        sent.iter().for_each(|delivery| check(delivery, reading.limits, known));
        let arrived: Vec<EventId> = sent.iter().flat_map(events).map(|event| event.event_id).collect();
        let parts = sent.iter().filter(|delivery| delivery.message_id.contains("-part-1-of-")).count();
        let readable = window.iter().filter(|(_, read)| matches!(read, ReadRecord::Event(_))).count();
        assert_eq!(arrived.len() + parts, readable, "nothing is left out, nothing comes twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_id_means_the_same_events_however_they_are_read(
        steps in any_steps(), readings in vec(any_reading(), 2..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let records: Vec<Record> = runtime.block_on(written(&steps));
        let records: Vec<Record> =
            records.into_iter().filter(|record| matches!(record.kind, RecordKind::Publish { .. })).collect();
        prop_assume!(!records.is_empty());
        let mut known = BTreeMap::new();
        readings.iter().for_each(|reading| read_once(&records, reading, &mut known));
    }
}

#[tokio::test]
async fn a_receiver_that_packs_gets_events_of_one_tenant_together_and_one_alone_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::packing(BATCH_BYTES_MAX);
    receiver.becomes(Mood::Away);
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    let ids = capture(&running.recorder, 150).await;
    receiver.becomes(Mood::Confirms);
    until(|| running.shows("goldleaves_spool_unsent_records 0")).await;
    // The receiver was probed with single events first.
    let sizes: Vec<usize> = receiver.batches().concat().iter().map(|delivery| events(delivery).len()).collect();
    assert!(sizes.contains(&64) && sizes.iter().sum::<usize>() == 150, "{sizes:?}");
    assert!(running.shows("goldleaves_relayed_records_total 150"), "{}", running.metrics.text());
    let more = capture(&running.recorder, 1).await;
    until(|| receiver.events().len() == 151).await;
    let last = receiver.batches().concat().pop().unwrap();
    assert_eq!(last.message_id, more[0].to_string());
    assert!(!wire::is_batch(&last.payload));
    let all: Vec<EventId> = receiver.events().iter().map(|event| event.event_id).collect();
    assert_eq!(all, [ids, more].concat());
    assert_eq!(running.stop().await, 0);
}
