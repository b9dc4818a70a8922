//! The repository's files, read once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::source::SourceFile;

/// The texts that people wrote: Rust sources, and the others by their path in the repository.
pub(crate) struct Tree {
    pub(crate) sources: Vec<SourceFile>,
    pub(crate) others: Vec<(PathBuf, String)>,
}

impl Tree {
    /// Reads everything below `root` but what is built, kept for Git, or not text.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self { sources: Vec::new(), others: Vec::new() };
        tree.read_folder(root, Path::new(""))?;
        Ok(tree)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            // A folder in a clone, a file in a worktree.
            if path == Path::new(".git") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                // A folder that Cargo marked is a target directory, whatever its name is.
                let built = root.join(&path).join("CACHEDIR.TAG").exists();
                if !built && path != Path::new("data") {
                    self.read_folder(root, &path)?;
                }
            } else if let Ok(text) = fs::read_to_string(root.join(&path)) {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("rs") => self.sources.push(SourceFile::new(path, text)),
                    _ => self.others.push((path, text)),
                }
            }
        }
        Ok(())
    }

    /// Every text with its path, Rust or not.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&Path, &str)> {
        let sources = self.sources.iter().map(|source| (source.path.as_path(), source.text.as_str()));
        sources.chain(self.others.iter().map(|(path, text)| (path.as_path(), text.as_str())))
    }

    /// A text by its path in the repository.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts().find(|(file, _)| *file == Path::new(path)).map(|(_, text)| text)
    }

    /// The manifests of the workspace's members, with their folder.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.others.iter().filter_map(|(path, text)| {
            let folder = path.parent()?;
            (path.ends_with("Cargo.toml") && folder != Path::new("")).then_some((folder, text.as_str()))
        })
    }
}
