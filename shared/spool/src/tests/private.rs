//! The spool on a real directory that others could read, or whose files somebody cut.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use uuid::Uuid;

use super::basics::options;
use super::wait_durable;
use crate::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn modes(directory: &Path) -> Vec<u32> {
    std::fs::read_dir(directory).unwrap().map(|entry| mode(&entry.unwrap().path())).collect()
}

#[test]
fn only_the_owner_reads_a_spool() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("spool");
    let (spool, _) = Spool::open(options(&directory), RealFileSystem).unwrap();
    wait_durable(&spool, spool.note(1, b"who called what").unwrap()).unwrap();
    assert_eq!(mode(&directory), 0o700);
    let files = modes(&directory);
    assert!(files.len() > 2 && files.iter().all(|mode| *mode == 0o600), "{files:?}");
    drop(spool);
    // As an older version left it.
    std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(&directory).unwrap() {
        std::fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o644)).unwrap();
    }
    let (_spool, recovered) = Spool::open(options(&directory), RealFileSystem).unwrap();
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(recovered.unsent, 1);
    assert!(modes(&directory).iter().all(|mode| *mode == 0o600));
}

/// A store into a mapping of a file that somebody cut kills the process.
#[test]
fn a_segment_cut_by_somebody_kills_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(options(directory.path()), RealFileSystem).unwrap();
    wait_durable(&spool, spool.note(1, b"before").unwrap()).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
        }
    }
    let mut last = None;
    for number in 0..100_u32 {
        last = spool.note(1, &number.to_le_bytes().repeat(50)).ok().or(last);
    }
    wait_durable(&spool, last.unwrap()).unwrap();
    let records = spool.reader().next_batch(1000, usize::MAX).unwrap();
    assert_eq!(records.last().unwrap().lsn, last.unwrap());
}

#[test]
fn without_a_stage_every_append_is_in_the_file_at_once() {
    let (directory, elsewhere) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap());
    for stage_directory in [None, Some(elsewhere.path().to_owned())] {
        let options = SpoolOptions { stage_directory, ..options(&directory.path().join(Uuid::now_v7().to_string())) };
        let (spool, _) = Spool::open(options.clone(), RealFileSystem).unwrap();
        assert!(!spool.stats().staged);
        spool.note(1, b"at once").unwrap();
        assert_eq!(inspect(&options.directory).unwrap().unsent_records, 1);
    }
}
