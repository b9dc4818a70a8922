//! Room: what `bytes_max`, a full disk, retention and reservations do.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Fault, MemoryDisk, Op};
use super::model::options;
use super::{read_all, step};
use crate::*;

fn open(disk: &MemoryDisk, options: SpoolOptions) -> Spool {
    Spool::open_stepped(options, Arc::new(disk.clone())).unwrap().0
}

/// Publishes until an intent is refused twice with rounds between, returns why.
fn fill(spool: &Spool) -> AppendError {
    let mut refusals = 0;
    loop {
        match spool.intent(1, &[7; 1000]) {
            Ok(intent) => {
                spool.publish(intent, 1, &[8; 1200]).unwrap();
                refusals = 0;
            }
            Err(error) if refusals == 3 => return error,
            Err(_) => refusals += 1,
        }
        if refusals > 0 {
            step(spool);
        }
    }
}

#[test]
fn unsent_records_fill_the_spool_and_never_go() {
    let disk = MemoryDisk::new(1);
    let spool = open(&disk, options());
    assert_eq!(fill(&spool), AppendError::Full);
    assert!(disk.used() as u64 <= options().bytes_max, "{} bytes", disk.used());
    assert!(disk.used() as u64 > options().bytes_max / 2);
    assert!(!spool.stats().writable);
    let records = read_all(&spool);
    assert_eq!(records.len() as u64, spool.stats().unsent_records);

    // What is acknowledged makes room, however long it should have been retained.
    spool.advance(records[records.len() / 2].next_lsn);
    step(&spool);
    step(&spool);
    assert!(spool.stats().writable);
    spool.intent(1, b"goes on").unwrap();
    let left = read_all(&spool);
    assert_eq!(left, records[records.len() / 2 + 1..]);
}

#[test]
fn every_accepted_intent_can_be_settled_when_nothing_else_fits() {
    for size in [0, 10, 100, 500, 1500, 3000] {
        let disk = MemoryDisk::new(2);
        let spool = open(&disk, options());
        let mut open_intents = Vec::new();
        let mut refusals = 0;
        while refusals < 4 {
            match spool.intent(1, &vec![1; size]) {
                Ok(intent) => open_intents.push(intent),
                Err(_) => {
                    refusals += 1;
                    step(&spool);
                }
            }
        }
        assert!(open_intents.len() > 10);
        // Not even a spare can be made from here on.
        disk.fail(Some(Fault { from: 0, count: u64::MAX, kind: ErrorKind::StorageFull, only: Some(Op::Allocate) }));
        for (number, intent) in open_intents.iter().rev().enumerate() {
            let appended = spool.publish(*intent, 1, &vec![2; size + 200]).expect("room was reserved");
            assert_eq!(appended.seq, number as u64 + 1);
            if number % 5 == 0 {
                step(&spool);
            }
        }
        step(&spool);
        assert_eq!(read_all(&spool).len(), open_intents.len());
    }
}

#[test]
fn orphans_can_be_settled_on_a_disk_that_is_full_since() {
    let disk = MemoryDisk::new(3);
    let spool = open(&disk, options());
    let mut count = 0;
    while spool.intent(1, &[1; 700]).is_ok() {
        count += 1;
        step(&spool);
    }
    drop(spool);
    disk.kill();
    let (spool, recovered) = Spool::open_stepped(options(), Arc::new(disk.clone())).unwrap();
    assert_eq!(recovered.orphans.len(), count);
    disk.fail(Some(Fault { from: 0, count: u64::MAX, kind: ErrorKind::StorageFull, only: Some(Op::Allocate) }));
    for orphan in &recovered.orphans {
        spool.publish(orphan.intent, 1, &[2; 900]).unwrap();
    }
    step(&spool);
    assert_eq!(read_all(&spool).len(), count);
    assert_eq!(spool.stats().open_intents, 0);
}

