//! A disk that stands still, and one that is slow: neither reaches those who append, and nothing that was taken is missing.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::disk::{Fault, MemoryDisk, Op};
use super::model::options;
use super::wait_durable;
use crate::*;

fn large() -> SpoolOptions {
    SpoolOptions { bytes_max: 64 << 20, segment_bytes: 1 << 20, ..options() }
}

fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "it never came to be so");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs in a thread of its own and fails when that does not come back: it waits for a disk then.
fn comes_back<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let acting = scope.spawn(act);
        until(|| acting.is_finished());
        acting.join().unwrap()
    })
}

fn read_all(spool: &Spool) -> Vec<Vec<u8>> {
    let (mut reader, mut all) = (spool.reader(), Vec::new());
    loop {
        let batch = reader.next_batch(500, 1 << 20).unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.iter().map(|record| record.payload.to_vec()));
    }
}

/// Publishes until nothing more is taken; what was taken, and why not more.
fn fill(spool: &Spool) -> (Vec<Vec<u8>>, AppendError) {
    let mut taken = Vec::new();
    loop {
        let payload = (taken.len() as u64).to_le_bytes().repeat(100);
        match spool.intent(1, &payload) {
            Ok(intent) => {
                spool.publish(intent, 1, &payload).expect("room was reserved");
                taken.push(payload);
            }
            Err(refused) => return (taken, refused),
        }
    }
}

/// Lets the disk move again also when the test fails, for closing waits for it.
struct Moves(MemoryDisk);

impl Drop for Moves {
    fn drop(&mut self) {
        self.0.move_again();
    }
}

#[test]
fn nobody_who_appends_or_asks_waits_for_a_disk_that_stands_still() {
    let disk = MemoryDisk::new(1);
    let (spool, _) = Spool::open(large(), disk.clone()).unwrap();
    until(|| spool.stats().spares >= 2);
    let early = spool.intent(1, b"settled while the disk stands still").unwrap();
    disk.stand_still();
    let moves = Moves(disk);
    let (taken, refused) = comes_back(|| fill(&spool));
    assert_eq!(refused, AppendError::Behind);
    assert!(taken.len() > 500, "{}", taken.len());
    comes_back(|| {
        assert!(!spool.is_writable(), "what is refused readiness says too");
        spool.unrecorded();
        spool.publish(early, 1, b"settled").expect("a settlement is never refused");
        let stats = spool.stats();
        assert_eq!(stats.unrecorded, 1);
        assert!(!stats.writable);
        assert_eq!(stats.open_intents, 0);
        assert_eq!(stats.unsent_records, taken.len() as u64 + 1);
    });
    until(|| spool.stands_still());
    drop(moves);
    until(|| spool.is_writable() && !spool.stands_still());
    wait_durable(&spool, spool.note(1, b"last").unwrap()).unwrap();
    let mut expected = taken;
    expected.extend([b"settled".to_vec(), b"last".to_vec()]);
    assert!(read_all(&spool) == expected);
    assert_eq!(spool.stats().unrecorded, 1);
}

#[test]
fn a_process_killed_while_the_disk_stands_still_loses_nothing() {
    let disk = MemoryDisk::new(2);
    let (spool, _) = Spool::open_stepped(large(), std::sync::Arc::new(disk.clone())).unwrap();
    spool.shared.keep_round();
    // From here on nothing gets from the stage to the disk.
    let open = spool.intent(3, b"open").unwrap();
    let (taken, _) = fill(&spool);
    spool.unrecorded_before(7);
    disk.kill();
    let (again, recovered) = Spool::open(large(), disk).unwrap();
    assert!(read_all(&again) == taken);
    let orphans: Vec<_> = recovered.orphans.iter().map(|orphan| (orphan.intent, orphan.version)).collect();
    assert_eq!(orphans, [(open, 3)]);
    let last = recovered.epochs.last().unwrap();
    assert_eq!(last.last_seq, taken.len() as u64);
    assert_eq!(last.unrecorded, 7);
}

/// 2 MB per second, and 1.3 MB per second of records: the disk keeps up as long as it has nothing else to write.
#[test]
fn a_slow_disk_loses_no_event() {
    let disk = MemoryDisk::new(3);
    disk.slows_down(2 << 20);
    let (spool, _) = Spool::open(SpoolOptions { sync_pause: Duration::from_millis(5), ..large() }, disk).unwrap();
    let start = Instant::now();
    let mut published = 0_u64;
    while start.elapsed() < Duration::from_secs(5) {
        let intent = spool.intent(1, &[1; 400]).unwrap();
        spool.publish(intent, 1, &published.to_le_bytes().repeat(150)).unwrap();
        published += 1;
        let due = Duration::from_micros(published * 1250);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    wait_durable(&spool, spool.note(1, b"last").unwrap()).unwrap();
    assert_eq!(spool.stats().unsent_records, published + 1);
    assert!(spool.stats().segments > 1, "it went through more than one segment");
}

#[test]
fn room_that_was_used_is_used_again() {
    let disk = MemoryDisk::new(4);
    let brief = SpoolOptions { retain: Duration::ZERO, ..options() };
    let (spool, _) = Spool::open_stepped(brief.clone(), std::sync::Arc::new(disk.clone())).unwrap();
    let mut reader = spool.reader();
    for round in 0..60_u8 {
        spool.shared.keep_round();
        for _ in 0..8 {
            spool.note(1, &[round; 3000]).unwrap();
        }
        while spool.shared.sync_step() == sync::SyncStep::Done {}
        let batch = reader.next_batch(100, usize::MAX).unwrap();
        assert!(batch.iter().all(|record| record.payload == vec![round; 3000]), "old bytes were read");
        spool.advance(batch.last().unwrap().next_lsn);
        if round == 10 {
            // From here on the disk gives no further room, not even what was given back to it.
            spool.shared.keep_round();
            let (kind, only) = (ErrorKind::StorageFull, Some(Op::Allocate));
            disk.fail(Some(Fault { from: 0, count: u64::MAX, kind, only }));
        }
    }
    spool.shared.keep_round();
    drop((reader, spool));
    disk.cut_power();
    let (_, recovered) = Spool::open_stepped(brief, std::sync::Arc::new(disk)).unwrap();
    assert_eq!(recovered.unsent, 0);
    assert_eq!(recovered.quarantined, 0);
}
