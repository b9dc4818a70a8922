//! How many instructions a thread of one of our programs took, by valgrind's callgrind: a number that a busy machine does not
//! change. It says nothing of caches, of the kernel and of waiting.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use goldleaves_toolbox::Toolbox;

use crate::program::Launch;
use crate::scratch::Scratch;

/// Counts what one run of a program takes.
#[derive(Debug)]
pub struct Callgrind {
    scratch: Scratch,
}

impl Callgrind {
    /// A count that has not begun.
    ///
    /// # Errors
    /// No folder could be made.
    pub fn new() -> Result<Self> {
        Ok(Self { scratch: Scratch::new("callgrind")? })
    }

    /// The same program, counted. It runs some fifty times slower, and its threads one at a time.
    ///
    /// # Errors
    /// valgrind is missing.
    pub fn counted(&self, launch: Launch) -> Result<Launch> {
        let mut out = OsString::from("--callgrind-out-file=");
        out.push(self.scratch.join("counts.%p"));
        let valgrind: OsString = Toolbox::of_target().valgrind()?.into();
        let words = ["--tool=callgrind", "--separate-threads=yes", "--fair-sched=yes", "-q"].map(OsString::from);
        Ok(launch.under([valgrind].into_iter().chain(words).chain([out])))
    }

    /// The instructions of the one thread that took most among those that were ever in a function of this name, once the program
    /// has ended.
    ///
    /// # Errors
    /// There is none, or no count.
    pub fn instructions(&self, function: &str) -> Result<u64> {
        let mut most = None;
        for file in self.files()? {
            let text = String::from_utf8_lossy(&std::fs::read(&file).context("a count")?).into_owned();
            if text.contains(function) {
                most = most.max(Some(total(&text).with_context(|| format!("no total in {}", file.display()))?));
            }
        }
        most.with_context(|| format!("no thread was in {function}"))
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.scratch.path()).context("counts")?;
        let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_count(path)).collect();
        ensure!(!files.is_empty(), "callgrind wrote nothing");
        Ok(files)
    }
}

fn is_count(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("counts."))
}

/// Reads `totals: 123`, or `summary: 123`.
fn total(text: &str) -> Option<u64> {
    let of = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse::<u64>().ok());
    of("totals:").or_else(|| of("summary:"))
}
