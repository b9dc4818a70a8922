//! Public functions and constants that nobody outside of their crate names: they are `pub(crate)`, or gone.
//!
//! Only names are compared, so one that shares its name with a used one passes. Types are left out: the signature of a
//! function that is used may need them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::TidyProblem;
use super::source::{SourceFile, is_identifier};
use super::tree::Tree;

/// Checks the libraries against everything that could use them.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    let words: Vec<(&Path, BTreeSet<String>)> =
        tree.sources.iter().map(|source| (source.path.as_path(), words(source))).collect();
    for root in tree.sources.iter().filter(|source| source.path.ends_with("src/lib.rs")) {
        let Some(folder) = root.path.parent() else { continue };
        let is_own = |path: &Path| path.starts_with(folder) && !is_program(folder, path);
        let others: BTreeSet<&str> = words
            .iter()
            .filter(|(path, _)| !is_own(path))
            .flat_map(|(_, words)| words.iter().map(String::as_str))
            .collect();
        for source in tree.sources.iter().filter(|source| is_own(&source.path)) {
            for (line, name) in exported(source).filter(|(_, name)| !others.contains(name.as_str())) {
                let what = format!(
                    "{name} is public and nobody outside of the crate names it: make it pub(crate), or delete it"
                );
                problems.push(TidyProblem::new(&source.path, line, what));
            }
        }
    }
}

/// A program beside the library uses it from outside.
fn is_program(folder: &Path, path: &Path) -> bool {
    let inside: PathBuf = path.strip_prefix(folder).unwrap_or(path).to_path_buf();
    inside == Path::new("main.rs") || inside.starts_with("bin")
}

fn words(source: &SourceFile) -> BTreeSet<String> {
    let code: String = source.code.iter().collect();
    code.split(|c: char| !is_identifier(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The lines and names of public functions and constants that are no tests'.
fn exported(source: &SourceFile) -> impl Iterator<Item = (usize, String)> {
    let code: String = source.code.iter().take(source.production_end()).collect();
    let lines: Vec<String> = code.lines().map(str::to_owned).collect();
    lines.into_iter().enumerate().filter_map(|(number, line)| {
        let mut words = line.trim_start().strip_prefix("pub ")?.split_whitespace();
        let mut word = words.next()?;
        let mut is_item = false;
        while ["const", "async", "unsafe", "fn"].contains(&word) {
            is_item |= word != "async" && word != "unsafe";
            word = words.next()?;
        }
        let name: String = word.chars().take_while(|c| is_identifier(*c)).collect();
        (is_item && !name.is_empty()).then_some((number + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_its_own_crate_names_is_found() {
        let file = |path: &str, text: &str| SourceFile::new(path.into(), text.to_owned());
        let sources = vec![
            file(
                "a/src/lib.rs",
                "pub fn used() {}\npub const fn lonely() { tested() }\npub const LEFT: u8 = 1;\npub const TAKEN: u8 = 2;\n",
            ),
            file("a/src/b.rs", "pub(crate) fn own() { lonely(); LEFT }\npub fn tested() {}\npub struct Kept;\n"),
            file("a/src/main.rs", "fn main() { used() }\n"),
            file("a/tests/t.rs", "fn t() { tested(); TAKEN }\n"),
        ];
        let mut problems = Vec::new();
        check(&Tree { sources, others: Vec::new() }, &mut problems);
        let found: Vec<_> = problems.iter().map(|problem| problem.what.split(' ').next().unwrap()).collect();
        assert_eq!(found, ["lonely", "LEFT"]);
    }
}
