//! A Rust source seen twice: as written, and with comments and the insides of literals blanked out.
//!
//! This is no parser. Blanking is enough to find a keyword, match braces and read a literal at a place, and it keeps
//! every line and column where it was.

use std::path::PathBuf;

/// A Rust file.
pub(crate) struct SourceFile {
    /// Its path in the repository.
    pub(crate) path: PathBuf,
    /// The text as written.
    pub(crate) text: String,
    /// Comments and the insides of strings and characters replaced by spaces; the same length in characters.
    pub(crate) code: Vec<char>,
}

impl SourceFile {
    /// Scans a file.
    pub(crate) fn new(path: PathBuf, text: String) -> Self {
        let mut scan = SourceScan { input: text.chars().collect(), code: Vec::new() };
        while scan.code.len() < scan.input.len() {
            scan.step();
        }
        Self { path, text, code: scan.code }
    }

    /// The line (from 1) of a place in `code`.
    pub(crate) fn line(&self, at: usize) -> usize {
        1 + self.code.iter().take(at).filter(|c| **c == '\n').count()
    }

    /// The places in `code` where `word` stands as a whole word.
    pub(crate) fn words(&self, word: &str) -> Vec<usize> {
        let wanted: Vec<char> = word.chars().collect();
        let outside = |at: Option<usize>| at.and_then(|at| self.code.get(at)).is_none_or(|c| !is_identifier(*c));
        let places = self.code.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted);
        places.map(|(at, _)| at).filter(|at| outside(at.checked_sub(1)) && outside(Some(at + wanted.len()))).collect()
    }

    /// The places where this exact piece of code stands.
    pub(crate) fn pieces(&self, piece: &str) -> Vec<usize> {
        let wanted: Vec<char> = piece.chars().collect();
        let places = self.code.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted);
        places.map(|(at, _)| at).collect()
    }

    /// The end of what is not a unit test: where `#[cfg(test)]` introduces a module, else the end.
    pub(crate) fn production_end(&self) -> usize {
        let starts_module = |at: &usize| {
            let after: String = self.code.iter().skip(*at).take(400).collect();
            after.split_once(']').is_some_and(|(_, rest)| {
                let rest = rest.trim_start();
                rest.starts_with("mod ") || rest.starts_with("#[expect") || rest.starts_with("#[allow")
            })
        };
        self.pieces("#[cfg(test)]").into_iter().find(starts_module).unwrap_or(self.code.len())
    }
}

/// Returns whether a character may be inside an identifier.
pub(crate) fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct SourceScan {
    input: Vec<char>,
    code: Vec<char>,
}

impl SourceScan {
    fn at(&self, ahead: usize) -> Option<char> {
        self.input.get(self.code.len() + ahead).copied()
    }

    fn keep(&mut self, count: usize) {
        for _ in 0..count {
            self.code.extend(self.at(0));
        }
    }

    fn blank(&mut self) {
        let blank = self.at(0).map(|c| if c == '\n' { '\n' } else { ' ' });
        self.code.extend(blank);
    }

    fn step(&mut self) {
        match (self.at(0), self.at(1)) {
            (Some('/'), Some('/')) => {
                while self.at(0).is_some_and(|c| c != '\n') {
                    self.blank();
                }
            }
            (Some('/'), Some('*')) => self.block_comment(),
            (Some('r'), Some('"' | '#')) if self.raw_hashes().is_some() && !self.inside_word() => self.raw_string(),
            (Some('b'), Some('r')) if !self.inside_word() => self.keep(1),
            (Some('"'), _) => self.string(),
            (Some('\''), _) => self.character_or_lifetime(),
            _ => self.keep(1),
        }
    }

    /// Returns whether the character before continues a word; `br` counts as a prefix of its own.
    fn inside_word(&self) -> bool {
        let mut before = self.code.iter().rev();
        match before.next() {
            Some('b' | 'c') => before.next().is_some_and(|c| is_identifier(*c)),
            Some(c) => is_identifier(*c),
            None => false,
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.at(0), self.at(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                (None, _) => return,
                _ => {
                    self.blank();
                    continue;
                }
            }
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep(1);
        while let Some(c) = self.at(0).filter(|c| *c != '"') {
            self.blank();
            if c == '\\' {
                self.blank();
            }
        }
        self.keep(1);
    }

    /// The number of `#` of a raw string that starts here.
    fn raw_hashes(&self) -> Option<usize> {
        let hashes = (1..).take_while(|ahead| self.at(*ahead) == Some('#')).count();
        (self.at(1 + hashes) == Some('"')).then_some(hashes)
    }

    fn raw_string(&mut self) {
        let Some(hashes) = self.raw_hashes() else { return };
        self.keep(2 + hashes);
        let closes = |scan: &Self| scan.at(0) == Some('"') && (1..=hashes).all(|ahead| scan.at(ahead) == Some('#'));
        while self.at(0).is_some() && !closes(self) {
            self.blank();
        }
        self.keep(1 + hashes);
    }

    fn character_or_lifetime(&mut self) {
        let is_character = self.at(1) == Some('\\') || self.at(2) == Some('\'');
        self.keep(1);
        if !is_character {
            return;
        }
        if self.at(0) == Some('\\') {
            self.blank();
        }
        self.blank();
        while self.at(0).is_some_and(|c| c != '\'' && c != '\n') {
            self.blank();
        }
        self.keep(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> SourceFile {
        SourceFile::new(PathBuf::from("x.rs"), text.to_owned())
    }

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let text = "a /* { /* } */ */ b // {\n\"{\\\"\" 'x' '\\'' &'a r#\"{\"}\"# br\"{\" c";
        let source = scan(text);
        let code: String = source.code.iter().collect();
        assert_eq!(code.chars().count(), text.chars().count());
        assert!(!code.contains(['{', '}', 'x']), "{code}");
        assert!(code.contains("&'a") && code.ends_with('c'), "{code}");
    }

    #[test]
    fn words_are_whole_and_know_their_line() {
        let source = scan("static_x\n  static Y: &'static str = \"static\";");
        let places = source.words("static");
        assert_eq!(places.iter().map(|at| source.line(*at)).collect::<Vec<_>>(), [2, 2]);
    }
}
