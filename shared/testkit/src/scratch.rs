//! A folder for a test's data: gone after a test that passed, kept and named after one that failed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// A folder of its own for one test.
#[derive(Debug)]
pub struct Scratch {
    folder: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Makes the folder; `name` is part of its name.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn new(name: &str) -> Result<Self> {
        let prefix = format!("goldleaves-{name}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().context("a folder for the test's data")?;
        let path = folder.path().to_path_buf();
        Ok(Self { folder: Some(folder), path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the test's data is kept in {}", folder.keep().display());
        }
    }
}