#[test]
fn a_full_disk_is_counted_and_heals_by_itself() {
    let disk = MemoryDisk::new(4);
    disk.set_room(Some(250_000));
    let spool = open(&disk, options());
    assert_eq!(fill(&spool), AppendError::Unwritable { kind: ErrorKind::StorageFull });
    for _ in 0..5 {
        spool.unrecorded();
    }
    assert_eq!(spool.stats().unrecorded, 5);
    let epoch = spool.epoch();
    disk.set_room(None);
    step(&spool);
    spool.intent(1, b"recorded again").unwrap();
    drop(spool);
    disk.kill();
    let (_, recovered) = Spool::open_stepped(options(), Arc::new(disk)).unwrap();
    let counts: Vec<_> = recovered.epochs.iter().map(|record| (record.epoch, record.unrecorded)).collect();
    assert_eq!(counts, vec![(epoch, 5)]);
}

#[test]
fn a_disk_that_cannot_sync_refuses_intents_but_not_settlements() {
    let disk = MemoryDisk::new(5);
    let spool = open(&disk, options());
    step(&spool);
    let open_intents: Vec<_> = (0..10).map(|_| spool.intent(1, &[1; 100]).unwrap()).collect();
    disk.fail(Some(Fault { from: 0, count: u64::MAX, kind: ErrorKind::Other, only: Some(Op::Sync) }));
    for _ in 0..5 {
        assert_eq!(spool.shared.sync_step(), sync::SyncStep::Failed);
    }
    assert_eq!(spool.intent(1, b"x"), Err(AppendError::Unwritable { kind: ErrorKind::Other }));
    assert!(disk.used() as u64 <= options().bytes_max, "failed segments are cleaned up");
    for intent in &open_intents {
        spool.publish(*intent, 1, &[2; 100]).unwrap();
    }
    assert!(read_all(&spool).is_empty(), "nothing of it is durable");
    disk.fail(None);
    step(&spool);
    assert_eq!(read_all(&spool).len(), 10);
    spool.intent(1, b"x").unwrap();
    disk.cut_power();
}

#[test]
fn acknowledged_segments_go_after_retention_and_not_before() {
    let disk = MemoryDisk::new(6);
    // Enough for all of them and for the spares of a log that fills this fast.
    let options = || SpoolOptions { bytes_max: 16 * SEGMENT_BYTES_MIN, ..options() };
    let spool = open(&disk, options());
    for _ in 0..150 {
        let intent = spool.intent(1, &[1; 1000]).unwrap();
        spool.publish(intent, 1, &[2; 1000]).unwrap();
        step(&spool);
    }
    let records = read_all(&spool);
    spool.advance(records.last().unwrap().next_lsn);
    step(&spool);
    assert!(spool.stats().segments > 3, "retained for a rewind");
    assert_eq!(spool.stats().unsent_records, 0);
    spool.rewind().unwrap();
    assert_eq!(read_all(&spool), records);
    assert_eq!(spool.stats().unsent_records, 150);
    spool.advance(Lsn(u64::MAX));
    assert_eq!(spool.stats().unsent_records, 0);
    drop(spool);
    disk.kill();
    let spool = open(&disk, SpoolOptions { retain: Duration::ZERO, ..options() });
    // Everything was acknowledged, also when the process died before the cursor was durable.
    read_all(&spool);
    spool.advance(Lsn(u64::MAX));
    step(&spool);
    assert_eq!(spool.stats().segments, 1);
}

#[test]
fn a_reader_sent_back_is_not_overtaken_by_an_old_acknowledgement() {
    let disk = MemoryDisk::new(7);
    let spool = open(&disk, options());
    for _ in 0..10 {
        spool.note(1, b"n").unwrap();
    }
    step(&spool);
    let records = read_all(&spool);
    spool.rewind().unwrap();
    spool.advance(records[9].next_lsn);
    assert_eq!(spool.stats().unsent_records, 10);
    assert_eq!(read_all(&spool), records);
}

