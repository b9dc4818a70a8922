//! Stages on a real tmpfs, and what becomes of them where the spool's directory or the folder of stages is not where it was.
//!
//! A spool that is opened without its threads writes nothing out: to drop it is to kill its process while the disk stands still.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::disk::MemoryDisk;
use super::{basics, read_all, wait_durable};
use crate::*;

/// A folder for spools, and one for stages.
struct Places {
    disk: TempDir,
    stages: TempDir,
}

impl Places {
    fn new() -> Self {
        Self { disk: tempfile::tempdir().unwrap(), stages: tempfile::tempdir_in(STAGE_DIRECTORY).unwrap() }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    fn options(&self, name: &str) -> SpoolOptions {
        let stage_directory = Some(self.stages.path().to_owned());
        SpoolOptions { stage_directory, stage_bytes: 2 << 20, ..basics::options(&self.directory(name)) }
    }

    /// Opens a spool and closes it again.
    fn opened(&self, name: &str) -> (usize, Recovered) {
        let (spool, recovered) = Spool::open(self.options(name), RealFileSystem).unwrap();
        (read_all(&spool).len(), recovered)
    }

    /// Leaves a note behind that only the stage has.
    fn killed(&self, name: &str) {
        drop(self.with_a_staged_note(name));
    }

    fn with_a_staged_note(&self, name: &str) -> Spool {
        let (spool, _) = Spool::open_stepped(self.options(name), Arc::new(RealFileSystem)).unwrap();
        spool.note(1, b"served").unwrap();
        spool
    }

    fn found(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.stages.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn age(&self) {
        let long_ago = SystemTime::now() - Duration::from_secs(7_200);
        for path in self.found() {
            File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Its volume is not mounted while another gateway of the machine starts.
#[test]
fn the_stage_of_a_spool_that_is_away_is_not_removed() {
    let places = Places::new();
    places.killed("a");
    places.age();
    std::fs::rename(places.directory("a"), places.directory("away")).unwrap();
    places.opened("b");
    std::fs::rename(places.directory("away"), places.directory("a")).unwrap();
    let (records, recovered) = places.opened("a");
    assert_eq!(records, 1);
    assert_eq!(recovered.lost_stage, None);
    assert_eq!(places.found(), Vec::<PathBuf>::new());
}

#[test]
fn a_stage_that_holds_nothing_of_its_own_goes_with_its_spool() {
    let places = Places::new();
    let (spool, _) = Spool::open(places.options("a"), RealFileSystem).unwrap();
    wait_durable(&spool, spool.note(1, b"served").unwrap()).unwrap();
    let kept: Vec<_> = places.found().into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    drop(spool);
    for (bytes, path) in &kept {
        std::fs::write(path, bytes).unwrap();
    }
    places.age();
    std::fs::remove_dir_all(places.directory("a")).unwrap();
    places.opened("b");
    assert_eq!(kept.len(), 1);
    assert!(places.found().is_empty());
}

/// A backup that somebody opens, made before the stage was and while it was there.
#[test]
fn a_copy_of_a_spool_leaves_the_stage_to_the_spool() {
    for is_live in [false, true] {
        let places = Places::new();
        places.opened("a");
        if !is_live {
            copy(&places.directory("a"), &places.directory("copy"));
        }
        let spool = places.with_a_staged_note("a");
        if is_live {
            copy(&places.directory("a"), &places.directory("copy"));
        }
        drop(spool);
        let (of_copy, _) = places.opened("copy");
        let (records, recovered) = places.opened("a");
        assert_eq!(of_copy, usize::from(is_live), "live: {is_live}");
        assert_eq!(records, 1, "live: {is_live}");
        assert_eq!(recovered.lost_stage, None, "live: {is_live}");
    }
}

#[test]
fn a_start_with_another_folder_of_stages_finds_the_stage() {
    let (mut places, elsewhere) = (Places::new(), tempfile::tempdir_in(STAGE_DIRECTORY).unwrap());
    places.killed("a");
    let before = std::mem::replace(&mut places.stages, elsewhere);
    let (records, recovered) = places.opened("a");
    assert_eq!(records, 1);
    assert_eq!(recovered.lost_stage, None);
    assert_eq!(std::fs::read_dir(before.path()).unwrap().count(), 0);
}

#[test]
fn a_stage_that_is_gone_is_named_once() {
    let places = Places::new();
    places.killed("a");
    let stage = places.found().pop().unwrap();
    std::fs::remove_file(&stage).unwrap();
    let (records, recovered) = places.opened("a");
    assert_eq!(records, 0);
    assert_eq!(recovered.lost_stage, Some(stage));
    assert_eq!(places.opened("a").1.lost_stage, None);
}

/// A restart of the machine takes stages with it, and what the disk had not synced.
#[test]
fn no_stage_is_missed_after_a_power_cut() {
    let disk = MemoryDisk::new(7);
    let options = SpoolOptions { stage_bytes: 2 << 20, ..basics::options(Path::new("/spool")) };
    let (spool, _) = Spool::open_stepped(options.clone(), Arc::new(disk.clone())).unwrap();
    spool.note(1, b"served").unwrap();
    disk.cut_power();
    let (_, recovered) = Spool::open(options, disk).unwrap();
    assert_eq!(recovered.lost_stage, None);
}

#[test]
fn a_look_from_outside_counts_what_only_the_stage_has() {
    let places = Places::new();
    let spool = places.with_a_staged_note("a");
    let intent = spool.intent(1, b"may cost something").unwrap();
    spool.publish(intent, 1, b"costs something").unwrap();
    spool.intent(1, b"open").unwrap();
    let looked = || {
        let found = inspect(&places.directory("a")).unwrap();
        (found.unsent_records, found.open_intents, found.epochs.last().map(|(_, last_seq, _)| *last_seq))
    };
    let running = looked();
    drop(spool);
    assert_eq!(running, (2, 1, Some(1)));
    assert_eq!(looked(), (2, 1, Some(1)));
}
