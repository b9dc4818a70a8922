//! Stream and consumer as JetStream describes them, and what of that Goldleaves can't live with.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Mismatch, SUBJECTS};

/// The name of the note among the consumer's metadata.
const NOTE: &str = "goldleaves_rate_cards";

/// The answer to `STREAM.INFO`, as far as it is read here.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamFound {
    /// When it was made, in JetStream's own words: another text is another stream.
    pub(crate) created: String,
    pub(crate) state: StreamState,
    config: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamState {
    #[serde(default)]
    pub(crate) messages: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    /// When the first and the last message were stored, RFC 3339.
    #[serde(default)]
    pub(crate) first_ts: String,
    #[serde(default)]
    pub(crate) last_ts: String,
}

/// The answer to `CONSUMER.INFO`, as far as it is read here.
#[derive(Debug, Deserialize)]
pub(crate) struct ConsumerFound {
    #[serde(default)]
    pub(crate) num_pending: u64,
    #[serde(default)]
    pub(crate) num_ack_pending: u64,
    #[serde(default)]
    pub(crate) num_redelivered: u64,
    #[serde(default)]
    pub(crate) num_waiting: u64,
    #[serde(default)]
    pub(crate) ack_floor: AckFloor,
    config: Map<String, Value>,
}

/// The most that one request to a consumer may ask for; `None`: as much as it likes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestMax {
    pub(crate) messages: Option<u64>,
    pub(crate) bytes: Option<u64>,
}

/// Up to where everything is acknowledged.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct AckFloor {
    #[serde(default)]
    pub(crate) stream_seq: u64,
}

