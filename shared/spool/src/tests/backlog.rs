//! A large backlog: what a start, a reader at a segment's end and retention make of it.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::disk::{Fault, MemoryDisk, Op};
use super::model::options;
use super::{set_clock, step};
use crate::*;

const DAY: u64 = 24 * 3600;

fn open(disk: &MemoryDisk, options: &SpoolOptions) -> (Spool, Recovered) {
    Spool::open_stepped(options.clone(), Arc::new(disk.clone())).unwrap()
}

/// A number of segments of notes nobody took, and an open intent in the first.
fn filled(disk: &MemoryDisk, options: &SpoolOptions, segments: usize) -> (u64, IntentId) {
    let (spool, _) = open(disk, options);
    let intent = spool.intent(5, b"open all the time").unwrap();
    let mut notes = 0_u64;
    while spool.stats().segments < segments {
        step(&spool);
        for _ in 0..8 {
            notes += u64::from(spool.note(1, &[7; 1000]).is_ok());
        }
    }
    step(&spool);
    (notes, intent)
}

#[test]
fn a_start_does_not_read_what_waits() {
    let disk = MemoryDisk::new(1);
    let large = SpoolOptions { bytes_max: 200 * SEGMENT_BYTES_MIN, ..options() };
    let (notes, intent) = filled(&disk, &large, 150);
    let spares = 50;
    disk.kill();
    for acknowledged in [0, 7000] {
        let before = disk.bytes_read();
        let (spool, recovered) = open(&disk, &large);
        let read = disk.bytes_read() - before;
        // Spares are looked at: for a frame, for one behind a hole, and for other bytes.
        assert!(read < (10 + 3 * spares) * SEGMENT_BYTES_MIN, "{read} bytes were read, of {}", disk.used());
        assert_eq!(recovered.unsent, notes - acknowledged);
        assert_eq!(recovered.orphans.iter().map(|orphan| orphan.intent).collect::<Vec<_>>(), [intent]);
        assert_eq!(recovered.orphans[0].payload, "open all the time");
        assert_eq!(spool.stats().unsent_records, notes - acknowledged);
        if acknowledged == 0 {
            let batch = spool.reader().next_batch(7000, usize::MAX).unwrap();
            spool.advance(batch.last().unwrap().next_lsn);
            step(&spool);
        }
        drop(spool);
        disk.kill();
    }
}

#[test]
fn a_reader_waits_at_a_segments_end_while_syncs_fail() {
    let disk = MemoryDisk::new(2);
    let (spool, _) = open(&disk, &options());
    spool.shared.keep_round();
    while spool.stats().segments == 1 {
        spool.note(1, &[7; 3000]).unwrap();
    }
    assert_eq!(spool.shared.sync_step(), sync::SyncStep::Done, "the first segment");
    disk.fail(Some(Fault { from: 0, count: u64::MAX, kind: std::io::ErrorKind::Other, only: Some(Op::Sync) }));
    spool.shared.sync_step();
    let mut reader = spool.reader();
    while !reader.next_batch(100, usize::MAX).unwrap().is_empty() {}
    let mut ready = std::pin::pin!(reader.wait_ready());
    assert!(ready.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it would ask again and again");
}

/// A clock that is set right, a year later or earlier, is no reason to let go what is kept for a rewind.
#[test]
fn a_clock_that_leaps_lets_nothing_go() {
    let start = 1_800_000_000;
    let kept = SpoolOptions { bytes_max: 64 * SEGMENT_BYTES_MIN, retain: Duration::from_secs(DAY), ..options() };
    for leapt in [start + 365 * DAY, start - 365 * DAY] {
        set_clock(start);
        let disk = MemoryDisk::new(3);
        let (notes, _) = filled(&disk, &kept, 6);
        disk.kill();
        let (spool, _) = open(&disk, &kept);
        let batch = spool.reader().next_batch(10_000, usize::MAX).unwrap();
        assert_eq!(batch.len() as u64, notes);
        set_clock(leapt);
        spool.advance(batch.last().unwrap().next_lsn);
        step(&spool);
        step(&spool);
        spool.rewind().unwrap();
        assert_eq!(spool.stats().unsent_records, notes, "the running process");
        drop(spool);
        disk.kill();
        let (spool, _) = open(&disk, &kept);
        spool.advance(spool.reader().next_batch(10_000, usize::MAX).unwrap().last().unwrap().next_lsn);
        step(&spool);
        step(&spool);
        spool.rewind().unwrap();
        assert_eq!(spool.stats().unsent_records, notes, "the next one");
    }
}

/// By their own times the records are old: what was sealed two days before the last one goes.
#[test]
fn what_is_old_by_the_records_own_times_goes() {
    let start = 1_800_000_000;
    set_clock(start);
    let disk = MemoryDisk::new(4);
    let kept = SpoolOptions { bytes_max: 64 * SEGMENT_BYTES_MIN, retain: Duration::from_secs(DAY), ..options() };
    filled(&disk, &kept, 4);
    disk.kill();
    set_clock(start + 2 * DAY);
    let (spool, recovered) = open(&disk, &kept);
    spool.void(recovered.orphans[0].intent, b"").unwrap();
    step(&spool);
    drop(spool);
    disk.kill();
    let (spool, _) = open(&disk, &kept);
    spool.advance(spool.reader().next_batch(10_000, usize::MAX).unwrap().last().unwrap().next_lsn);
    step(&spool);
    assert!(spool.stats().segments <= 3, "{:?}", spool.stats());
}
