//! How long each function is.

use super::source::{Source, is_identifier};

/// A function with a body.
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of `fn`.
    pub(crate) line: usize,
    /// From `fn` to the closing brace.
    pub(crate) lines: usize,
}

/// Every function of a file that has a body, nested ones too.
pub(crate) fn functions(source: &Source) -> Vec<Function> {
    source.words("fn").into_iter().filter_map(|at| function(source, at)).collect()
}

fn function(source: &Source, at: usize) -> Option<Function> {
    let after = source.code.get(at + 2..)?;
    let name: String = after.iter().skip_while(|c| c.is_whitespace()).take_while(|c| is_identifier(**c)).collect();
    if name.is_empty() {
        return None; // a function pointer's type
    }
    let mut depth = 0_i32;
    let mut opened = false;
    for (offset, c) in after.iter().enumerate() {
        match c {
            // A declaration without a body; a semicolon inside brackets is an array's length.
            ';' if depth == 0 => return None,
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' => {
                opened = true;
                depth += 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
        if opened && depth == 0 {
            let line = source.line(at);
            return Some(Function { name, line, lines: source.line(at + 2 + offset) - line + 1 });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_measured_and_declarations_are_not() {
        let text = "trait T { fn a(&self, x: [u8; 4]); }\nfn b<F: Fn()>(f: fn(u8)) -> [u8; 2] {\n  if x { \"}\" }\n  fn c() {}\n}\n";
        let source = Source::new("x.rs".into(), text.to_owned());
        let found: Vec<_> = functions(&source).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("b".to_owned(), 2, 4), ("c".to_owned(), 4, 1)]);
    }
}
