//! Files that only their owner may read.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// The mode of such a file.
const PRIVATE: u32 = 0o600;

/// Makes an empty file that only its owner may read and write, and the folders above it, when it is missing.
///
/// A file that is there is never opened: closing it again would drop every lock this process holds on it (POSIX locks
/// belong to process and file), and the next program to look at a database would take the log away from under us.
///
/// # Errors
/// When the file system refuses.
pub fn create_private(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_not_opened() {
        // Opening a directory to write would fail, and say so.
        create_private(&std::env::temp_dir()).unwrap();
    }
}
