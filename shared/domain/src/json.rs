//! A writer of JSON objects that cannot fail, so that an event that exists can always be sent.
//!
//! Each event is written twice, as a message and as metadata. Values are appended without a formatter in between, which
//! took most of the time.

use uuid::Uuid;

/// A value that appends itself to a JSON text as it stands there, without anything to escape.
pub(crate) trait Append {
    fn append(&self, text: &mut String);
}

impl Append for str {
    fn append(&self, text: &mut String) {
        text.push_str(self);
    }
}

impl Append for bool {
    fn append(&self, text: &mut String) {
        text.push_str(if *self { "true" } else { "false" });
    }
}

macro_rules! append_integer {
    ($($integer:ty),*) => {$(
        impl Append for $integer {
            fn append(&self, text: &mut String) {
                text.push_str(itoa::Buffer::new().format(*self));
            }
        }
    )*};
}

append_integer!(u16, u32, u64);

/// With hyphens, in lower case.
impl Append for Uuid {
    fn append(&self, text: &mut String) {
        text.push_str(self.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    }
}

/// Writes one object, member by member, in the order of the calls, behind what the text already holds.
pub(crate) struct ObjectWriter<'a> {
    text: &'a mut String,
    separator: char,
}

impl<'a> ObjectWriter<'a> {
    pub(crate) const fn new(text: &'a mut String) -> Self {
        Self { text, separator: '{' }
    }

    /// A member whose value is appended to what this returns. Names need no escaping.
    pub(crate) fn member(&mut self, name: &str) -> &mut String {
        self.text.push(self.separator);
        self.separator = ',';
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
        self.text
    }

    /// A member that stands as it appends itself: a number, a boolean, `null`.
    pub(crate) fn plain(&mut self, name: &str, value: &(impl Append + ?Sized)) {
        value.append(self.member(name));
    }

    /// A string member that has nothing to escape: ids, times, numbers in quotes.
    pub(crate) fn quoted(&mut self, name: &str, value: &(impl Append + ?Sized)) {
        let text = self.member(name);
        text.push('"');
        value.append(text);
        text.push('"');
    }

    /// Ends the object.
    pub(crate) fn finish(self) {
        self.text.push_str(if self.separator == '{' { "{}" } else { "}" });
    }
}

/// Appends a string in quotes.
pub(crate) fn push_text(text: &mut String, value: &str) {
    text.push('"');
    if is_plain(value.as_bytes()) {
        text.push_str(value);
    } else {
        value.chars().for_each(|char| push_escaped(char, text));
    }
    text.push('"');
}

/// Appends a string in quotes, or `null`.
pub(crate) fn push_text_or_null(text: &mut String, value: Option<&str>) {
    match value {
        Some(value) => push_text(text, value),
        None => text.push_str("null"),
    }
}

/// Returns whether each byte of a text stands for itself inside a JSON string. Looks at all of them: without a way out in
/// between many are compared at once.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| plain & (*byte >= b' ') & (*byte != b'"') & (*byte != b'\\'))
}

/// Appends a character as it stands inside a JSON string (RFC 8259, 7).
pub(crate) fn push_escaped(char: char, text: &mut String) {
    match char {
        '"' | '\\' => text.extend(['\\', char]),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\0'..='\x1f' => {
            let digit = |shift: u32| char::from_digit(u32::from(char) >> shift & 15, 16).unwrap_or('0');
            text.push_str("\\u00");
            text.extend([digit(4), digit(0)]);
        }
        _ => text.push(char),
    }
}
