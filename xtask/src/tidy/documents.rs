//! Documents that must keep up with the code: settings are written down.

use std::path::Path;

use super::TidyProblem;
use super::source::is_identifier;
use super::tree::Tree;

const SETTINGS: &str = "docs/SETTINGS.md";
const TABLE: &str = "shared/runtime/src/settings/table.rs";

/// Checks `docs/SETTINGS.md`.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    check_settings(tree, problems);
}

fn check_settings(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    let written = tree.text(SETTINGS).unwrap_or_default();
    let Some(table) = tree.sources.iter().find(|source| source.path == Path::new(TABLE)) else {
        problems.push(TidyProblem::new(
            Path::new(TABLE),
            1,
            "the table of all settings is not here: tell tidy where it went",
        ));
        return;
    };
    let names: Vec<(usize, &str)> = settings(&table.text).collect();
    if names.is_empty() {
        problems.push(TidyProblem::new(
            &table.path,
            1,
            "no setting is found in it: tell tidy how they are written now",
        ));
    }
    for (line, name) in names {
        if !written.split(|c: char| !is_identifier(c)).any(|word| word == name) {
            problems.push(TidyProblem::new(&table.path, line, format!("the setting {name} is not in {SETTINGS}")));
        }
    }
}

/// The settings of the table, one per line: `NAME = "key", …;`.
fn settings(table: &str) -> impl Iterator<Item = (usize, &str)> {
    table.lines().enumerate().filter_map(|(number, line)| {
        let (name, _) = line.trim_start().split_once(" = \"")?;
        let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (name.len() > 3 && name.chars().all(letters)).then_some((number + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::source::SourceFile;
    use super::*;

    fn problems(sources: Vec<SourceFile>, others: &[(&str, &str)]) -> Vec<String> {
        let others = others.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())).collect();
        let mut problems = Vec::new();
        check(&Tree { sources, others }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_setting_is_written_down() {
        let text =
            "//! Why.\nsettings! {\n    DATA_DIR = \"data_dir\", Plain;\n    JWT_SECRET = \"jwt.secret\", Secret;\n}\n";
        let found =
            problems(vec![SourceFile::new(TABLE.into(), text.to_owned())], &[(SETTINGS, "| `DATA_DIR` | where |")]);
        assert_eq!(found, [format!("{TABLE}:4: the setting JWT_SECRET is not in {SETTINGS}")]);
    }
}
