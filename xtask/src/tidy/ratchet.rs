//! Lengths: a file has at most 600 lines, a function at most 70.
//!
//! What is longer today may be listed in `xtask/ratchet.toml` with its length; it may shrink there, never grow.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::Problem;
use super::functions::functions;
use super::source::Source;

const FILE: &str = "xtask/ratchet.toml";
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// The lengths that are allowed beyond the limits.
pub(crate) struct Ratchet {
    /// By path, or by `path::function`.
    allowed: BTreeMap<String, usize>,
}

impl Ratchet {
    /// Reads the list; no file is an empty list.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
        let table: toml::Table = text.parse().with_context(|| format!("cannot read {FILE}"))?;
        let mut allowed = BTreeMap::new();
        for (name, value) in table {
            let lines = value.as_integer().and_then(|lines| usize::try_from(lines).ok());
            allowed.insert(name.clone(), lines.with_context(|| format!("{FILE}: {name} must be a number of lines"))?);
        }
        Ok(Self { allowed })
    }

    /// Finds what is too long, and entries of the list that no longer say the truth.
    pub(crate) fn check(&self, sources: &[Source], problems: &mut Vec<Problem>) {
        let mut unused = self.allowed.clone();
        for source in sources {
            let path = source.path.display().to_string();
            let lines = source.text.lines().count();
            let mut judge = |key: String, line: usize, lines: usize, max: usize| {
                let allowed = unused.remove(&key).unwrap_or(max);
                if lines > allowed {
                    problems.push(Problem::new(
                        &source.path,
                        line,
                        format!("{lines} lines; at most {allowed} are allowed, split it"),
                    ));
                } else if allowed > max && lines < allowed {
                    let what = format!("{key} has {lines} lines now: lower its number, or strike it if {max} suffice");
                    problems.push(Problem::new(Path::new(FILE), 1, what));
                }
            };
            judge(path.clone(), 1, lines, FILE_LINES_MAX);
            for function in functions(source) {
                judge(format!("{path}::{}", function.name), function.line, function.lines, FUNCTION_LINES_MAX);
            }
        }
        for key in unused.keys() {
            problems.push(Problem::new(Path::new(FILE), 1, format!("{key} does not exist: strike it")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: usize, allowed: &[(&str, usize)]) -> Vec<String> {
        let source = Source::new("x.rs".into(), "\n".repeat(lines));
        let ratchet = Ratchet { allowed: allowed.iter().map(|(name, lines)| ((*name).to_owned(), *lines)).collect() };
        let mut problems = Vec::new();
        ratchet.check(&[source], &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn long_files_are_refused_and_the_list_only_shrinks() {
        assert!(judged(600, &[]).is_empty());
        assert_eq!(judged(601, &[]), ["x.rs:1: 601 lines; at most 600 are allowed, split it"]);
        assert!(judged(700, &[("x.rs", 700)]).is_empty());
        assert_eq!(judged(701, &[("x.rs", 700)]).len(), 1);
        assert_eq!(judged(650, &[("x.rs", 700)]).len(), 1);
        assert_eq!(judged(10, &[("y.rs", 700)]).len(), 1);
    }
}
