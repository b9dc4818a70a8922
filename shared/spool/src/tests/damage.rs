//! Torn and corrupted bytes: everything around them is still found, and they are set aside.

use std::path::PathBuf;

use super::disk::{Dice, MemoryDisk};
use super::model::options;
use crate::inspect::inspect_in;
use crate::segment::{DATA, PAGE};
use crate::*;

fn open(disk: &MemoryDisk) -> (Spool, Recovered) {
    Spool::open_stepped(options(), std::sync::Arc::new(disk.clone())).unwrap()
}

fn segment(number: u64) -> PathBuf {
    PathBuf::from(format!("/spool/{number:016x}.seg"))
}

/// Forty published records; where each lies and what it says.
fn filled(disk: &MemoryDisk) -> Vec<(u64, Vec<u8>)> {
    let (spool, _) = open(disk);
    let mut records = Vec::new();
    for number in 0..40_u8 {
        let intent = spool.intent(1, &[number; 100]).unwrap();
        let payload = vec![number | 0x80; 300];
        records.push((spool.publish(intent, 1, &payload).unwrap().lsn.0, payload));
    }
    // All of it is on the disk, and nothing knows it better.
    while spool.shared.sync_step() == sync::SyncStep::Done {}
    disk.cut_power();
    records
}

fn read(spool: &Spool) -> Vec<(u64, Vec<u8>)> {
    let batch = spool.reader().next_batch(1000, usize::MAX).unwrap();
    batch.into_iter().map(|record| (record.lsn.0, record.payload.to_vec())).collect()
}

fn quarantined(disk: &MemoryDisk) -> usize {
    disk.names().iter().filter(|path| path.starts_with("/spool/quarantine")).count()
}

#[test]
fn one_damaged_record_costs_only_itself() {
    for victim in [0, 17, 39] {
        for flip in [0_u64, 4, 8, 16, 40, 200] {
            let disk = MemoryDisk::new(1);
            let mut records = filled(&disk);
            let (lsn, _) = records.remove(victim);
            disk.damage(&segment(1), |bytes| bytes[(lsn + flip) as usize] ^= 0x41);
            let seen = inspect_in(&disk, std::path::Path::new("/spool"), 0).unwrap();
            assert_eq!(seen.damaged_regions, 1);
            assert_eq!(seen.unsent_records, 39);
            assert_eq!(seen.quarantine_files, 0);
            let (spool, recovered) = open(&disk);
            assert!(read(&spool) == records, "record {victim}, byte {flip}");
            assert_eq!(recovered.quarantined, 1);
            assert_eq!(quarantined(&disk), 1);
            assert_eq!(recovered.orphans.len(), 1, "its intent has no settlement any more");
            assert_eq!(recovered.orphans[0].payload, vec![victim as u8; 100]);
        }
    }
}

#[test]
fn a_torn_last_record_is_set_aside_and_the_rest_read() {
    let disk = MemoryDisk::new(2);
    let mut records = filled(&disk);
    let (lsn, _) = records.pop().unwrap();
    disk.damage(&segment(1), |bytes| bytes[(lsn + 100) as usize..].fill(0));
    let (spool, recovered) = open(&disk);
    assert!(read(&spool) == records);
    assert_eq!(recovered.quarantined, 1);
    assert_eq!(recovered.orphans.len(), 1);
    assert_eq!(recovered.epochs[0].last_seq, 39);
}

#[test]
fn a_hole_of_lost_pages_is_passed_over() {
    let disk = MemoryDisk::new(3);
    let records = filled(&disk);
    let hole = (DATA + PAGE)..(DATA + 2 * PAGE);
    disk.damage(&segment(1), |bytes| bytes[hole.start as usize..hole.end as usize].fill(0));
    let (spool, _) = open(&disk);
    let found = read(&spool);
    assert!(found.len() > 20 && found.iter().all(|record| records.contains(record)));
    let lost = records.iter().filter(|record| !found.contains(record));
    assert!(lost.clone().count() > 5);
    for (lsn, payload) in lost {
        assert!(lsn + 40 + payload.len() as u64 > hole.start && *lsn < hole.end, "{lsn} lies outside of the hole");
    }
}

#[test]
fn a_damaged_header_has_a_second_copy() {
    let disk = MemoryDisk::new(4);
    let records = filled(&disk);
    disk.damage(&segment(1), |bytes| bytes[..4096].fill(0xff));
    let (spool, recovered) = open(&disk);
    assert!(read(&spool) == records);
    assert_eq!(recovered.quarantined, 0);
}

#[test]
fn a_segment_without_any_header_is_quarantined_whole() {
    let disk = MemoryDisk::new(5);
    let records = filled(&disk);
    disk.damage(&segment(1), |bytes| bytes[..8192].fill(0xff));
    let (spool, recovered) = open(&disk);
    assert_eq!(recovered.quarantined, 1);
    assert!(disk.names().contains(&PathBuf::from("/spool/quarantine/0000000000000001.seg")));
    let next = spool.note(1, b"later").unwrap();
    assert!(next.0 > records.last().unwrap().0, "no LSN is given twice");
}

#[test]
fn a_lost_state_file_only_sends_again() {
    let disk = MemoryDisk::new(6);
    let records = filled(&disk);
    let (spool, _) = open(&disk);
    let (id, mut reader) = (spool.id(), spool.reader());
    let batch = reader.next_batch(10, usize::MAX).unwrap();
    spool.advance(batch[9].next_lsn);
    spool.shared.keep_round();
    drop((reader, spool));
    disk.kill();
    let (spool, recovered) = open(&disk);
    assert!(read(&spool) == records[10..] && recovered.unsent == 30);
    drop(spool);
    disk.kill();
    disk.damage(&PathBuf::from("/spool/state"), |bytes| bytes.fill(0xee));
    let (spool, recovered) = open(&disk);
    assert!(read(&spool) == records && recovered.unsent == 40 && spool.id() == id);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let disk = MemoryDisk::new(7);
    filled(&disk);
    disk.damage(&segment(1), |bytes| {
        bytes[12] = 9;
        bytes[4096 + 12] = 9;
    });
    let refused = Spool::open_stepped(options(), std::sync::Arc::new(disk.clone())).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 9, known: 2, .. }), "{refused}");
    assert!(disk.names().contains(&segment(1)));
}

#[test]
fn random_damage_never_invents_a_record() {
    let mut dice = Dice(99);
    for seed in 0..60 {
        let disk = MemoryDisk::new(seed);
        let records = filled(&disk);
        for _ in 0..1 + dice.below(20) {
            let at = (DATA + dice.below(24_000)) as usize;
            let length = 1 + dice.below(600) as usize;
            let junk: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
            // Some of it is a piece of the file itself, as misdirected writes are.
            let from = (DATA + dice.below(20_000)) as usize;
            let moved = dice.coin();
            disk.damage(&segment(1), |bytes| {
                let piece = if moved { bytes[from..from + length].to_vec() } else { junk };
                bytes[at..at + length].copy_from_slice(&piece);
            });
        }
        let (spool, _) = open(&disk);
        let found = read(&spool);
        assert!(found.iter().all(|record| records.contains(record)));
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
        drop(spool);
        disk.kill();
        let (spool, recovered) = open(&disk);
        assert!(read(&spool) == found && recovered.quarantined == 0, "a second recovery changes nothing, seed {seed}");
    }
}
