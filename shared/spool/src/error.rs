//! The errors of the spool, as types a caller can decide by.

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::IntentId;

/// The reason a spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes to this directory.
    #[error("the spool in {} is in use by another process", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// An option makes no sense.
    #[error("spool: {problem}")]
    Options {
        /// The problem, and what would be right.
        problem: String,
    },
    /// A file was written by a version of this program that is newer than this one.
    #[error("{} has spool format {found}, this program knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// The file system refused something.
    #[error("the spool could not {action} {}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// The path of it.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl OpenError {
    /// Returns whether the disk is what is wrong: it is full, broken or may only be read. That may pass without anybody touching the
    /// directory, so trying again later makes sense.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk(source))
    }

    /// For `map_err`: names what was tried.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Returns whether the disk refused, not the permissions or the caller.
pub(crate) fn is_disk(error: &io::Error) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem];
    full.contains(&error.kind()) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The reason a record was not appended. Nothing of it is in the log then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// `bytes_max` is reached and nothing acknowledged is left to delete, or more intents are open than can be carried.
    #[error("the spool is full")]
    Full,
    /// The file system is full or broken; the spool goes on trying.
    #[error("the spool cannot write: {kind}")]
    Unwritable {
        /// The file system's last error.
        kind: io::ErrorKind,
    },
    /// Appends outran the preparation of the next segment.
    #[error("the spool's next segment is not ready yet")]
    Behind,
    /// The payload is larger than any record may be.
    #[error("a record of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// The size of the payload.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// No such intent is open: it was settled before.
    #[error("intent {0} is not open")]
    NotOpen(IntentId),
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
}

/// A memo that does not fit beside the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a memo of {bytes} bytes exceeds the limit of {}", crate::MEMO_BYTES_MAX)]
pub struct MemoTooLarge {
    /// The size of the memo.
    pub bytes: usize,
}

/// The reason a wait or a read failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The record is in the kernel but cannot be made durable now.
    #[error("the spool cannot make records durable now")]
    Unwritable,
    /// The disk answers nothing at all; what is appended waits in memory for it.
    #[error("the spool's disk stands still")]
    StandsStill,
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
    /// A segment could not be read.
    #[error("the spool could not be read")]
    Read(#[source] io::Error),
}
