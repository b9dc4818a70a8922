//! `docs/ADDING.md` and the steps in it that a machine can check: each table has its rights and its line for operators, each
//! step of the schema is in the plan, each metric is written down. The places that `docs/GLOSSARY.md` names are there too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::TidyProblem;
use super::source::{SourceFile, is_identifier};
use super::tree::Tree;

const GUIDE: &str = "docs/ADDING.md";
const GLOSSARY: &str = "docs/GLOSSARY.md";
const OPERATORS: &str = "docs/DEPLOYMENT.md";
const UPSTREAMS: &str = "docs/EDGE.md";
const ROLES: &str = "deploy/roles.sql";
const MIGRATIONS: &str = "migrations/src";
const PLAN: &str = "migrations/src/lib.rs";

/// Checks all of it.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    check_paths(GUIDE, tree, problems);
    check_paths(GLOSSARY, tree, problems);
    check_tables(tree, problems);
    check_steps(tree, problems);
    check_metrics(tree, problems);
}

/// Every path of this repository that a page names is there; what begins with a slash is a path of an API.
fn check_paths(page: &str, tree: &Tree, problems: &mut Vec<TidyProblem>) {
    let paths: BTreeSet<&Path> = tree.texts().map(|(path, _)| path).collect();
    let text = tree.text(page).unwrap_or_default();
    for (number, line) in text.lines().enumerate() {
        let is_place = |named: &&str| named.contains('/') && !named.contains(' ') && !named.starts_with('/');
        for named in line.split('`').skip(1).step_by(2).filter(is_place) {
            let is_there = paths.iter().any(|path| *path == Path::new(named) || path.starts_with(named));
            if !is_there {
                problems.push(TidyProblem::new(
                    Path::new(page),
                    number + 1,
                    format!("{named} is not there any more: name what is"),
                ));
            }
        }
    }
}

fn steps(tree: &Tree) -> impl Iterator<Item = &SourceFile> {
    let is_step = |path: &PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        path.starts_with(MIGRATIONS) && name.starts_with("m2")
    };
    tree.sources.iter().filter(move |source| is_step(&source.path))
}

fn check_tables(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    for step in steps(tree) {
        for (number, line) in step.text.lines().enumerate() {
            for table in line.split("CREATE TABLE ").skip(1) {
                let table = table.trim_start_matches("IF NOT EXISTS ");
                let name: String = table.chars().take_while(|c| is_identifier(*c)).collect();
                for place in [ROLES, OPERATORS].iter().filter(|_| !name.is_empty()) {
                    if !has_word(tree.text(place).unwrap_or_default(), &name) {
                        let what = format!("the table {name} is not in {place}: see \"A table\" in {GUIDE}");
                        problems.push(TidyProblem::new(&step.path, number + 1, what));
                    }
                }
            }
        }
    }
}

fn check_steps(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    let plan = tree.text(PLAN).unwrap_or_default();
    for step in steps(tree) {
        let name = step.path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if !plan.contains(&format!("({name}::Step")) {
            problems.push(TidyProblem::new(
                &step.path,
                1,
                format!("the step is in no plan: see \"A migration\" in {GUIDE}"),
            ));
        }
    }
}

/// A metric is registered by its name and a help text, `register("name", "Help", …)`, mostly through a closure or a function
/// of another name.
fn check_metrics(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    let written = [OPERATORS, UPSTREAMS].map(|page| tree.text(page).unwrap_or_default()).concat();
    let is_production = |source: &&SourceFile| {
        source.path.iter().any(|part| part == "src")
            && !source.path.starts_with("e2e")
            && !source.path.starts_with("xtask")
    };
    for source in tree.sources.iter().filter(is_production) {
        for (line, name) in registered(source) {
            // Beside one that is named in full, others are named by their ends.
            let mut ends = name.match_indices('_').filter_map(|(at, _)| name.get(at..));
            let is_written = written.contains(&format!("goldleaves_{name}"))
                || ends.any(|end| written.contains(&format!("`{end}`")));
            if !is_written {
                let what =
                    format!("the metric {name} is in neither {OPERATORS} nor {UPSTREAMS}: see \"A metric\" in {GUIDE}");
                problems.push(TidyProblem::new(&source.path, line, what));
            }
        }
    }
}

/// The metrics that a source registers, each with its line: the first argument of a call is the name, and the second the
/// help, which is a sentence or is called `help`.
fn registered(source: &SourceFile) -> Vec<(usize, String)> {
    let production: String = source.text.chars().take(source.production_end()).collect();
    let mut names = Vec::new();
    for (at, _) in production.match_indices('(') {
        let Some((name, rest)) = literal(production.get(at + 1..).unwrap_or_default()) else { continue };
        let is_name = name.len() > 2 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let second = rest.trim_start().strip_prefix(',').unwrap_or_default().trim_start();
        let is_help = second.starts_with("help") || literal(second).is_some_and(|(help, _)| is_sentence(help));
        if is_name && is_help {
            names.push((production.get(..at).unwrap_or_default().lines().count(), name.to_owned()));
        }
    }
    names
}

fn is_sentence(text: &str) -> bool {
    text.starts_with(char::is_uppercase) && text.split_once(' ').is_some_and(|(first, _)| !first.contains('('))
}

/// A text that begins with a literal: what is in its quotes, and what follows.
fn literal(text: &str) -> Option<(&str, &str)> {
    text.trim_start().strip_prefix('"')?.split_once('"')
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !is_identifier(c)).any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sources: &[(&str, &str)], others: &[(&str, &str)]) -> Vec<String> {
        let sources = sources.iter().map(|(path, text)| SourceFile::new((*path).into(), (*text).to_owned())).collect();
        let others = others.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())).collect();
        let mut problems = Vec::new();
        check(&Tree { sources, others }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_step_that_is_missed_is_named() {
        let step = ("migrations/src/m20270101_000009_x.rs", "const UP: &str = \"CREATE TABLE usage_x (id text)\";\n");
        let plan = (PLAN, "Planned::expanding(m20270101_000009_x::Step, FIRST)\n");
        let metric = (
            "gateway/src/m.rs",
            "fn f() {\n    show(\n    \"lost_calls\",\n    \"Calls that are lost\",\n);\n    show_it(\"odd_calls\", help);\n    log(\"no_metric\", \"no help\");\n}\n",
        );
        let missed = found(
            &[step, metric],
            &[
                (GUIDE, "`gateway/src/gone.rs`, `a b`, `cargo/no way`, `/billing/usage`"),
                (GLOSSARY, "`gateway/src/moved.rs`"),
            ],
        );
        let parts = [
            "gone.rs is not there any more",
            "moved.rs is not there any more",
            "usage_x is not in deploy",
            "usage_x is not in docs",
            "in no plan",
            "lost_calls",
            "odd_calls",
        ];
        assert!(parts.iter().all(|part| missed.iter().any(|line| line.contains(part))), "{missed:#?}");
        assert_eq!(missed.len(), parts.len(), "{missed:#?}");
        let others = [
            (GUIDE, "`gateway/src/m.rs`, `gateway/src/`"),
            (OPERATORS, "`usage_x`, `goldleaves_lost_calls_total`, `goldleaves_odd_calls`"),
            (ROLES, "GRANT SELECT ON usage_x TO r;"),
        ];
        assert!(found(&[step, plan, metric], &others).is_empty());
    }
}
