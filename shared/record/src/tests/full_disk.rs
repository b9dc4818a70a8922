//! Starting on a disk that is full: calls are counted until they can be recorded, and nothing that was there is lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use goldleaves_domain::Outcome;
use goldleaves_runtime::Metrics;
use goldleaves_spool::{FileSystem, OpenMode, RealFileSystem, SpoolFile};
use tokio_util::sync::CancellationToken;

use super::receiver::*;
use super::recording::copy_files;
use crate::{Durability, Unrecorded, open};

/// The real file system, on which for now no file can be made.
#[derive(Clone)]
struct Disk {
    error: io::ErrorKind,
    full: Arc<AtomicBool>,
    refused: Arc<AtomicBool>,
}

impl Disk {
    fn full() -> Self {
        Self::refusing(io::ErrorKind::StorageFull)
    }

    fn refusing(error: io::ErrorKind) -> Self {
        Self { error, full: Arc::new(AtomicBool::new(true)), refused: Arc::default() }
    }

    fn gets_room(&self) {
        self.full.store(false, Ordering::SeqCst);
    }
}

impl FileSystem for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.create_dir(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealFileSystem.list(directory)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SpoolFile>> {
        if mode == OpenMode::Create && self.full.load(Ordering::SeqCst) {
            self.refused.store(true, Ordering::SeqCst);
            return Err(self.error.into());
        }
        RealFileSystem.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFileSystem.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        RealFileSystem.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealFileSystem.lock(path)
    }
}

fn spool_of(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("spool")
}

#[tokio::test]
async fn an_empty_folder_is_waited_for_and_what_was_served_meanwhile_is_counted() {
    let (directory, disk, receiver) = (tempfile::tempdir().unwrap(), Disk::full(), Receiver::new());
    let options = options(&spool_of(&directory), Durability::Available);
    let running = Running::start_on(disk.clone(), options, &receiver, NEVER).await;
    for _ in 0..3 {
        assert_eq!(running.recorder.intend(call(&running.recorder)).unwrap_err(), Unrecorded);
    }
    let health = running.recorder.health();
    assert!(!health.has_room);
    assert_eq!(health.to_string(), "the spool takes no records; 3 calls were served without a record since the start");
    for line in ["unrecorded_calls_total 3", "spool_writable 0", "capture_failures_total{step=\"intent\"} 3"] {
        assert!(running.shows(&format!("goldleaves_{line}")), "{line}\n{}", running.metrics.text());
    }
    disk.gets_room();
    until(|| running.recorder.health().has_room).await;
    assert!(running.shows("goldleaves_spool_writable 1"));
    capture(&running.recorder, 2).await;
    assert_eq!(running.stop().await, 0);
    assert_eq!(receiver.events().len(), 2);
    let seals = receiver.seals();
    assert_eq!(seals.last().map(|seal| (seal.unrecorded, seal.count, seal.closed)), Some((3, 2, true)), "{seals:?}");
}

#[tokio::test]
async fn strict_refuses_and_counts_nothing_as_served() {
    let (directory, disk, receiver) = (tempfile::tempdir().unwrap(), Disk::full(), Receiver::new());
    let options = options(&spool_of(&directory), Durability::Strict);
    let running = Running::start_on(disk.clone(), options, &receiver, NEVER).await;
    assert_eq!(running.recorder.intend(call(&running.recorder)).unwrap_err(), Unrecorded);
    assert!(running.shows("goldleaves_unrecorded_calls_total 0"));
    disk.gets_room();
    until(|| running.recorder.health().has_room).await;
    let owed = announce(&running.recorder).await;
    assert_eq!(owed.durable().await, Ok(()));
    owed.publish(settlement());
    assert_eq!(running.stop().await, 0);
    assert_eq!(receiver.seals().last().map(|seal| (seal.unrecorded, seal.count)), Some((0, 1)));
}

#[tokio::test]
async fn what_earlier_starts_left_is_handed_on_at_once_and_settled_later() {
    let (before, receiver) = (tempfile::tempdir().unwrap(), Receiver::new());
    receiver.becomes(Mood::Away);
    let running = Running::start(before.path(), &receiver, NEVER).await;
    let settled = capture(&running.recorder, 2).await;
    let orphan = announce(&running.recorder).await;
    let orphan_id = orphan.event_id();
    assert_eq!(orphan.durable().await, Ok(()));
    std::mem::forget(orphan);
    running.kill().await;
    // The killed process's handles are forgotten too, so its lock has to be looked past: a copy is what it left.
    let (copy, disk, receiver) = (tempfile::tempdir().unwrap(), Disk::full(), Receiver::new());
    copy_files(before.path(), copy.path());

    let options = options(copy.path(), Durability::Available);
    let running = Running::start_on(disk.clone(), options, &receiver, NEVER).await;
    until(|| receiver.events().len() == 2).await;
    assert_eq!(running.recorder.intend(call(&running.recorder)).unwrap_err(), Unrecorded);
    disk.gets_room();
    until(|| receiver.events().len() == 3).await;
    let events = receiver.events();
    let ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
    assert_eq!(ids, [settled[0], settled[1], orphan_id]);
    assert_eq!(events[2].outcome, Outcome::Unknown);
    let epoch = events[2].epoch;
    assert_eq!(running.stop().await, 0);
    let last = receiver.seals().into_iter().rfind(|seal| seal.epoch == epoch).unwrap();
    assert_eq!(last.unrecorded, 1);
    assert_eq!(last.count, 1);
    assert!(last.closed);
}

#[tokio::test]
async fn a_start_that_never_had_room_stops_in_order() {
    let (directory, disk, receiver) = (tempfile::tempdir().unwrap(), Disk::full(), Receiver::new());
    let options = options(&spool_of(&directory), Durability::Available);
    let running = Running::start_on(disk, options, &receiver, NEVER).await;
    assert!(running.recorder.intend(call(&running.recorder)).is_err());
    assert_eq!(running.stop().await, 0);
    assert!(receiver.messages().is_empty());
}

#[tokio::test]
async fn a_patient_start_ends_with_a_spool() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::full());
    let options = options(&spool_of(&directory), Durability::Available).patient(CancellationToken::new());
    let (has_refused, on) = (Arc::clone(&disk.refused), disk.clone());
    let starting = tokio::spawn(async move { open(options, on, &Metrics::new()).await.unwrap() });
    until(|| has_refused.load(Ordering::SeqCst)).await;
    disk.gets_room();
    assert!(starting.await.unwrap().recorder.health().has_room);
}

#[tokio::test]
async fn a_patient_start_that_is_asked_to_stop_ends_without_a_spool() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::full());
    let hurry = CancellationToken::new();
    let options = options(&spool_of(&directory), Durability::Available).patient(hurry.clone());
    let (has_refused, on) = (Arc::clone(&disk.refused), disk.clone());
    let starting = tokio::spawn(async move { open(options, on, &Metrics::new()).await.unwrap() });
    until(|| has_refused.load(Ordering::SeqCst)).await;
    hurry.cancel();
    assert!(!starting.await.unwrap().recorder.health().has_room);
}

#[tokio::test]
async fn wrong_permissions_are_a_start_error() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::refusing(io::ErrorKind::PermissionDenied));
    let options = options(&spool_of(&directory), Durability::Available);
    assert!(open(options, disk, &Metrics::new()).await.is_err());
}
