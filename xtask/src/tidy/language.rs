//! English that a stranger reads without stopping, as far as a machine can tell: a doc comment begins with the noun that
//! it is about or the verb that it does, and rates are said with "per".

use super::TidyProblem;
use super::source::SourceFile;
use super::tree::Tree;

/// The words that a doc comment does not begin with: they leave the reader looking for a subject.
const HEADLESS: [&str; 11] = ["What", "Who", "Whom", "Whoever", "Whether", "Which", "That", "Those", "So", "Of", "As"];
/// The words that a module may begin with, whose title they are, and an item may not: its doc says what it is.
const HALF_A_QUESTION: [&str; 4] = ["How", "Why", "Whose", "Since"];
/// Verbs that only carry a question: "Holds what …" and "Describes whether …" say no more than "What …".
const CARRIERS: [&str; 4] = ["Describes", "Holds", "Names", "Settles"];
const CARRIED: [&str; 4] = ["what", "who", "whom", "whether"];
/// Turns that are no English of the field, and what says it. Written in halves, so that this file does not find itself.
const TURNS: [(&str, &str); 8] = [
    (concat!("ests a se", "cond"), "per second"),
    (concat!("ages a se", "cond"), "per second"),
    (concat!("alls a se", "cond"), "per second"),
    (concat!("vents a se", "cond"), "per second"),
    (concat!("ords a se", "cond"), "per second"),
    (concat!("is there tw", "ice"), "is listed twice, or appears twice"),
    (concat!("the own te", "nant"), "the caller's tenant"),
    (concat!("tried again and ag", "ain"), "retrying"),
];

/// Counted things before an "a" that stands for "per", and what they are counted by.
const COUNTED: [&str; 11] = ["one", "µs", "ns", "ms", "cpu", "cents", "cell", "pool", "rows", "slot", "socket"];
const BY: [&str; 11] =
    ["batch", "call", "core", "day", "file", "function", "line", "request", "row", "second", "tenant"];

/// Checks comments of sources, and documents.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    for source in &tree.sources {
        check_beginnings(source, problems);
    }
    for (path, text) in tree.texts() {
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        let is_document = path.extension().is_some_and(|extension| extension == "md");
        for (number, line) in text.lines().enumerate() {
            let said = if is_source { comment(line) } else { is_document.then_some(line) };
            let turn = said.and_then(|said| TURNS.iter().find(|(turn, _)| said.contains(turn)));
            if let Some((turn, better)) = turn {
                let what = format!("\"…{turn}\": say \"{better}\"");
                problems.push(TidyProblem::new(path, number + 1, what));
            }
            if let Some(rate) = said.and_then(rate) {
                let what = format!("\"{rate}\": say \"per\"");
                problems.push(TidyProblem::new(path, number + 1, what));
            }
        }
    }
}

/// The rate that a line says with "a" instead of "per", if there is one; what comes "a second time" is none.
fn rate(said: &str) -> Option<String> {
    let words: Vec<&str> = said.split_whitespace().collect();
    words.windows(3).enumerate().find_map(|(at, window)| {
        let [counted, "a", by] = window else { return None };
        let counted = counted.trim_start_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let by = by.trim_end_matches(|c: char| !c.is_alphanumeric());
        let is_rate = COUNTED.contains(&counted.as_str()) && BY.contains(&by);
        let goes_on = words.get(at + 3).is_some_and(|next| next.starts_with("time"));
        (is_rate && !goes_on).then(|| format!("{counted} a {by}"))
    })
}

fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.starts_with("//").then_some(line)
}

fn check_beginnings(source: &SourceFile, problems: &mut Vec<TidyProblem>) {
    let mut before = "";
    for (number, line) in source.text.lines().enumerate() {
        let line = line.trim_start();
        let mark = ["///", "//!"].into_iter().find(|mark| line.starts_with(mark));
        let begins = mark.filter(|mark| !before.starts_with(mark));
        before = line;
        let Some((mark, said)) = begins.and_then(|mark| Some((mark, line.strip_prefix(mark)?))) else { continue };
        if let Some(beginning) = headless(mark, said) {
            let what = format!(
                "a doc comment that begins with \"{beginning}\": begin with the noun that it is about (The …, A …) or the verb \
                 that it does (Returns …)"
            );
            problems.push(TidyProblem::new(&source.path, number + 1, what));
        }
    }
}

/// The beginning of a comment that leaves the reader looking for a subject, if it has one.
fn headless(mark: &str, said: &str) -> Option<String> {
    let mut words = said.trim_start().split(|c: char| !c.is_alphabetic());
    let (first, second) = (words.next()?, words.next().unwrap_or_default());
    if HEADLESS.contains(&first) || (mark == "///" && HALF_A_QUESTION.contains(&first)) {
        return Some(first.to_owned());
    }
    (CARRIERS.contains(&first) && CARRIED.contains(&second)).then(|| format!("{first} {second}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let sources = vec![SourceFile::new("x.rs".into(), text.to_owned())];
        let mut problems = Vec::new();
        check(&Tree { sources, others: Vec::new() }, &mut problems);
        problems.iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn beginnings_and_turns_are_found() {
        assert_eq!(
            found(
                "//! What it is.\n/// The part.\n/// Of these.\nfn f() {}\n/// Whether so.\nfn g() {}\n/// So many.\nfn h() {}\n"
            ),
            [1, 5, 7]
        );
        assert_eq!(
            found("//! Holds what it is.\n/// Holds the key.\nfn f() {}\n/// Describes whether so.\nfn g() {}\n"),
            [1, 4]
        );
        assert_eq!(found("//! How it ends.\n/// How it ends.\nfn f() {}\n/// Since when.\nfn g() {}\n"), [2, 4]);
        assert_eq!(found(&format!("//! Why.\n// Ten requ{} here.\n", TURNS[0].0)), [2]);
        let rate = concat!("//! One pool", " a core.\n// So ten rows", " a second time.\n// So one pool\n// a core\n");
        assert_eq!(found(rate), [1]);
        assert!(found(&format!("//! Why.\nlet x = \"ten requ{}\";\n", TURNS[0].0)).is_empty(), "no comment");
    }
}
