//! How many instructions a thread of one of our programs took, by valgrind's callgrind: a number that a busy machine does not
//! change. It says nothing of caches, of the kernel and of waiting.

use std::collections::HashMap;
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

    /// The instructions of all threads, once the program has ended.
    ///
    /// # Errors
    /// There is no count.
    pub fn all(&self) -> Result<u64> {
        // The file of the process itself has none where each thread has its own.
        let totals: Vec<u64> = self.texts()?.iter().filter_map(|text| total(text)).collect();
        ensure!(!totals.is_empty(), "no total in any count");
        Ok(totals.iter().sum())
    }

    /// The part of these that functions took themselves whose names hold this word.
    ///
    /// # Errors
    /// There is no count.
    pub fn within(&self, word: &str) -> Result<u64> {
        Ok(self.texts()?.iter().map(|text| own(text, word)).sum())
    }

    /// Copies the counts there, for `callgrind_annotate`.
    ///
    /// # Errors
    /// There is no count, or no room.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).context("a folder for counts")?;
        for file in self.files()? {
            std::fs::copy(&file, folder.join(file.file_name().unwrap_or_default())).context("keeping a count")?;
        }
        Ok(())
    }

    fn texts(&self) -> Result<Vec<String>> {
        let read = |file: PathBuf| Ok(String::from_utf8_lossy(&std::fs::read(file).context("a count")?).into_owned());
        self.files()?.into_iter().map(read).collect()
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

/// Sums what functions took themselves whose names hold a word. A function has its number before its name, and only the first time the
/// name; what it took follows line by line, and behind each `calls=` a line that is what others took for it.
fn own(text: &str, word: &str) -> u64 {
    let (mut is_meant, mut current, mut is_of_others, mut sum) = (HashMap::new(), false, false, 0);
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            let meant = *is_meant.entry(number).or_insert_with(|| name.contains(word));
            if line.starts_with("fn=") {
                current = meant;
            }
        } else if line.starts_with("calls=") {
            is_of_others = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or_default();
            sum += if current && !is_of_others { cost } else { 0 };
            is_of_others = false;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn what_a_function_took_itself_is_told_from_what_it_called() {
        let text = "events: Ir\n\nfn=(1) main\n16 400\ncfn=(2) sha2::compress\ncalls=1 50\n16 900\n+1 20\n\n\
                    fn=(2)\n50 900\n* 1\n\nfn=(1)\n3 5\n\ntotals: 1326\n";
        assert_eq!((own(text, "main"), own(text, "sha2"), own(text, "other")), (425, 901, 0));
    }
}
