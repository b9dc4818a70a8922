//! Circles between the ideas of a crate: a module of its root and all that lies below it is one idea, and of two ideas at
//! most one uses the other.
//!
//! Names are followed through `crate::`, `super::` and what the crate's root hands on by `use`. What macros make is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::TidyProblem;
use super::source::{SourceFile, is_identifier};
use super::tree::Tree;

/// The ideas that each idea of one crate uses.
type Uses<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Checks every crate that has a root.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    for root in tree.sources.iter().filter(|source| source.path.ends_with("src/lib.rs")) {
        let Some(folder) = root.path.parent() else { continue };
        let inside: Vec<&SourceFile> = tree.sources.iter().filter(|source| source.path.starts_with(folder)).collect();
        let uses = uses(folder, root, &inside);
        for circle in circles(&uses) {
            let names: Vec<&str> = circle.into_iter().collect();
            let what =
                format!("{} use each other in a circle: move what both need to where both see it", names.join(", "));
            problems.push(TidyProblem::new(&root.path, 1, what));
        }
    }
}

/// The idea of a file; `None` for roots and tests.
fn idea<'a>(folder: &Path, path: &'a Path) -> Option<&'a str> {
    let inside = path.strip_prefix(folder).ok()?;
    let is_test = inside.iter().any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs");
    let first = inside.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!is_test && !["lib", "main", "bin"].contains(&name)).then_some(name)
}

fn uses<'a>(folder: &Path, root: &'a SourceFile, inside: &[&'a SourceFile]) -> Uses<'a> {
    let ideas: BTreeSet<&str> = inside.iter().filter_map(|source| idea(folder, &source.path)).collect();
    let handed_on = handed_on(root);
    let mut uses: Uses<'_> = BTreeMap::new();
    for source in inside {
        let Some(own) = idea(folder, &source.path) else { continue };
        let code: String = source.code.iter().take(source.production_end()).collect();
        let is_flat = source.path.parent() == Some(folder);
        let paths = if is_flat { vec!["crate::", "super::"] } else { vec!["crate::"] };
        for name in paths.into_iter().flat_map(|path| names_after(&code, path)) {
            let known = ideas.get(name.as_str()).copied();
            let used = known.or_else(|| ideas.get(handed_on.get(&name)?.as_str()).copied());
            if let Some(used) = used.filter(|used| *used != own) {
                uses.entry(own).or_default().insert(used);
            }
        }
    }
    uses
}

/// The names that the root hands on, by the module they come from.
fn handed_on(root: &SourceFile) -> BTreeMap<String, String> {
    let code: String = root.code.iter().collect();
    let mut names = BTreeMap::new();
    for part in code.split("use ").skip(1) {
        let part = part.split(';').next().unwrap_or_default();
        let mut words = part.split(|c: char| !is_identifier(c)).filter(|word| !word.is_empty());
        if let Some(module) = words.next() {
            names.extend(words.map(|name| (name.to_owned(), module.to_owned())));
        }
    }
    names
}

/// The first names behind each `path`, those in braces too.
fn names_after(code: &str, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(path) {
        let rest = code.get(at + path.len()..).unwrap_or_default();
        match rest.strip_prefix('{') {
            None => names.push(rest.chars().take_while(|c| is_identifier(*c)).collect()),
            Some(group) => names.extend(group_names(group)),
        }
    }
    names
}

/// The first name of each entry of a group, up to its closing brace.
fn group_names(group: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let (mut depth, mut is_first) = (0, true);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(String::new());
                is_first = true;
            }
            c if is_identifier(c) => names.last_mut().filter(|_| is_first).into_iter().for_each(|name| name.push(c)),
            c => is_first &= c.is_whitespace(),
        }
    }
    names
}

/// Every set of ideas that reach each other.
fn circles<'a>(uses: &Uses<'a>) -> Vec<BTreeSet<&'a str>> {
    let reached: Uses<'a> = uses.keys().map(|idea| (*idea, reach(uses, idea))).collect();
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for (idea, all) in reached.iter().filter(|(idea, all)| all.contains(*idea)) {
        let back = |other: &&&str| reached.get(*other).is_some_and(|all| all.contains(idea));
        let circle: BTreeSet<&str> = all.iter().filter(back).copied().collect();
        if !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

fn reach<'a>(uses: &Uses<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = uses.get(from).into_iter().flatten().copied().collect();
    while let Some(idea) = next.pop() {
        if reached.insert(idea) {
            next.extend(uses.get(idea).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources =
            files.iter().map(|(path, text)| SourceFile::new(format!("x/src/{path}").into(), (*text).to_owned()));
        let mut problems = Vec::new();
        check(&Tree { sources: sources.collect(), others: Vec::new() }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_circle_is_found_through_modules_groups_and_what_the_root_hands_on() {
        let root = ("lib.rs", "mod a; mod b; mod c;\npub use c::C;\n");
        let a = ("a.rs", "use crate::b::B;\n");
        let circle = "x/src/lib.rs:1: a, b, c use each other in a circle: move what both need to where both see it";
        assert_eq!(
            found(&[root, a, ("b/mod.rs", "use crate::{C, d::E};\n"), ("c.rs", "use super::a::A;\n")]),
            [circle]
        );
        assert!(found(&[root, a, ("b/mod.rs", "use super::a;\n")]).is_empty(), "a folder's own parent");
        assert!(found(&[root, a, ("b.rs", "#[cfg(test)]\nmod tests { use crate::a; }\n")]).is_empty(), "a test");
    }
}
