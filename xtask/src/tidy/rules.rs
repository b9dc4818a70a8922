//! The rules for every source, and every text.

use std::path::Path;

use super::TidyProblem;
use super::source::{SourceFile, is_identifier};

/// Marks of unfinished work. Written in halves here, so that this file does not find itself.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// The words that speak of a machine or a workplace instead of the product.
const FOREIGN: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "plan"),
    concat!("/tmp/", "wt/"),
    concat!("py", "pi.org"),
    concat!("deb", ".debian.org"),
    concat!("npmjs", ".org"),
    concat!("index.crates", ".io"),
];

/// The most lines of a file; how long a function may be is clippy's to say.
const FILE_LINES_MAX: usize = 600;

/// Checks one Rust source of these.
pub(crate) fn check(source: &SourceFile, sources: &[SourceFile], problems: &mut Vec<TidyProblem>) {
    let mut found = |line, what: &str| problems.push(TidyProblem::new(&source.path, line, what));
    if !source.text.starts_with("//!") {
        found(1, "no module docs: the first line is `//!` and says why this file exists");
    }
    for at in source.words("static") {
        if is_static_item(source, at) && !is_of_tests(&source.path) {
            found(source.line(at), "a static: hand the value down instead, or make it a const");
        }
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        found(1, &format!("{lines} lines; at most {FILE_LINES_MAX} are allowed, split it"));
    }
    if is_beside_its_folder(source, sources) {
        found(1, "a module beside its own folder: modules with files below them are `mod.rs` in their folder");
    }
    for at in source.pieces("#[ignore").into_iter().chain(source.pieces("#[cfg_attr(any(), test")) {
        found(source.line(at), "an ignored test: mend it or delete it, nothing is skipped silently");
    }
}

/// Returns whether this is `x.rs` where files lie in `x/`.
fn is_beside_its_folder(source: &SourceFile, sources: &[SourceFile]) -> bool {
    let folder = source.path.with_extension("");
    sources.iter().any(|other| other.path.starts_with(&folder))
}

/// Checks one text, Rust or not, for words that have no place in it.
pub(crate) fn check_words(path: &Path, text: &str, problems: &mut Vec<TidyProblem>) {
    if path.ends_with("Cargo.lock") {
        return;
    }
    let is_code = path.extension().is_some_and(|extension| extension == "rs" || extension == "toml");
    for (number, line) in text.lines().enumerate() {
        let has = |word: &str| line.match_indices(word).any(|(at, found)| stands_alone(line, at, found));
        if let Some(word) = UNFINISHED.iter().find(|word| is_code && has(word)) {
            problems.push(TidyProblem::new(
                path,
                number + 1,
                format!("{word}: do it now, or file it where work is kept"),
            ));
        }
        if let Some(word) = FOREIGN.iter().find(|word| has(word)) {
            let what = format!("{word} is a place outside the product: leave it out");
            problems.push(TidyProblem::new(path, number + 1, what));
        }
    }
}

/// Returns whether no letter or digit continues the word on either side (only where the word itself has a letter there).
fn stands_alone(line: &str, at: usize, word: &str) -> bool {
    let before = line.get(..at).and_then(|before| before.chars().next_back());
    let after = line.get(at + word.len()..).and_then(|after| after.chars().next());
    let ends_in_letter = word.chars().next_back().is_some_and(is_identifier);
    before.is_none_or(|c| !is_identifier(c)) && (!ends_in_letter || after.is_none_or(|c| !is_identifier(c)))
}

/// The tests of one process have no `main` that could hand a shared server down to them.
fn is_of_tests(path: &Path) -> bool {
    path.starts_with("shared/testkit") || path.iter().any(|part| part == "tests")
}

/// `'static` is a lifetime, and an allocator has no other way to be named.
fn is_static_item(source: &SourceFile, at: usize) -> bool {
    let before: String = source.code.iter().take(at).collect();
    let before = before.trim_end();
    !before.ends_with('\'') && !before.ends_with("#[global_allocator]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let source = SourceFile::new("x.rs".into(), text.to_owned());
        let mut problems = Vec::new();
        check(&source, &[], &mut problems);
        check_words(Path::new("x.rs"), text, &mut problems);
        problems.iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn good_code_has_no_problem() {
        assert!(
            lines("//! Why.\nfn f(x: &'static str) { g(\"static\"); }\n#[global_allocator]\nstatic A: B = B;\n")
                .is_empty()
        );
    }

    #[test]
    fn a_module_with_files_below_it_is_in_their_folder() {
        let file = |path: &str| SourceFile::new(path.into(), String::new());
        let sources = [file("a/src/x.rs"), file("a/src/x/y.rs"), file("a/src/z/mod.rs"), file("a/src/z/y.rs")];
        let beside: Vec<bool> = sources.iter().map(|source| is_beside_its_folder(source, &sources)).collect();
        assert_eq!(beside, [true, false, false, false]);
    }

    #[test]
    fn each_rule_finds_its_line() {
        assert_eq!(lines("fn f() {}\n"), [1]);
        assert!(is_of_tests(Path::new("a/tests/b.rs")) && !is_of_tests(Path::new("a/src/tests.rs")));
        assert_eq!(lines("//! Why.\nstatic X: u8 = 1;\n"), [2]);
        assert_eq!(lines(&format!("//! Why.{}", "\n".repeat(FILE_LINES_MAX + 1))), [1]);
        assert_eq!(lines("//! Why.\n#[test]\n#[ignore]\nfn f() {}\n"), [3]);
        assert_eq!(lines(&format!("//! Why.\n// {}: later\n", UNFINISHED[0])), [2]);
        assert_eq!(lines(&format!("//! Why.\n// see {}x\n", FOREIGN[0])), [2]);
        assert!(lines(&format!("//! Why.\n// frame{}x\n", FOREIGN[0].trim_start_matches('/'))).is_empty());
    }
}
