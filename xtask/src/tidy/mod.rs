//! `cargo xtask tidy`: the rules of this repository that the compiler does not know, as a command and as a test.
//!
//! Every problem is one line, `file:line: what is wrong: what would be right`.

mod adding;
mod arguments;
mod circles;
mod decisions;
mod documents;
mod edges;
mod exports;
mod language;
mod manifests;
mod rules;
mod source;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TidyProblem {
    file: PathBuf,
    line: usize,
    what: String,
}

impl TidyProblem {
    fn new(file: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_path_buf(), line, what: what.into() }
    }
}

impl fmt::Display for TidyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Prints every problem; fails if there is one.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let problems = check(&goldleaves_toolbox::workspace_root())?;
    for problem in &problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} to mend", problems.len());
    Ok(ExitCode::FAILURE)
}

/// Every problem of the repository at `root`, sorted by place.
fn check(root: &Path) -> anyhow::Result<Vec<TidyProblem>> {
    let tree = tree::Tree::read(root).context("cannot read the repository")?;
    let mut problems = Vec::new();
    for source in &tree.sources {
        rules::check(source, &tree.sources, &mut problems);
        arguments::check(source, &mut problems);
    }
    for (path, text) in tree.texts() {
        rules::check_words(path, text, &mut problems);
    }
    manifests::check(&tree, &mut problems)?;
    edges::check(&tree, &mut problems)?;
    circles::check(&tree, &mut problems);
    exports::check(&tree, &mut problems);
    decisions::check(&tree, &mut problems);
    documents::check(&tree, &mut problems);
    adding::check(&tree, &mut problems);
    language::check(&tree, &mut problems);
    problems.sort();
    problems.dedup();
    Ok(problems)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        let problems = super::check(&goldleaves_toolbox::workspace_root()).unwrap();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
