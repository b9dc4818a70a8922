//! Starting on a disk that is full: what is there is handed on, what cannot be appended is counted, and it heals by itself.

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::MemoryDisk;
use super::model::options;
use crate::keeper::Round;
use crate::*;

/// Two notes nobody read and an open intent, then no room for another segment.
fn full() -> (MemoryDisk, IntentId) {
    let disk = MemoryDisk::new(1);
    let (spool, _) = Spool::open_stepped(options(), Arc::new(disk.clone())).unwrap();
    spool.note(1, b"unsent").unwrap();
    let orphan = spool.intent(1, b"orphan").unwrap();
    spool.note(1, b"unsent too").unwrap();
    spool.shared.sync_step();
    spool.unrecorded();
    disk.kill();
    disk.set_room(Some(disk.used()));
    (disk, orphan)
}

fn open(disk: &MemoryDisk) -> (Spool, Recovered) {
    Spool::open_stepped(options(), Arc::new(disk.clone())).unwrap()
}

#[test]
fn what_is_there_is_read_and_nothing_is_taken() {
    let (disk, orphan) = full();
    let (spool, recovered) = open(&disk);
    assert_eq!(recovered.unsent, 2);
    assert_eq!(recovered.orphans.len(), 1);
    assert_eq!(recovered.epochs[0].unrecorded, 1);
    assert!(!spool.is_writable());
    let refused = AppendError::Unwritable { kind: ErrorKind::StorageFull };
    assert_eq!(spool.intent(1, b"new").unwrap_err(), refused);
    assert_eq!(spool.note(1, b"new").unwrap_err(), refused);
    assert_eq!(spool.publish(orphan, 1, b"unknown").unwrap_err(), refused);
    spool.unrecorded();
    let mut reader = spool.reader();
    let batch = reader.next_batch(10, 1 << 20).unwrap();
    let payloads: Vec<_> = batch.iter().map(|record| &record.payload[..]).collect();
    assert_eq!(payloads, [&b"unsent"[..], b"unsent too"]);
    assert!(reader.next_batch(10, 1 << 20).unwrap().is_empty());
    spool.advance(batch[1].next_lsn);
    assert_eq!(spool.shared.keep_round(), Round::Unfinished);
    let stats = spool.stats();
    assert_eq!(stats.unsent_records, 0);
    assert_eq!(stats.unrecorded, 1);
    assert_eq!(stats.open_intents, 1);
    assert!(!stats.writable);
}

#[test]
fn with_room_the_orphans_are_settled_and_the_log_goes_on() {
    let (disk, orphan) = full();
    let (spool, _) = open(&disk);
    spool.unrecorded();
    disk.set_room(None);
    assert_eq!(spool.shared.keep_round(), Round::Quiet);
    assert!(spool.is_writable());
    assert_eq!(spool.publish(orphan, 1, b"unknown").unwrap().seq, 1);
    spool.note(1, b"new").unwrap();
    while spool.shared.sync_step() == sync::SyncStep::Done {}
    spool.shared.keep_round();
    disk.cut_power();
    let (spool, recovered) = open(&disk);
    assert_eq!(recovered.orphans.len(), 0);
    assert_eq!(recovered.epochs.len(), 2);
    assert_eq!(recovered.epochs.iter().map(|epoch| epoch.unrecorded).collect::<Vec<_>>(), [1, 1]);
    let payloads: Vec<_> = spool.reader().next_batch(10, 1 << 20).unwrap();
    let payloads: Vec<_> = payloads.iter().map(|record| &record.payload[..]).collect();
    assert_eq!(payloads, [&b"unsent"[..], b"unsent too", b"unknown", b"new"]);
}

#[test]
fn an_epoch_that_never_had_room_is_still_told_of() {
    let (disk, orphan) = full();
    let mut counted = vec![(1, 0)];
    for more in 1..=3 {
        let (spool, recovered) = open(&disk);
        let found: Vec<_> = recovered.epochs.iter().map(|epoch| (epoch.unrecorded, epoch.last_seq)).collect();
        assert_eq!(found, counted);
        assert_eq!(recovered.unsent, 2);
        assert_eq!(recovered.orphans[0].intent, orphan);
        spool.unrecorded_before(more);
        spool.shared.keep_round();
        counted.push((more, 0));
        disk.kill();
    }
    disk.set_room(None);
    for _ in 0..2 {
        let (spool, recovered) = open(&disk);
        let found: Vec<_> = recovered.epochs.iter().map(|epoch| (epoch.unrecorded, epoch.last_seq)).collect();
        assert_eq!(found, counted);
        assert!(spool.is_writable());
        disk.kill();
    }
}

#[test]
fn handing_on_makes_the_room() {
    let disk = MemoryDisk::new(1);
    let kept = SpoolOptions { retain: Duration::from_secs(3600), ..options() };
    let (spool, _) = Spool::open_stepped(kept.clone(), Arc::new(disk.clone())).unwrap();
    spool.shared.keep_round();
    while spool.stats().segments < 3 {
        spool.note(1, &[7; 4000]).unwrap();
        while spool.shared.sync_step() == sync::SyncStep::Done {}
        spool.shared.keep_round();
    }
    let spares = spool.stats().spares;
    disk.kill();
    disk.set_room(Some(disk.used() - spares * SEGMENT_BYTES_MIN as usize));
    let (spool, _) = Spool::open_stepped(kept, Arc::new(disk)).unwrap();
    assert!(!spool.is_writable());
    let mut reader = spool.reader();
    while let Some(last) = reader.next_batch(100, 1 << 20).unwrap().last() {
        spool.advance(last.next_lsn);
    }
    spool.shared.keep_round();
    assert!(spool.is_writable(), "{:?}", spool.stats());
    spool.note(1, b"new").unwrap();
}

#[test]
fn only_the_disk_is_waited_for() {
    let failed = |source: Error| OpenError::io("open", Path::new("/spool"))(source);
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::ReadOnlyFilesystem] {
        assert!(failed(kind.into()).may_pass(), "{kind}");
    }
    assert!(failed(Error::from_raw_os_error(5)).may_pass(), "EIO");
    for kind in [ErrorKind::PermissionDenied, ErrorKind::NotADirectory, ErrorKind::AlreadyExists, ErrorKind::Other] {
        assert!(!failed(kind.into()).may_pass(), "{kind}");
    }
    assert!(!OpenError::InUse { directory: "/spool".into() }.may_pass());
}
