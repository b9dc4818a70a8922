//! Cards that usage was priced by, and which of them a ledger does not have.
//!
//! Cards that a person made are remembered, the first one, and those of the setting that usage was priced by: the others may
//! give way to an import. It does no I/O.

use std::collections::BTreeMap;
use std::fmt;

use goldleaves_cards::{BEGINNING_MICROS, read_rate_card, write_rate_cards};
use goldleaves_pricing::RateCard;

/// The bytes that a note of cards may have: the newest that fit. A backup lacks those before all others.
const NOTE_BYTES_MAX: usize = 32 * 1024;

/// Cards that usage was priced by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RememberedCards(BTreeMap<i64, RateCard>);

/// Remembered cards that a ledger does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LackingCards {
    /// Versions that are not there.
    pub missing: Vec<i64>,
    /// Versions that are other cards there.
    pub other: Vec<i64>,
    /// The reason they can't be brought back, once that was tried.
    pub obstacle: Option<String>,
}

impl RememberedCards {
    /// Reads what [`RememberedCards::note`] wrote.
    ///
    /// # Errors
    /// The fault of a line.
    pub fn of_note(text: &str) -> Result<Self, String> {
        text.lines().map(read_rate_card).collect::<Result<Vec<_>, _>>().map(Self::from_iter)
    }

    /// A text of the newest of them, of a bounded length: a line each, oldest version first.
    pub fn note(&self) -> String {
        let mut room = NOTE_BYTES_MAX;
        let lines = self.0.values().rev().map(|card| write_rate_cards(std::slice::from_ref(card)));
        let mut lines: Vec<String> = lines
            .take_while(|line| {
                let fits = line.len() <= room;
                room = room.saturating_sub(line.len());
                fits
            })
            .collect();
        lines.reverse();
        lines.concat()
    }

    /// Returns whether a card of this version is remembered.
    pub(crate) fn has(&self, version: i64) -> bool {
        self.0.contains_key(&version)
    }

    /// True where nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, oldest version first.
    pub fn cards(&self) -> Vec<RateCard> {
        self.0.values().cloned().collect()
    }

    /// Returns what of it these cards are not; `None`: nothing.
    pub fn lacking(&self, cards: &[RateCard]) -> Option<LackingCards> {
        let there: BTreeMap<i64, &RateCard> = cards.iter().map(|card| (card.version, card)).collect();
        let mut lacking = LackingCards::default();
        for (version, wanted) in &self.0 {
            match there.get(version) {
                None => lacking.missing.push(*version),
                Some(card) if *card != wanted => lacking.other.push(*version),
                Some(_) => {}
            }
        }
        (lacking != LackingCards::default()).then_some(lacking)
    }

    /// Says whether a ledger that lacks these has all others: a backup lacks the newest, so it has whatever is older than a
    /// card that it has. A note may have been too short for all.
    pub(crate) fn is_all_that(&self, lacking: &LackingCards) -> bool {
        self.0.first_key_value().is_some_and(|(oldest, card)| {
            is_first(card) || !lacking.missing.contains(oldest) && !lacking.other.contains(oldest)
        })
    }

    /// Adds what the other one knows; what both know stays. Returns whether that changed anything.
    pub(crate) fn join(&mut self, other: &Self) -> bool {
        let before = self.0.len();
        for (version, card) in &other.0 {
            self.0.entry(*version).or_insert_with(|| card.clone());
        }
        self.0.len() != before
    }
}

impl FromIterator<RateCard> for RememberedCards {
    fn from_iter<T: IntoIterator<Item = RateCard>>(cards: T) -> Self {
        Self(cards.into_iter().map(|card| (card.version, card)).collect())
    }
}

/// Returns whether a card is valid for everything before it, too.
pub(crate) fn is_first(card: &RateCard) -> bool {
    card.selector.is_default() && card.effective_from.unix_micros() == BEGINNING_MICROS
}

impl LackingCards {
    /// The versions of all of them, oldest first.
    pub fn versions(&self) -> Vec<i64> {
        let mut versions = [self.missing.as_slice(), &self.other].concat();
        versions.sort_unstable();
        versions
    }

