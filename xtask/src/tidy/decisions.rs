//! `docs/adr`: consecutive numbers, one form, an entry in the index. Whether a title is an imperative a person says.

use std::path::Path;

use super::TidyProblem;
use super::tree::Tree;

const FOLDER: &str = "docs/adr";
const INDEX: &str = "docs/adr/README.md";
/// The file that shows the form, and the index itself.
const NO_DECISIONS: [&str; 2] = ["README.md", "template.md"];
/// A decision that is still being written has a number from here on; it takes the next one when it is listed.
const DRAFTS_FROM: &str = "0100";
/// The parts of a decision, in their order.
const PARTS: [&str; 6] = ["- Status: ", "- Date: ", "## Context", "## Decision", "## Consequences", "## Alternatives"];

/// Checks every decision.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut decisions: Vec<(String, &Path, &str)> = tree
        .others
        .iter()
        .filter(|(path, _)| path.starts_with(FOLDER))
        .map(|(path, text)| (name(path), path.as_path(), text.as_str()))
        .filter(|(name, ..)| !NO_DECISIONS.contains(&name.as_str()))
        .collect();
    decisions.sort();
    decisions.retain(|(name, ..)| name.as_str() < DRAFTS_FROM);
    let index = tree.text(INDEX).unwrap_or_default();
    for (number, (name, path, text)) in (1..).zip(decisions) {
        let mut found = |what: String| problems.push(TidyProblem::new(path, 1, what));
        if !name.starts_with(&format!("{number:04}-")) {
            found(format!("the next decision is {number:04}: numbers are consecutive, NNNN-title.md"));
        }
        if !text.starts_with(&format!("# {number}. ")) {
            found(format!("the first line is \"# {number}. \" and the decision in the imperative"));
        }
        let mut lines = text.lines();
        for part in PARTS {
            if !lines.any(|line| line.starts_with(part)) {
                found(format!("\"{}\" is missing, or not in the order of docs/adr/template.md", part.trim()));
            }
        }
        if !index.contains(&format!("]({name})")) {
            found(format!("not in {INDEX}: add its line"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let others = files.iter().map(|(path, text)| (Path::new(FOLDER).join(path), (*text).to_owned())).collect();
        let mut problems = Vec::new();
        check(&Tree { sources: Vec::new(), others }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn numbers_form_and_index_are_held() {
        let good = "# 1. Do it\n\n- Status: accepted\n- Date: 2026-01-01\n\n## Context\n\n## Decision\n\n## Consequences\n\n## Alternatives\n";
        let index = ("README.md", "| [1](0001-do-it.md) | Do it |");
        assert!(found(&[("0001-do-it.md", good), index, ("template.md", "# N. Title\n")]).is_empty());
        let far = found(&[("0003-do-it.md", good), index]);
        assert!(far.iter().any(|line| line.contains("the next decision is 0001")), "{far:?}");
        let bare = found(&[("0001-do-it.md", "# 1. Do it\n\n## Decision\n"), index]);
        assert!(bare.iter().any(|line| line.contains("## Context")), "{bare:?}");
        let unlisted = found(&[("0001-do-it.md", good), ("README.md", "")]);
        assert!(unlisted.iter().any(|line| line.contains("not in docs/adr/README.md")), "{unlisted:?}");
    }
}
