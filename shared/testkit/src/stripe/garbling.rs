//! Summaries that say what they should not: something that is no number, less than there was, or no JSON at all.

use serde_json::{Value, json};

/// The answer of an intermediary that has nothing to say.
pub(super) const PAGE: &str = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body></body></html>";

/// The way the sums of an answer are garbled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbling {
    /// Text.
    Text,
    /// Nothing.
    Null,
    /// A part of a unit.
    Fraction,
    /// Less than there is.
    Lower,
    /// A page for people instead of JSON.
    Html,
    /// JSON that breaks off.
    HalfOfIt,
}

impl Garbling {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Text, Self::Null, Self::Fraction, Self::Lower, Self::Html, Self::HalfOfIt];

    /// The answer that is sent instead of this one.
    pub(super) fn garble(self, mut answer: Value) -> String {
        if let Some(sums) = answer.get_mut("data").and_then(Value::as_array_mut) {
            for sum in sums {
                let Some(value) = sum.get_mut("aggregated_value") else { continue };
                *value = self.instead_of(value.as_f64().unwrap_or_default());
            }
        }
        let text = answer.to_string();
        match self {
            Self::Html => PAGE.to_owned(),
            Self::HalfOfIt => text.chars().take(text.chars().count() / 2).collect(),
            _ => text,
        }
    }

    fn instead_of(self, sum: f64) -> Value {
        match self {
            Self::Text => json!("a lot"),
            Self::Null => Value::Null,
            Self::Fraction => json!(sum + 0.5),
            // Something stays: a sum that fell to nothing would say that nothing was ever taken.
            Self::Lower if sum.abs() > 2.0 => json!((sum / 2.0).ceil()),
            Self::Lower | Self::Html | Self::HalfOfIt => json!(sum),
        }
    }
}
