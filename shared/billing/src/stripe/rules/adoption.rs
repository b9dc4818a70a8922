//! The rule of taking over, as a pure function: what is done with a minute of which Stripe has another value than the rows.

use goldleaves_domain::Timestamp;

use super::{RowState, WITNESS_AFTER};

/// The row of a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The point that it has reached.
    pub state: RowState,
    /// Its value.
    pub value: Option<i128>,
    /// Calls that were begun.
    pub attempts: i32,
    /// The last of them.
    pub last_attempt_at: Option<Timestamp>,
    /// True if it was made of usage, and not of what Stripe has.
    pub is_sealed: bool,
}

impl Known {
    /// Returns whether the row may be missing at Stripe only because it is young.
    fn is_young(&self, now: Timestamp) -> bool {
        let since = self.last_attempt_at.map(|last| now.unix_micros() - last.unix_micros());
        self.state != RowState::Abandoned && since.is_some_and(|since| since < WITNESS_AFTER)
    }
}

/// The end of a minute that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// Nothing.
    Nothing,
    /// Its row is there.
    Confirm,
    /// It may only lag: it is looked at another time.
    Leave,
    /// Its row is given up, and nothing is there.
    GiveUp,
    /// Its row is given up, and another one says what is there.
    Replace,
    /// A row is made that says what is there.
    Adopt,
}

/// Returns what is done with a minute that has this row, if any, and of which Stripe has this value.
pub fn adoption(row: Option<&Known>, value: i128, now: Timestamp) -> Adoption {
    match row {
        Some(row) if row.value == Some(value) && row.state != RowState::Abandoned => Adoption::Confirm,
        Some(row) if row.is_young(now) => Adoption::Leave,
        // Never sent, and nothing is there.
        Some(row) if value == 0 && row.attempts == 0 && row.is_sealed => Adoption::Nothing,
        Some(_) if value == 0 => Adoption::GiveUp,
        Some(_) => Adoption::Replace,
        None if value == 0 => Adoption::Nothing,
        None => Adoption::Adopt,
    }
}
