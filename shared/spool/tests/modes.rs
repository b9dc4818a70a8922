//! The spool is readable by its owner alone, also where an earlier version left it open.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use goldleaves_spool::{RealFileSystem, SEGMENT_BYTES_MIN, Spool, SpoolOptions};

fn modes(directory: &Path) -> Vec<(String, u32)> {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut modes = vec![("the folder".to_owned(), mode(directory))];
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        modes.push((entry.file_name().into_string().unwrap(), mode(&entry.path())));
    }
    modes
}

fn open(directory: &Path) {
    let options =
        SpoolOptions { bytes_max: 64 << 20, segment_bytes: 4 * SEGMENT_BYTES_MIN, ..SpoolOptions::new(directory) };
    let (spool, _) = Spool::open(options, RealFileSystem).unwrap();
    spool.close();
}

#[test]
fn only_the_owner_may_read() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("spool");
    open(&directory);
    let closed = |modes: &[(String, u32)]| modes.iter().all(|(_, mode)| mode & 0o077 == 0);
    let made = modes(&directory);
    assert!(made.len() > 2 && closed(&made), "{made:?}");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    for (name, _) in made.iter().skip(1) {
        fs::set_permissions(directory.join(name), Permissions::from_mode(0o644)).unwrap();
    }
    open(&directory);
    let found = modes(&directory);
    let open_still: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(open_still.is_empty(), "{found:?}");
}
