//! Waiting for durability: who is woken, and what becomes of the others when a sync fails.

use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::disk::{Fault, MemoryDisk, Op};
use super::model::options;
use super::threads::disturb;
use super::wait_durable;
use crate::*;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

fn stepped(disk: &MemoryDisk) -> Spool {
    let (spool, _) = Spool::open_stepped(options(), Arc::new(disk.clone())).unwrap();
    spool.shared.keep_round();
    spool
}

fn sync_fails(count: u64) -> Option<Fault> {
    Some(Fault { from: 0, count, kind: ErrorKind::Other, only: Some(Op::Sync) })
}

#[test]
fn a_sync_wakes_only_those_it_concerns() {
    let spool = stepped(&MemoryDisk::new(1));
    let early = spool.note(1, b"in the first segment").unwrap();
    let mut late = early;
    while spool.stats().segments == 1 {
        late = spool.note(1, &[7; 4000]).unwrap();
    }
    let (first, second) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let (mut of_early, mut of_late) = (pin!(spool.durable(early)), pin!(spool.durable(late)));
    assert!(first.poll(of_early.as_mut()).is_pending());
    assert!(second.poll(of_late.as_mut()).is_pending());
    spool.shared.sync_step();
    assert_eq!(first.times(), 1);
    assert_eq!(second.times(), 0);
    assert!(matches!(first.poll(of_early.as_mut()), Poll::Ready(Ok(()))));
    spool.shared.sync_step();
    assert_eq!(first.times(), 1);
    assert_eq!(second.times(), 1);
    assert!(matches!(second.poll(of_late.as_mut()), Poll::Ready(Ok(()))));
}

#[test]
fn a_wait_that_is_given_up_leaves_nothing_behind() {
    let spool = stepped(&MemoryDisk::new(1));
    let note = spool.note(1, b"x").unwrap();
    let woken = Arc::new(Woken::default());
    let mut wait = Box::pin(spool.durable(note));
    assert!(woken.poll(wait.as_mut()).is_pending());
    assert!(!spool.shared.syncing.waiters.is_empty());
    drop(wait);
    assert!(spool.shared.syncing.waiters.is_empty());
    spool.shared.sync_step();
    assert_eq!(woken.times(), 0);
}

#[test]
fn a_task_that_moved_is_woken_where_it_is() {
    let spool = stepped(&MemoryDisk::new(1));
    let note = spool.note(1, b"x").unwrap();
    let (before, after) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut wait = pin!(spool.durable(note));
    assert!(before.poll(wait.as_mut()).is_pending());
    assert!(after.poll(wait.as_mut()).is_pending());
    spool.shared.sync_step();
    assert_eq!(before.times(), 0);
    assert_eq!(after.times(), 1);
}

/// `count` threads append and wait.
fn wait_in_threads(spool: &Spool, count: u64) -> Vec<Result<(), SpoolError>> {
    std::thread::scope(|scope| {
        let wait = |number: u64| wait_durable(spool, spool.note(1, &number.to_le_bytes()).unwrap());
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || wait(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_many_threads_wait_for_is_durable() {
    let disk = MemoryDisk::new(1);
    let (spool, _) = Spool::open(options(), disk.clone()).unwrap();
    for _ in 0..20 {
        assert!(wait_in_threads(&spool, 8).iter().all(Result::is_ok));
    }
    drop(spool);
    disk.cut_power();
    let (_, recovered) = Spool::open(options(), disk).unwrap();
    assert_eq!(recovered.unsent, 160);
}

#[test]
fn when_the_sync_of_one_fails_the_records_of_all_move_to_a_new_segment() {
    let disk = MemoryDisk::new(1);
    let (spool, _) = Spool::open(options(), disk.clone()).unwrap();
    assert!(wait_durable(&spool, spool.note(1, b"before").unwrap()).is_ok());
    disk.fail(sync_fails(1));
    let waited = wait_in_threads(&spool, 8);
    assert!(waited.iter().all(Result::is_ok), "{waited:?}");
    assert_eq!(disk.failed_syncs(), 1);
    drop(spool);
    disk.cut_power();
    let (_, recovered) = Spool::open(options(), disk).unwrap();
    assert_eq!(recovered.unsent, 9);
}

#[test]
fn when_syncs_go_on_failing_all_are_told_and_the_thread_tries_again() {
    let disk = MemoryDisk::new(1);
    let (spool, _) = Spool::open(options(), disk.clone()).unwrap();
    disk.fail(sync_fails(u64::MAX));
    let waited = wait_in_threads(&spool, 8);
    assert!(waited.iter().all(|wait| matches!(wait, Err(SpoolError::Unwritable))), "{waited:?}");
    disk.fail(None);
    let note = loop {
        match spool.note(1, b"after") {
            Ok(note) => break note,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    while wait_durable(&spool, note).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    spool.close();
    drop(spool);
    disk.cut_power();
    let (_, recovered) = Spool::open(options(), disk).unwrap();
    assert_eq!(recovered.unsent, 9);
}

#[test]
fn tasks_and_threads_wait_beside_a_failing_disk() {
    const EACH: u64 = 300;
    let disk = MemoryDisk::new(3);
    let kept = SpoolOptions { bytes_max: 64 * SEGMENT_BYTES_MIN, ..options() };
    let (spool, _) = Spool::open(kept.clone(), disk.clone()).unwrap();
    let done = AtomicBool::new(false);
    let moment = Duration::from_millis(1);
    std::thread::scope(|scope| {
        scope.spawn(|| disturb(&disk, &done));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut written = 0;
                    while written < EACH {
                        let Ok(note) = spool.note(1, b"thread") else {
                            std::thread::sleep(moment);
                            continue;
                        };
                        written += 1;
                        while wait_durable(&spool, note).is_err() {
                            std::thread::sleep(moment);
                        }
                    }
                })
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let write = |spool: Spool| async move {
                let mut written = 0;
                while written < EACH {
                    let Ok(note) = spool.note(1, b"task") else {
                        tokio::time::sleep(moment).await;
                        continue;
                    };
                    written += 1;
                    while spool.durable(note).await.is_err() {
                        tokio::time::sleep(moment).await;
                    }
                }
            };
            let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(write(spool.clone()))).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    drop(spool);
    disk.cut_power();
    let (_, recovered) = Spool::open(kept, disk).unwrap();
    assert_eq!(recovered.unsent, 6 * EACH);
}
