//! The identity of a file: the signs that it is another one than it was, without reading it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::task::JoinError;

/// The identity of a file, which tells that it is another one: also through symbolic links, as Kubernetes swaps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenFile(Option<(u64, u64, SystemTime)>);

impl SeenFile {
    /// Looks at these files. A folder of another machine may take its time, and nothing else waits for it.
    pub(super) async fn of_all(paths: Vec<PathBuf>) -> Result<Vec<Self>, JoinError> {
        tokio::task::spawn_blocking(move || paths.iter().map(|path| Self::of(path)).collect()).await
    }

    pub(super) async fn of_one(path: &Path) -> Result<Self, JoinError> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || Self::of(&path)).await
    }

    /// Returns whether anything is there.
    pub(super) const fn is_there(self) -> bool {
        self.0.is_some()
    }

    pub(super) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = std::fs::metadata(path).ok();
        Self(metadata.and_then(|metadata| Some((metadata.len(), metadata.ino(), metadata.modified().ok()?))))
    }
}
