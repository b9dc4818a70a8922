//! Files that settings name, read so that nothing waits for them without end: what is no regular file is refused by what it
//! is, and no file is read beyond its bound. And files that only their owner may read. Not for the data of a program.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// The most bytes that a file of certificates, keys or credentials may have.
pub const NAMED_FILE_BYTES_MAX: u64 = 1 << 20;

/// The mode of such a file.
const PRIVATE: u32 = 0o600;

/// The fate of a pipe in the place of a file. Nothing can be read from it a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipes {
    /// It is no file.
    Refused,
    /// It is read, this once.
    ReadOnce,
    /// It was read at the start.
    Drained,
}

/// Reads a regular file, through symbolic links.
///
/// # Errors
/// It can't be read, holds more bytes than it may, or is a folder, a device, a pipe or a socket.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    refuse_other(&std::fs::metadata(path)?)?;
    // Opening a pipe waits for whoever writes into it, and one may stand there by now.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    refuse_other(&file.metadata()?)?;
    bounded(file, bytes_max)
}

/// Reads as [`read_file`] does, or from a pipe where that may be.
pub(crate) fn read_file_or_pipe(path: &Path, bytes_max: u64, pipes: Pipes) -> io::Result<Vec<u8>> {
    let is_pipe = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    match pipes {
        Pipes::ReadOnce if is_pipe => bounded(File::open(path)?, bytes_max),
        Pipes::Drained if is_pipe => {
            Err(io::Error::other("it is a pipe, which is read once, at the start: there is nothing to read again"))
        }
        _ => read_file(path, bytes_max),
    }
}

fn refuse_other(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::other(format!("it is {what} and no regular file")))
}

fn bounded(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it holds more than {} MiB", bytes_max >> 20)));
    }
    Ok(bytes)
}

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
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(std::path::PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn folder(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("goldleaves-files-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let folder = folder("kinds");
        let at = |name: &str| folder.0.join(name);
        std::fs::write(at("file"), "text").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(read_file(&at("link"), 4).unwrap(), b"text");
        for (name, why) in [
            ("zero", "it is a device and no regular file"),
            ("pipe", "it is a pipe and no regular file"),
            ("socket", "it is a socket and no regular file"),
            (".", "it is a folder and no regular file"),
            ("none", "No such file"),
        ] {
            let error = read_file(&at(name), 4).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        let drained = read_file_or_pipe(&at("pipe"), 4, Pipes::Drained).unwrap_err().to_string();
        assert!(drained.contains("nothing to read again"), "{drained}");
    }

    #[test]
    fn nothing_is_read_beyond_its_bound() {
        let folder = folder("bound");
        let file = folder.0.join("file");
        std::fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
        assert_eq!(read_file(&file, 2 << 20).unwrap().len(), 2 << 20);
        assert!(read_file(&file, 1 << 20).unwrap_err().to_string().contains("more than 1 MiB"));
    }

    #[test]
    fn a_pipe_is_read_once_where_that_may_be() {
        let folder = folder("once");
        let pipe = folder.0.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let into = pipe.clone();
        let writer = std::thread::spawn(move || std::fs::write(into, "text").unwrap());
        assert_eq!(read_file_or_pipe(&pipe, 4, Pipes::ReadOnce).unwrap(), b"text");
        writer.join().unwrap();
    }

    #[test]
    fn a_file_that_is_there_is_not_opened() {
        // Opening a directory to write would fail, and say so.
        create_private(&std::env::temp_dir()).unwrap();
    }
}