#[test]
fn open_intents_are_not_bounded_by_one_segment() {
    let disk = MemoryDisk::new(8);
    let large = SpoolOptions { bytes_max: 64 * SEGMENT_BYTES_MIN, ..options() };
    let spool = open(&disk, large.clone());
    let mut intents = Vec::new();
    let refused = loop {
        match spool.intent(1, &[1; 1000]) {
            Ok(intent) => intents.push(intent),
            Err(AppendError::Behind) => {}
            Err(error) => break error,
        }
        step(&spool);
        assert!(intents.len() < 5000);
    };
    assert_eq!(refused, AppendError::Full);
    assert!(!spool.is_writable(), "what is refused readiness says too");
    assert!(intents.len() as u64 * 1040 > 10 * SEGMENT_BYTES_MIN, "only {}", intents.len());
    for intent in &intents[500..] {
        spool.publish(*intent, 1, &[2; 1100]).expect("room was reserved");
    }
    step(&spool);
    drop(spool);
    disk.kill();
    let (spool, recovered) = Spool::open_stepped(large, Arc::new(disk)).unwrap();
    assert_eq!(recovered.orphans.iter().map(|orphan| orphan.intent).collect::<Vec<_>>(), intents[..500]);
    assert!(recovered.orphans.iter().all(|orphan| orphan.payload == vec![1; 1000]));
    for intent in &intents[..500] {
        spool.publish(*intent, 1, &[2; 1100]).expect("room was reserved");
    }
    assert!(spool.is_writable());
}

#[test]
fn readiness_says_what_the_largest_intent_is_told() {
    let disk = MemoryDisk::new(8);
    let spool = open(&disk, options());
    let largest = vec![1; (SEGMENT_BYTES_MIN / 16) as usize];
    let mut refusals = 0;
    for number in 0..400 {
        // Others of every size come between, so that each amount of room is met.
        let _ = spool.note(1, &vec![2; number * 8 % 512]);
        let said = spool.refuses();
        assert_eq!(spool.intent(1, &largest).err(), said, "after {number}");
        refusals += usize::from(said.is_some());
        if number % 3 == 0 {
            step(&spool);
        }
    }
    assert!(refusals > 0);
}

#[test]
fn an_intent_that_stays_open_holds_no_segment_back() {
    let disk = MemoryDisk::new(9);
    let brief = SpoolOptions { retain: Duration::ZERO, ..options() };
    let spool = open(&disk, brief.clone());
    let long = spool.intent(7, &[3; 900]).unwrap();
    let mut reader = spool.reader();
    for round in 0..400 {
        loop {
            match spool.intent(1, &[1; 1000]) {
                Ok(intent) => {
                    spool.publish(intent, 1, &[2; 1000]).unwrap();
                    break;
                }
                Err(error) => assert_ne!(error, AppendError::Closed),
            }
            step(&spool);
        }
        if let Some(last) = reader.next_batch(100, usize::MAX).unwrap().last() {
            spool.advance(last.next_lsn);
        }
        step(&spool);
        assert!(spool.stats().segments <= 4, "round {round}: {:?}", spool.stats());
    }
    drop((reader, spool));
    disk.cut_power();
    let (spool, recovered) = Spool::open_stepped(brief, Arc::new(disk)).unwrap();
    let found: Vec<_> = recovered.orphans.iter().map(|orphan| (orphan.intent, orphan.version)).collect();
    assert_eq!(found, [(long, 7)]);
    assert_eq!(recovered.orphans[0].payload, vec![3; 900]);
    spool.publish(long, 1, b"unknown").unwrap();
}

#[test]
fn a_large_spool_keeps_two_segments_ready() {
    for (segments, spares) in [(15, 1), (16, 2)] {
        let large = SpoolOptions { bytes_max: segments * SEGMENT_BYTES_MIN, ..options() };
        let (spool, _) = Spool::open_stepped(large, Arc::new(MemoryDisk::new(1))).unwrap();
        spool.shared.keep_round();
        assert_eq!(spool.stats().spares, spares);
    }
}
