//! Rate cards as a file for people and backups: one JSON object a line, oldest version first, with nothing rounded.

use goldleaves_domain::Timestamp;
use goldleaves_pricing::Rate;
use serde::{Deserialize, Serialize};

use super::{BEGINNING_MICROS, RateCard};

/// The only card there is so far.
const CARD: &str = "default";

/// What is wrong with a file of rate cards.
#[derive(Debug, thiserror::Error)]
pub enum RateCardsError {
    /// A line is no card.
    #[error("line {line} is no rate card")]
    Line {
        /// Counts from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A member of a card is out of its range.
    #[error("line {line}: {member} is {what}")]
    Member {
        /// Counts from 1.
        line: usize,
        /// The member.
        member: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Versions count up, and none is valid before an older one.
    #[error("line {line} is out of order: {card} comes after {before}")]
    Order {
        /// Counts from 1.
        line: usize,
        /// The card.
        card: RateCard,
        /// The one before it.
        before: RateCard,
    },
    /// The first card is valid for everything before it, too.
    #[error("the first card must be valid from 0001-01-01T00:00:00.000000Z on, or events before it have no price")]
    Beginning,
    /// Nothing.
    #[error("there is no rate card in it")]
    Empty,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    version: i64,
    card: String,
    cents_per_unit: String,
    effective_from: String,
}

/// One line a card.
pub fn write_rate_cards(cards: &[RateCard]) -> String {
    let mut text = String::new();
    for card in cards {
        let line = Line {
            version: card.version,
            card: CARD.to_owned(),
            cents_per_unit: card.rate.to_string(),
            effective_from: card.effective_from.to_string(),
        };
        // A struct of numbers and texts always is JSON.
        text.push_str(&serde_json::to_string(&line).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// Reads what [`write_rate_cards`] wrote; empty lines are skipped.
///
/// # Errors
/// What is wrong, and where.
pub fn read_rate_cards(text: &str) -> Result<Vec<RateCard>, RateCardsError> {
    let mut cards: Vec<RateCard> = Vec::new();
    for (at, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let card = read_line(at + 1, text)?;
        if let Some(before) = cards.last().filter(|before| !follows(before, &card)) {
            return Err(RateCardsError::Order { line: at + 1, card, before: *before });
        }
        cards.push(card);
    }
    match cards.first() {
        None => Err(RateCardsError::Empty),
        Some(first) if first.effective_from.unix_micros() != BEGINNING_MICROS => Err(RateCardsError::Beginning),
        Some(_) => Ok(cards),
    }
}

/// Whether `card` may stand after `before`.
pub(super) fn follows(before: &RateCard, card: &RateCard) -> bool {
    before.version < card.version && before.effective_from <= card.effective_from
}

fn read_line(line: usize, text: &str) -> Result<RateCard, RateCardsError> {
    let read: Line = serde_json::from_str(text).map_err(|source| RateCardsError::Line { line, source })?;
    let wrong = |member, what: String| RateCardsError::Member { line, member, what };
    if read.version < 1 {
        return Err(wrong("version", "below 1".to_owned()));
    }
    if read.card != CARD {
        return Err(wrong("card", format!("none that this program knows; expected {CARD}")));
    }
    let rate = read.cents_per_unit.parse::<Rate>().map_err(|error| wrong("cents_per_unit", error.to_string()))?;
    let from = read.effective_from.parse::<Timestamp>().map_err(|error| wrong("effective_from", error.to_string()))?;
    Ok(RateCard { version: read.version, rate, effective_from: from })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"version":1,"card":"default","cents_per_unit":"25","effective_from":"0001-01-01T00:00:00.000000Z"}
{"version":2,"card":"default","cents_per_unit":"0.000001","effective_from":"2026-03-03T10:11:12.131415Z"}
{"version":5,"card":"default","cents_per_unit":"1000000","effective_from":"2026-03-03T10:11:12.131415Z"}
"#;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let cards = read_rate_cards(FILE).unwrap();
        assert_eq!(cards.iter().map(|card| card.version).collect::<Vec<_>>(), [1, 2, 5]);
        assert_eq!(cards[1].rate, Rate::from_micro_cents(1).unwrap());
        assert_eq!(write_rate_cards(&cards), FILE);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let lines: Vec<&str> = FILE.lines().collect();
        for (file, words) in [
            (String::new(), "there is no rate card in it"),
            (lines[1].to_owned(), "the first card must be valid from 0001"),
            (FILE.replace("\"version\":2", "\"version\":1"), "line 2 is out of order: version 1, 0.000001 cents"),
            (format!("{}\n{}\n\n{}", lines[0], lines[1], lines[0]), "line 4 is out of order"),
            (FILE.replace("131415Z\"}\n{\"version\":5", "131416Z\"}\n{\"version\":5"), "line 3 is out of order"),
            (FILE.replace("0.000001", "0.0000001"), "line 2: cents_per_unit is more than 6 places"),
            (FILE.replace("1000000\"", "1000001\""), "line 3: cents_per_unit is above the largest value"),
            (FILE.replace("\"25\"", "25"), "line 1 is no rate card"),
            (
                FILE.replace("\"card\":\"default\",\"cents_per_unit\":\"25\"", "\"cents_per_unit\":\"25\""),
                "line 1 is no",
            ),
            (FILE.replace("\"version\":2", "\"version\":2,\"more\":1"), "line 2 is no rate card"),
            (FILE.replace("\"version\":1", "\"version\":0"), "line 1: version is below 1"),
            (FILE.replacen("default", "gold", 1), "line 1: card is none that this program knows"),
            (FILE.replace("2026-03-03T10:11:12.131415Z", "soon"), "line 2: effective_from is neither a date"),
        ] {
            let error = read_rate_cards(&file).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}, not {words}\n{file}");
        }
    }
}
