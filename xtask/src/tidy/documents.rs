//! Documents that must keep up with the code: decisions have numbers of their own, settings are written down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;
use super::source::{Source, is_identifier};
use super::tree::Tree;

const SETTINGS: &str = "docs/SETTINGS.md";

/// Checks `docs/adr` and `docs/SETTINGS.md`.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<Problem>) {
    check_decisions(tree, problems);
    check_settings(tree, problems);
}

fn check_decisions(tree: &Tree, problems: &mut Vec<Problem>) {
    let mut numbers: BTreeMap<&str, &Path> = BTreeMap::new();
    let mut decisions: Vec<&PathBuf> =
        tree.others.iter().map(|(path, _)| path).filter(|path| path.starts_with("docs/adr")).collect();
    decisions.sort();
    for path in decisions {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || number.parse::<u16>().is_err() {
            problems.push(Problem::new(path, 1, "a decision is named NNNN-title.md"));
        } else if let Some(other) = numbers.insert(number, path) {
            problems.push(Problem::new(
                path,
                1,
                format!("{number} is taken by {}: take the next free number", other.display()),
            ));
        }
    }
}

fn check_settings(tree: &Tree, problems: &mut Vec<Problem>) {
    let written = tree.text(SETTINGS).unwrap_or_default();
    for source in tree.sources.iter().filter(|source| !source.is_test()) {
        for (line, name) in settings(source) {
            let documented = written.split(|c: char| !is_identifier(c)).any(|word| word == name);
            if !documented {
                problems.push(Problem::new(&source.path, line, format!("the setting {name} is not in {SETTINGS}")));
            }
        }
    }
}

/// Settings that a source reads: an upper-case name as the first argument of a method of `values`.
fn settings(source: &Source) -> Vec<(usize, &str)> {
    let end = source.production_end();
    let read = |(at, name): &(usize, String)| {
        let before: String = source.code.iter().take(*at).skip(at.saturating_sub(160)).collect();
        let statement = before.rsplit([';', '{', '}', ',']).next().unwrap_or_default();
        *at < end && is_setting_name(name) && before.trim_end().ends_with('(') && statement.contains("values")
    };
    source.literals.iter().filter(|literal| read(literal)).map(|(at, name)| (source.line(*at), name.as_str())).collect()
}

fn is_setting_name(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.len() > 3 && name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(sources: Vec<Source>, others: &[(&str, &str)]) -> Vec<String> {
        let others = others.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())).collect();
        let mut problems = Vec::new();
        check(&Tree { sources, others }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_decision_has_a_number_of_its_own() {
        let found =
            problems(Vec::new(), &[("docs/adr/0001-a.md", ""), ("docs/adr/0001-b.md", ""), ("docs/adr/x.md", "")]);
        assert_eq!(
            found,
            [
                "docs/adr/0001-b.md:1: 0001 is taken by docs/adr/0001-a.md: take the next free number",
                "docs/adr/x.md:1: a decision is named NNNN-title.md",
            ]
        );
    }

    #[test]
    fn a_setting_that_is_read_is_written_down() {
        let text = "//! Why.\nfn f() { let a = values.optional::<u8>(\"DATA_DIR\", \"x\"); g(\"SELECT\"); values.required(\"JWT_SECRET\"); }";
        let source = || vec![Source::new("gateway/src/x.rs".into(), text.to_owned())];
        let found = problems(source(), &[(SETTINGS, "| `DATA_DIR` | where |")]);
        assert_eq!(found, ["gateway/src/x.rs:2: the setting JWT_SECRET is not in docs/SETTINGS.md"]);
    }
}
