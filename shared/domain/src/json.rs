//! A writer of JSON objects that cannot fail, so that an event that exists can always be sent.

use std::fmt::{self, Write};

/// Writes one object, member by member, in the order of the calls.
pub(crate) struct ObjectWriter {
    text: String,
}

impl ObjectWriter {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Self { text }
    }

    /// Goes on behind what `text` already holds.
    pub(crate) fn nested(mut text: String) -> Self {
        text.push('{');
        Self { text }
    }

    /// A member whose value `write` appends. Names need no escaping.
    pub(crate) fn raw(&mut self, name: &str, write: impl FnOnce(String) -> String) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
        self.text = write(std::mem::take(&mut self.text));
    }

    /// A string member.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.raw(name, |mut text| {
            text.push('"');
            if value.bytes().all(is_plain) {
                text.push_str(value);
            } else {
                value.chars().for_each(|char| push_escaped(char, &mut text));
            }
            text.push('"');
            text
        });
    }

    /// A string member, or `null`.
    pub(crate) fn text_or_null(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.plain(name, "null"),
        }
    }

    /// A member that stands as it shows itself: a number, a boolean, `null`.
    pub(crate) fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.raw(name, |text| appended(text, value));
    }

    /// A string member that shows itself without anything to escape: ids, times, numbers in quotes.
    pub(crate) fn quoted(&mut self, name: &str, value: impl fmt::Display) {
        self.raw(name, |text| appended(text, format_args!("\"{value}\"")));
    }

    /// The object.
    pub(crate) fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

fn appended(mut text: String, value: impl fmt::Display) -> String {
    // Writing to a String never fails, and no Display of this crate does.
    let _ = write!(text, "{value}");
    text
}

/// Returns whether this byte of a text stands for itself inside a JSON string.
pub(crate) fn is_plain(byte: u8) -> bool {
    byte >= b' ' && !matches!(byte, b'"' | b'\\')
}

/// Appends a character as it stands inside a JSON string (RFC 8259, 7).
pub(crate) fn push_escaped(char: char, text: &mut String) {
    match char {
        '"' | '\\' => text.extend(['\\', char]),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\0'..='\x1f' => *text = appended(std::mem::take(text), format_args!("\\u{:04x}", u32::from(char))),
        _ => text.push(char),
    }
}
