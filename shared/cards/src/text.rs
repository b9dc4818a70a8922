//! Rate cards as a file for people and backups: one JSON object per line, oldest version first, with nothing rounded.
//!
//! A default card of the setting is written as it always was, so that older programs read it; the others say more.

use goldleaves_domain::TimestampError;
use goldleaves_pricing::{Origin, Pricing, Rate, RateCard, Selector};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::table::BEGINNING_MICROS;

/// The word for the cards that are for everybody and everything.
const DEFAULT: &str = "default";
/// The word for all other cards.
const SELECTOR: &str = "selector";

/// The fault of a file of rate cards.
#[derive(Debug, thiserror::Error)]
pub enum RateCardsError {
    /// A line is no card.
    #[error("line {line} is no rate card")]
    Line {
        /// Counts from 1.
        line: usize,
        /// The fault that JSON has.
        source: serde_json::Error,
    },
    /// A member of a card is out of its range.
    #[error("line {line}: {member} is {what}")]
    Member {
        /// Counts from 1.
        line: usize,
        /// The member.
        member: &'static str,
        /// The fault in words.
        what: String,
    },
    /// Versions count up, and none of the setting is valid before an older one.
    #[error("line {line} is out of order: {card} comes after {before}")]
    Order {
        /// Counts from 1.
        line: usize,
        /// The card.
        card: Box<RateCard>,
        /// The one before it.
        before: Box<RateCard>,
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
struct CardLine {
    version: i64,
    card: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cents_per_unit: Option<String>,
    effective_from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tenant_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    route: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pricing: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl CardLine {
    fn of(card: &RateCard) -> Self {
        let (cents_per_unit, pricing) = match card.pricing {
            Pricing::PerUnit(rate) => (Some(rate.to_string()), None),
            _ => (None, Some(card.pricing.to_json())),
        };
        let Selector { tenant_id, route, action } = card.selector.clone();
        Self {
            version: card.version,
            card: if card.selector.is_default() { DEFAULT } else { SELECTOR }.to_owned(),
            cents_per_unit,
            effective_from: card.effective_from.to_string(),
            id: card.id,
            tenant_id,
            route,
            action,
            pricing,
            origin: (card.origin != Origin::Setting).then(|| card.origin.as_str().to_owned()),
            actor: card.actor.clone(),
            reason: card.reason.clone(),
        }
    }

    /// The card, or the member that is wrong and why.
    fn card(self) -> Result<RateCard, (&'static str, String)> {
        if self.version < 1 {
            return Err(("version", "below 1".to_owned()));
        }
        let selector = Selector { tenant_id: self.tenant_id, route: self.route, action: self.action };
        let name = if selector.is_default() { DEFAULT } else { SELECTOR };
        if self.card != name {
            let known = self.card == DEFAULT || self.card == SELECTOR;
            let what = if known { "not what its selector says" } else { "none that this program knows" };
            return Err(("card", format!("{what}; expected {name}")));
        }
        let pricing = match (self.pricing, self.cents_per_unit) {
            (None, Some(rate)) => {
                Pricing::PerUnit(rate.parse::<Rate>().map_err(|error| ("cents_per_unit", error.to_string()))?)
            }
            (Some(pricing), None) => {
                Pricing::from_json(&pricing).map_err(|error| ("pricing", format!("wrong: {error}")))?
            }
            (Some(_), Some(_)) => return Err(("pricing", "there beside cents_per_unit".to_owned())),
            (None, None) => return Err(("pricing", "missing, and so is cents_per_unit".to_owned())),
        };
        let effective_from =
            self.effective_from.parse().map_err(|error: TimestampError| ("effective_from", error.to_string()))?;
        let origin = self.origin.as_deref().map_or(Some(Origin::Setting), Origin::of);
        let origin = origin.ok_or_else(|| ("origin", "none that this program knows".to_owned()))?;
        let (actor, reason) = (self.actor, self.reason);
        Ok(RateCard { version: self.version, id: self.id, selector, pricing, effective_from, origin, actor, reason })
    }
}

/// One line per card.
pub fn write_rate_cards(cards: &[RateCard]) -> String {
    let mut text = String::new();
    for card in cards {
        // A struct of numbers and texts always is JSON.
        text.push_str(&serde_json::to_string(&CardLine::of(card)).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// Reads one line of what [`write_rate_cards`] wrote.
///
/// # Errors
/// What is wrong with it.
pub fn read_rate_card(line: &str) -> Result<RateCard, String> {
    let read: CardLine = serde_json::from_str(line).map_err(|error| format!("it is no rate card: {error}"))?;
    read.card().map_err(|(member, what)| format!("{member} is {what}"))
}

/// Reads what [`write_rate_cards`] wrote; empty lines are skipped.
///
/// # Errors
/// What is wrong, and where.
pub fn read_rate_cards(text: &str) -> Result<Vec<RateCard>, RateCardsError> {
    let mut cards: Vec<RateCard> = Vec::new();
    for (at, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let line = at + 1;
        let read: CardLine = serde_json::from_str(text).map_err(|source| RateCardsError::Line { line, source })?;
        let card = read.card().map_err(|(member, what)| RateCardsError::Member { line, member, what })?;
        let before = [cards.last(), cards.iter().rfind(|before| before.origin == Origin::Setting)];
        if let Some(before) = before.into_iter().flatten().find(|before| !follows(before, &card)) {
            return Err(RateCardsError::Order { line, card: Box::new(card), before: Box::new(before.clone()) });
        }
        cards.push(card);
    }
    let is_first =
        |card: &RateCard| card.selector.is_default() && card.effective_from.unix_micros() == BEGINNING_MICROS;
    match cards.iter().any(is_first) {
        _ if cards.is_empty() => Err(RateCardsError::Empty),
        false => Err(RateCardsError::Beginning),
        true => Ok(cards),
    }
}

/// Returns whether `card` may stand after `before`. Cards that somebody made may become valid in any order.
pub(super) fn follows(before: &RateCard, card: &RateCard) -> bool {
    let both_of_setting = [before, card].into_iter().all(|card| card.origin == Origin::Setting);
    before.version < card.version && (!both_of_setting || before.effective_from <= card.effective_from)
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
        assert_eq!(cards[1].pricing, Pricing::PerUnit(Rate::from_micro_cents(1).unwrap()));
        assert_eq!(write_rate_cards(&cards), FILE);
    }

    #[test]
    fn every_card_is_read_as_it_was_written() {
        const CARDS: &str = r#"{"version":1,"card":"default","cents_per_unit":"25","effective_from":"0001-01-01T00:00:00.000000Z"}
{"version":2,"card":"selector","effective_from":"2026-09-03T10:11:12.131415Z","id":"0193a1b2-0000-7000-8000-000000000001","tenant_id":"acme","route":"/r","action":"read","pricing":{"model":"volume","tiers":[{"cents_per_unit":"3","up_to":"10"},{"cents_per_unit":"2","up_to":null}]},"origin":"api","actor":"ann","reason":"a contract"}
{"version":3,"card":"selector","effective_from":"2026-08-01T00:00:00.000000Z","tenant_id":"acme","pricing":{"model":"inherit"},"origin":"api"}
{"version":4,"card":"default","cents_per_unit":"26","effective_from":"2026-07-01T00:00:00.000000Z"}
"#;
        assert_eq!(write_rate_cards(&read_rate_cards(CARDS).unwrap()), CARDS);
        for (from, to, words) in [
            (
                "\"card\":\"selector\",\"effective_from\":\"2026-08",
                "\"card\":\"default\",\"effective_from\":\"2026-08",
                "line 3: card is not what its selector says",
            ),
            (",\"pricing\":{\"model\":\"inherit\"}", "", "line 3: pricing is missing"),
            ("\"inherit\"", "\"free\"", "line 3: pricing is wrong: pricing.model is \"free\""),
            ("\"api\",\"actor\"", "\"moon\",\"actor\"", "line 2: origin is none"),
        ] {
            let error = read_rate_cards(&CARDS.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}, not {words}");
        }
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
            (FILE.replacen("\"card\":\"default\",", "", 1), "line 1 is no"),
            (FILE.replacen("\"cents_per_unit\":\"25\",", "", 1), "line 1: pricing is missing"),
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
