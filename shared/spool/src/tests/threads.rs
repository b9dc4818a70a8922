//! With its threads running: many writers, a reader beside them, a disk that fails now and then.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::disk::{Dice, Fault, MemoryDisk, Op};
use super::model::options;
use crate::*;

const WRITERS: u64 = 4;
const EACH: u64 = 1500;

/// Publishes `EACH` payloads, however often an intent is refused first; returns the LSNs.
fn write(spool: &Spool, writer: u64) -> Vec<u64> {
    let mut lsns = Vec::new();
    for number in 0..EACH {
        let payload = (writer * EACH + number).to_le_bytes();
        let intent = loop {
            match spool.intent(1, &payload) {
                Ok(intent) => break intent,
                Err(AppendError::Full | AppendError::Behind | AppendError::Unwritable { .. }) => {
                    spool.unrecorded();
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        };
        if number % 7 == 0 {
            std::thread::yield_now();
        }
        lsns.push(spool.publish(intent, 1, &payload).expect("room was reserved").lsn.0);
    }
    lsns
}

/// Reads and acknowledges until everything that was written has come.
fn read(spool: &Spool) -> Vec<u64> {
    let (mut reader, mut lsns) = (spool.reader(), Vec::new());
    while lsns.len() < (WRITERS * EACH) as usize {
        let batch = reader.next_batch(64, 1 << 16).unwrap_or_default();
        if let Some(last) = batch.last() {
            spool.advance(last.next_lsn);
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
        lsns.extend(batch.iter().map(|record| record.lsn.0));
    }
    lsns
}

pub(super) fn disturb(disk: &MemoryDisk, done: &AtomicBool) {
    let mut dice = Dice(7);
    while !done.load(Ordering::Relaxed) {
        let only = [Op::Sync, Op::Allocate, Op::Write, Op::Remove, Op::Create, Op::SyncDir];
        let only = only.get(dice.below(6) as usize).copied();
        disk.fail(Some(Fault { from: dice.below(5), count: 1 + dice.below(3), kind: ErrorKind::StorageFull, only }));
        std::thread::sleep(Duration::from_millis(3));
        disk.fail(None);
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[test]
fn writers_and_a_reader_beside_a_failing_disk() {
    let disk = MemoryDisk::new(1);
    let kept = SpoolOptions { retain: Duration::ZERO, ..options() };
    let (spool, _) = Spool::open(kept.clone(), disk.clone()).unwrap();
    let done = AtomicBool::new(false);
    let (written, found) = std::thread::scope(|scope| {
        scope.spawn(|| disturb(&disk, &done));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let spool = &spool;
                    move || write(spool, writer)
                })
            })
            .collect();
        let found = read(&spool);
        let written: BTreeSet<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        (written, found)
    });
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    assert_eq!(written, found.into_iter().collect::<BTreeSet<_>>());
    let stats = spool.stats();
    assert_eq!(stats.last_seq, WRITERS * EACH);
    assert_eq!(stats.open_intents, 0);
    assert_eq!(stats.unsent_records, 0);
    spool.close();
    drop(spool);
    disk.cut_power();
    let (_, recovered) = Spool::open(kept, disk).unwrap();
    assert_eq!(recovered.orphans.len(), 0);
    assert_eq!(recovered.epochs[0].last_seq, WRITERS * EACH);
    assert_eq!(recovered.epochs[0].unrecorded, stats.unrecorded);
}
