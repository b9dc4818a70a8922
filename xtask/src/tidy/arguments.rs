//! Arguments of functions: a tuple that is taken apart in a signature hides how many there are, and names nothing where the
//! function is called.

use super::TidyProblem;
use super::source::{SourceFile, is_identifier};

/// Checks the functions of a source, tests too.
pub(crate) fn check(source: &SourceFile, problems: &mut Vec<TidyProblem>) {
    for at in source.words("fn") {
        for place in tuples(source.code.get(at + 2..).unwrap_or_default()) {
            let what = "an argument that is taken apart as a tuple: make it several, a range, or a struct with names";
            problems.push(TidyProblem::new(&source.path, source.line(at + 2 + place), what));
        }
    }
}

/// The places of such arguments in what follows the word `fn`.
fn tuples(code: &[char]) -> Vec<usize> {
    let Some(open) = list(code) else { return Vec::new() };
    let (mut depth, mut begins, mut found) = (0_usize, true, Vec::new());
    for (at, c) in code.iter().enumerate().skip(open + 1) {
        match c {
            '(' if depth == 0 && begins => {
                found.extend(is_pattern(code, at).then_some(at));
                depth += 1;
            }
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        begins = (depth == 0 && *c == ',') || (begins && c.is_whitespace());
    }
    found
}

/// Returns whether a type follows what opens here. A strategy of a property test follows `in`, and inside of a type nothing does.
fn is_pattern(code: &[char], open: usize) -> bool {
    let mut depth = 0_usize;
    let close = code.iter().skip(open).position(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    let after = close.and_then(|close| code.iter().skip(open + close + 1).find(|c| !c.is_whitespace()));
    after == Some(&':')
}

/// The place where the list of arguments opens, behind the name and its generics; `None` for the type of a pointer to a function.
fn list(code: &[char]) -> Option<usize> {
    let name = code.iter().position(|c| !c.is_whitespace())?;
    if !code.get(name).is_some_and(|c| is_identifier(*c)) {
        return None;
    }
    let (mut depth, mut before) = (0_usize, ' ');
    for (at, c) in code.iter().enumerate().skip(name) {
        match c {
            '(' if depth == 0 => return Some(at),
            '<' => depth += 1,
            // An arrow closes nothing.
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = *c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let mut problems = Vec::new();
        check(&SourceFile::new("x.rs".into(), text.to_owned()), &mut problems);
        problems.iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn tuples_that_are_taken_apart_are_found() {
        assert_eq!(found("fn f((a, b): (u8, u8)) {}\nfn g(\n    x: u8,\n    (c, d): (u8, u8),\n) {}\n"), [1, 4]);
        assert_eq!(found("fn f<F: Fn(u8) -> (u8, u8)>((a, b): (u8, u8), f: F) {}\n"), [1]);
    }

    #[test]
    fn other_arguments_are_not() {
        assert!(
            found("fn f(a: (u8, u8), b: fn((u8, u8)) -> u8, Named { c, .. }: Named) { g((1, 2), |(d, e)| d) }\n")
                .is_empty()
        );
        assert!(found("fn f(a: Map<u8, (u8, u8)>) {}\nfn g((a, b) in any()) {}\n").is_empty());
        assert!(found("fn f<F: Fn((u8, u8)) -> u8>(f: F) -> Vec<(u8, u8)> {}\nfn none() {}\n").is_empty());
    }
}