/// One rule: a field by NATS's name, what it must be, and what its absence means.
type Rule = (&'static str, Value, Value);

impl StreamFound {
    pub(crate) fn mismatches(&self) -> Vec<Mismatch> {
        const OBJECT: &str = "stream USAGE";
        let rules: [Rule; 9] = [
            // Any other deletes events that were acknowledged, and with them every replay.
            ("retention", json!("limits"), json!("limits")),
            ("storage", json!("file"), json!("file")),
            ("discard", json!("new"), json!("old")),
            ("deny_delete", json!(true), json!(false)),
            // Without acks there is no receipt.
            ("no_ack", json!(false), json!(false)),
            ("sealed", json!(false), json!(false)),
            // A bound per tenant deletes that tenant's oldest events.
            ("max_msgs_per_subject", json!(-1), json!(-1)),
            ("mirror", Value::Null, Value::Null),
            ("subject_transform", Value::Null, Value::Null),
        ];
        let mut mismatches = broken(OBJECT, &self.config, rules);
        let subjects = texts(self.config.get("subjects"));
        if !SUBJECTS.iter().all(|wanted| subjects.iter().any(|found| covers(found, wanted))) {
            mismatches.push(mismatch(OBJECT, "subjects", json!(subjects), json!(SUBJECTS)));
        }
        mismatches
    }
}

impl StreamFound {
    /// The most bytes it may hold.
    pub(crate) fn bytes_max(&self) -> Option<u64> {
        self.limit("max_bytes")
    }

    /// Returns the time for which it keeps a message.
    pub(crate) fn age_max(&self) -> Option<Duration> {
        self.limit("max_age").map(Duration::from_nanos)
    }

    /// The most bytes a message may have.
    pub(crate) fn message_bytes_max(&self) -> Option<u64> {
        self.limit("max_msg_size")
    }

    /// Neither 0 nor -1 is a limit.
    fn limit(&self, field: &str) -> Option<u64> {
        self.config.get(field).and_then(Value::as_u64).filter(|limit| *limit > 0)
    }
}

impl ConsumerFound {
    pub(crate) fn mismatches(&self) -> Vec<Mismatch> {
        const OBJECT: &str = "consumer meter";
        let rules: [Rule; 5] = [
            ("ack_policy", json!("explicit"), json!("none")),
            // Any bound skips events without a word.
            ("max_deliver", json!(-1), json!(-1)),
            ("headers_only", json!(false), json!(false)),
            // A push consumer can't be pulled from.
            ("deliver_subject", Value::Null, Value::Null),
            // Pulls that name no group get nothing from a consumer with groups.
            ("priority_groups", Value::Null, Value::Null),
        ];
        let mut mismatches = broken(OBJECT, &self.config, rules);
        let mut filters = texts(self.config.get("filter_subjects"));
        filters.extend(texts(self.config.get("filter_subject")));
        let all = filters.is_empty() || SUBJECTS.iter().all(|wanted| filters.iter().any(|found| covers(found, wanted)));
        if !all {
            mismatches.push(mismatch(OBJECT, "filter_subjects", json!(filters), json!(SUBJECTS)));
        }
        mismatches
    }

    /// After how long what is not acknowledged is delivered again.
    pub(crate) fn ack_wait(&self) -> Option<Duration> {
        self.config.get("ack_wait").and_then(Value::as_u64).map(Duration::from_nanos)
    }

    /// The most messages that may be delivered and not acknowledged.
    pub(crate) fn ack_pending_max(&self) -> Option<u64> {
        self.config.get("max_ack_pending").and_then(Value::as_u64).filter(|most| *most > 0)
    }

    /// Its configuration with another number of messages that may be delivered and not acknowledged.
    pub(crate) fn with_ack_pending_max(mut self, most: u64) -> Value {
        self.config.insert("max_ack_pending".to_owned(), json!(most));
        Value::Object(self.config)
    }

    /// A text that stands beside the acknowledgements.
    pub(crate) fn note(&self) -> Option<&str> {
        self.config.get("metadata")?.get(NOTE)?.as_str()
    }

    /// Its configuration with another note.
    pub(crate) fn with_note(mut self, note: &str) -> Value {
        let metadata = self.config.entry("metadata").or_insert_with(|| json!({}));
        match metadata.as_object_mut() {
            Some(fields) => _ = fields.insert(NOTE.to_owned(), json!(note)),
            None => *metadata = json!({ NOTE: note }),
        }
        Value::Object(self.config)
    }

    /// The most that one pull may ask for.
    pub(crate) fn request_max(&self) -> RequestMax {
        let most = |name| self.config.get(name).and_then(Value::as_u64).filter(|most| *most > 0);
        RequestMax { messages: most("max_batch"), bytes: most("max_bytes") }
    }
}

fn broken<const N: usize>(object: &'static str, config: &Map<String, Value>, rules: [Rule; N]) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    for (field, wanted, absent) in rules {
        let found = config.get(field).cloned().unwrap_or(absent);
        if found != wanted {
            mismatches.push(mismatch(object, field, found, wanted));
        }
    }
    mismatches
}

fn mismatch(object: &'static str, field: &'static str, found: Value, wanted: Value) -> Mismatch {
    let words = |value: Value| if value.is_null() { "absent".to_owned() } else { value.to_string() };
    Mismatch { object, field, found: words(found), wanted: words(wanted) }
}

/// A text, a list of texts, or nothing.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) if !text.is_empty() => vec![text.clone()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Returns whether every subject of `wanted` matches the pattern `found`.
fn covers(found: &str, wanted: &str) -> bool {
    let mut wanted = wanted.split('.');
    for token in found.split('.') {
        match (token, wanted.next()) {
            (">", Some(_)) => return true,
            ("*", Some(part)) if part != ">" => {}
            (token, Some(part)) if token == part => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_matches_whole() {
        for found in ["usage.v1.*", "usage.*.*", "usage.>", ">", "*.v1.*"] {
            assert!(covers(found, "usage.v1.*"), "{found}");
        }
        for found in ["usage.v1.acme", "usage.v1", "usage.*", "usage.v1.*.*", "usage.v2.*", "usage.v1.*.>"] {
            assert!(!covers(found, "usage.v1.*"), "{found}");
        }
        assert!(!covers("usage.*", "usage.>"));
    }
}