    /// Returns how many they are.
    pub fn count(&self) -> u64 {
        (self.missing.len() + self.other.len()) as u64
    }
}

impl fmt::Display for LackingCards {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |versions: &[i64]| versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let (missing, other) = (list(&self.missing), list(&self.other));
        out.write_str("the ledger's rate cards went back: usage was priced by ")?;
        match (self.missing.is_empty(), self.other.is_empty()) {
            (_, true) => write!(out, "versions that it lacks ({missing})")?,
            (true, false) => write!(out, "versions that are other cards in it ({other})")?,
            (false, false) => {
                write!(out, "versions that it lacks ({missing}) and that are other cards in it ({other})")?;
            }
        }
        match &self.obstacle {
            Some(obstacle) => write!(out, ", and they can't be brought back: {obstacle}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use goldleaves_cards::read_rate_cards;

    use super::*;

    fn cards(rates: &[&str]) -> Vec<RateCard> {
        let line = |(at, rate): (usize, &&str)| {
            let from = if at == 0 { "0001-01-01T00:00:00Z" } else { "2026-03-03T10:11:12Z" };
            let version = at + 1;
            format!(
                "{{\"version\":{version},\"card\":\"default\",\"cents_per_unit\":\"{rate}\",\"effective_from\":\"{from}\"}}\n"
            )
        };
        read_rate_cards(&rates.iter().enumerate().map(line).collect::<String>()).unwrap()
    }

    fn remembered(rates: &[&str]) -> RememberedCards {
        cards(rates).into_iter().collect()
    }

    #[test]
    fn what_is_lacking_is_named() {
        let known = remembered(&["25", "50", "60"]);
        assert_eq!(known.lacking(&cards(&["25", "50", "60", "70"])), None);
        let lacking = known.lacking(&cards(&["25", "51"])).unwrap();
        assert_eq!(
            (lacking.missing.as_slice(), lacking.other.as_slice(), lacking.count()),
            ([3].as_slice(), [2].as_slice(), 2)
        );
        assert!(lacking.to_string().ends_with("that it lacks (3) and that are other cards in it (2)"), "{lacking}");
        let lacking = LackingCards { obstacle: Some("no".to_owned()), ..lacking };
        assert!(lacking.to_string().ends_with("(2), and they can't be brought back: no"), "{lacking}");
        assert_eq!(RememberedCards::default().lacking(&[]), None);
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_what_is_known_only_grows() {
        let mut known = remembered(&["25", "50"]);
        assert_eq!(RememberedCards::of_note(&known.note()), Ok(known.clone()));
        assert_eq!(RememberedCards::of_note(""), Ok(RememberedCards::default()));
        assert!(RememberedCards::of_note("1:f00d").unwrap_err().starts_with("it is no rate card"));
        let other = remembered(&["25", "51", "60"]);
        assert!(known.join(&other) && !known.join(&other));
        assert_eq!(known.lacking(&cards(&["25", "50", "60"])), None, "what this process saw itself stays");
    }

    #[test]
    fn a_note_is_bounded_and_what_it_leaves_out_is_not_taken_for_nothing() {
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let many = cards(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let known: RememberedCards = many.iter().cloned().collect();
        let note = known.note();
        assert!(note.len() <= NOTE_BYTES_MAX && note.len() > NOTE_BYTES_MAX - 200, "{}", note.len());
        let noted = RememberedCards::of_note(&note).unwrap();
        let oldest = *noted.0.first_key_value().unwrap().0;
        assert_eq!((oldest > 1, noted.0.last_key_value().unwrap().0), (true, &1000));
        let lacking = |there: i64| noted.lacking(many.get(..there.unsigned_abs() as usize).unwrap()).unwrap();
        assert!(noted.is_all_that(&lacking(oldest)), "the ledger has whatever is older than the oldest that is noted");
        assert!(!noted.is_all_that(&lacking(oldest - 1)), "others may be lacking, too");
        assert!(known.is_all_that(&known.lacking(&[]).unwrap()), "there is nothing before the first");
    }
}
