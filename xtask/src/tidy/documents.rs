//! Documents that must keep up with the code: decisions have numbers of their own, settings are written down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;
use super::source::is_identifier;
use super::tree::Tree;

const SETTINGS: &str = "docs/SETTINGS.md";
const TABLE: &str = "shared/runtime/src/settings/table.rs";

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
    let Some(table) = tree.sources.iter().find(|source| source.path == Path::new(TABLE)) else {
        problems.push(Problem::new(
            Path::new(TABLE),
            1,
            "the table of all settings is not here: tell tidy where it went",
        ));
        return;
    };
    let names: Vec<(usize, &str)> = settings(&table.text).collect();
    if names.is_empty() {
        problems.push(Problem::new(&table.path, 1, "no setting is found in it: tell tidy how they are written now"));
    }
    for (line, name) in names {
        if !written.split(|c: char| !is_identifier(c)).any(|word| word == name) {
            problems.push(Problem::new(&table.path, line, format!("the setting {name} is not in {SETTINGS}")));
        }
    }
}

/// The settings of the table, one a line: `NAME = "key", …;`.
fn settings(table: &str) -> impl Iterator<Item = (usize, &str)> {
    table.lines().enumerate().filter_map(|(number, line)| {
        let (name, _) = line.trim_start().split_once(" = \"")?;
        let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (name.len() > 3 && name.chars().all(letters)).then_some((number + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn problems(sources: Vec<Source>, others: &[(&str, &str)]) -> Vec<String> {
        let others = others.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())).collect();
        let mut problems = Vec::new();
        check(&Tree { sources, others }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_decision_has_a_number_of_its_own() {
        let mut found = Vec::new();
        let others =
            ["docs/adr/0001-a.md", "docs/adr/0001-b.md", "docs/adr/x.md"].map(|path| (path.into(), String::new()));
        check_decisions(&Tree { sources: Vec::new(), others: others.to_vec() }, &mut found);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "docs/adr/0001-b.md:1: 0001 is taken by docs/adr/0001-a.md: take the next free number",
                "docs/adr/x.md:1: a decision is named NNNN-title.md",
            ]
        );
    }

    #[test]
    fn a_setting_is_written_down() {
        let text =
            "//! Why.\nsettings! {\n    DATA_DIR = \"data_dir\", Plain;\n    JWT_SECRET = \"jwt.secret\", Secret;\n}\n";
        let found = problems(vec![Source::new(TABLE.into(), text.to_owned())], &[(SETTINGS, "| `DATA_DIR` | where |")]);
        assert_eq!(found, [format!("{TABLE}:4: the setting JWT_SECRET is not in {SETTINGS}")]);
    }
}
