//! A receiver that may lose what it acknowledged lately: it is retained for so long, and handed on again by each start.

use std::sync::Arc;
use std::time::Duration;

use super::disk::MemoryDisk;
use super::model::options;
use super::{read_all, step};
use crate::clock::unix_secs;
use crate::inspect::inspect_in;
use crate::resend::ask_in;
use crate::*;

fn unsure() -> SpoolOptions {
    SpoolOptions { settle_after: Duration::from_secs(300), retain: Duration::ZERO, ..options() }
}

fn open(disk: &MemoryDisk, options: SpoolOptions) -> Spool {
    Spool::open_stepped(options, Arc::new(disk.clone())).unwrap().0
}

fn note(spool: &Spool, count: usize) {
    for number in 0..count {
        spool.note(1, &[u8::try_from(number % 251).unwrap(); 2_000]).unwrap();
        step(spool);
    }
}

#[test]
fn what_was_acknowledged_lately_is_handed_on_again_by_each_start() {
    let disk = MemoryDisk::new(1);
    let mut spool = open(&disk, unsure());
    note(&spool, 5);
    for _ in 0..3 {
        let records = read_all(&spool);
        assert_eq!(records.len(), 5);
        spool.advance(records[4].next_lsn);
        step(&spool);
        assert_eq!(spool.stats().unsent_records, 0);
        drop(spool);
        disk.kill();
        spool = open(&disk, unsure());
        assert_eq!(spool.stats().unsent_records, 5);
    }
    // A receiver that is sure of what it says gets nothing twice.
    let records = read_all(&spool);
    spool.advance(records[4].next_lsn);
    step(&spool);
    drop(spool);
    disk.kill();
    let spool = open(&disk, options());
    assert_eq!(read_all(&spool), []);
}

#[test]
fn what_was_acknowledged_lately_goes_only_when_room_is_needed() {
    let disk = MemoryDisk::new(2);
    let spool = open(&disk, unsure());
    note(&spool, 100);
    let segments = spool.stats().segments;
    let records = read_all(&spool);
    spool.advance(records[99].next_lsn);
    step(&spool);
    assert!(segments > 2);
    assert_eq!(spool.stats().segments, segments, "however short the retention");
    note(&spool, 100);
    assert!(spool.stats().bytes <= options().bytes_max);
    assert!(spool.history(None).next_batch(1, 1).unwrap()[0].lsn > records[0].lsn, "the oldest made room");
}

#[test]
fn a_state_file_of_an_earlier_program_starts_where_its_cursor_is() {
    let disk = MemoryDisk::new(3);
    let spool = open(&disk, options());
    note(&spool, 3);
    let records = read_all(&spool);
    spool.advance(records[2].next_lsn);
    step(&spool);
    drop(spool);
    disk.kill();
    assert_eq!(open(&disk, unsure()).stats().unsent_records, 0);
}

#[test]
fn a_wish_brings_back_what_is_retained_of_a_time_and_is_heeded_once() {
    let disk = MemoryDisk::new(4);
    let directory = std::path::Path::new("/spool");
    let spool = open(&disk, options());
    note(&spool, 60);
    let records = read_all(&spool);
    spool.advance(records[59].next_lsn);
    note(&spool, 2);
    assert_eq!(spool.stats().unsent_records, 2);
    let now = unix_secs();
    // In the future, where nothing is, and then everything there is.
    for (since, unsent) in [(now + 3_600, 2), (0, 62)] {
        ask_in(&disk, directory, since).unwrap();
        spool.shared.heed_resend();
        assert_eq!(spool.stats().unsent_records, unsent, "since {since}");
    }
    let again = read_all(&spool);
    assert_eq!(again.len(), 62);
    spool.advance(again[61].next_lsn);
    spool.shared.heed_resend();
    assert_eq!(spool.stats().unsent_records, 0);
    step(&spool);
    let seen = inspect_in(&disk, directory, 0).unwrap();
    assert_eq!(seen.resendable_records, 62, "{seen:?}");
    assert!(seen.oldest_retained_secs.is_some(), "{seen:?}");
}

#[test]
fn what_a_restart_did_not_read_is_counted_right_when_the_reader_goes_back() {
    let disk = MemoryDisk::new(5);
    let spool = open(&disk, options());
    note(&spool, 100);
    let records = read_all(&spool);
    spool.advance(records[99].next_lsn);
    step(&spool);
    let retained = spool.stats().segments;
    assert!(retained > 2, "{retained}");
    drop(spool);
    disk.kill();
    // The next start reads from the checkpoint on, not from the oldest segment.
    let spool = open(&disk, options());
    let seen = inspect_in(&disk, std::path::Path::new("/spool"), 0).unwrap();
    assert_eq!(seen.resendable_records, 100);
    assert_eq!(seen.unsent_records, 0);
    spool.rewind().unwrap();
    let again = read_all(&spool);
    assert_eq!(again.len() as u64, 100);
    assert_eq!(spool.stats().unsent_records, 100);
    spool.advance(again[99].next_lsn);
    assert_eq!(spool.stats().unsent_records, 0, "nothing is unsent for ever");
}
