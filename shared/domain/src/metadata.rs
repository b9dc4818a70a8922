//! The guide's metadata of an event, as the ledger's text column holds it.

use std::borrow::Cow;

use crate::CallMetadata;
use crate::decimal::Micro;
use crate::json::{Append, is_plain, push_escaped};

/// The most characters the column holds.
const CHARS_MAX: usize = 2_000;
/// The most characters, escaped, that are kept of a method and of an address. Real ones are shorter.
const SHORT_CHARS_MAX: usize = 64;
/// A user agent of so many bytes fits: escaped it has at most twice as many characters, and all the rest has fewer than
/// the 400 that this leaves.
const SAFE_AGENT_BYTES: usize = 800;

impl CallMetadata {
    /// JSON with the guide's keys and types, never more than 2,000 characters whatever the client said: control
    /// characters are replaced, and the user agent is cut to what the rest leaves, counted after escaping. What is
    /// absent has no key.
    pub fn json(&self) -> String {
        let method = escaped(&self.method, SHORT_CHARS_MAX);
        let address = self.client_ip.as_deref().map(|address| escaped(address, SHORT_CHARS_MAX));
        let agent = self.user_agent.as_deref().map(|agent| {
            // Real ones are short, and fit whatever their characters and the rest are.
            let rest_chars = if agent.len() <= SAFE_AGENT_BYTES {
                CHARS_MAX - 2 * SAFE_AGENT_BYTES
            } else {
                self.object(&method, Some(""), address.as_deref()).chars().count()
            };
            escaped(agent, CHARS_MAX.saturating_sub(rest_chars))
        });
        self.object(&method, agent.as_deref(), address.as_deref())
    }

    fn object(&self, method: &str, agent: Option<&str>, address: Option<&str>) -> String {
        // Longer agents let it grow.
        let mut text = String::with_capacity(384);
        text.push_str(r#"{"method":""#);
        text.push_str(method);
        text.push_str(r#"","status_code":"#);
        self.status_code.append(&mut text);
        if let Some(agent) = agent {
            text.push_str(r#","user_agent":""#);
            text.push_str(agent);
            text.push('"');
        }
        if let Some(address) = address {
            text.push_str(r#","client_ip":""#);
            text.push_str(address);
            text.push('"');
        }
        text.push_str(r#","response_size":""#);
        self.response_bytes.append(&mut text);
        text.push_str(r#"","processing_time":"#);
        Micro(self.processing_micros).append(&mut text);
        text.push('}');
        text
    }
}

/// Escapes a text, stopping before the first character that would not fit into so many.
fn escaped(text: &str, chars_max: usize) -> Cow<'_, str> {
    if text.len() <= chars_max && text.is_ascii() && is_plain(text.as_bytes()) && !text.as_bytes().contains(&0x7f) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len().min(chars_max));
    let mut chars = 0;
    for char in text.chars() {
        let char = if char.is_control() { char::REPLACEMENT_CHARACTER } else { char };
        let start = escaped.len();
        push_escaped(char, &mut escaped);
        chars += escaped.get(start..).map_or(0, |piece| piece.chars().count());
        if chars > chars_max {
            escaped.truncate(start);
            break;
        }
    }
    Cow::Owned(escaped)
}
