//! The errors of the ledger, and whether the same call may succeed later.

use goldleaves_cards::CardsFileError;
use goldleaves_store::StoreError;

use crate::remembered::LackingCards;

/// The reason the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No rate was ever set, so nothing can be priced.
    #[error("the ledger has no rate yet: run migrate")]
    NoRate,
    /// A message holds what no column can hold. The rest of its batch may be recorded without it.
    #[error("message {message_id} does not fit the ledger: {what}")]
    Unstorable {
        /// The event's or the seal's id.
        message_id: String,
        /// The value that does not fit.
        what: &'static str,
    },
    /// A rate card appeared after the rows of a batch were priced.
    #[error("the rate cards changed in the meantime")]
    RatesChanged,
    /// The ledger lacks rate cards that usage was priced by: it was restored from a backup of before.
    #[error("{0}")]
    CardsWentBack(LackingCards),
    /// Cards that usage is priced by can't be remembered, or what was can't be read: then nothing is priced.
    #[error("nothing is priced while rate cards can't be remembered")]
    CardsNotKept(#[from] CardsFileError),
    /// Other writers kept changing the same rows.
    #[error("other writers changed the same rows in the meantime")]
    Contended,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LedgerError {
    /// Returns whether the same call may succeed later. When not, something in what was handed over, or in how the program is
    /// set up, is wrong. Every call may be made again: the ledger does nothing twice.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Contended | Self::RatesChanged | Self::NoRate | Self::CardsWentBack(_) | Self::CardsNotKept(_) => {
                true
            }
            Self::Store(error) => error.is_transient(),
            Self::Unstorable { .. } => false,
        }
    }

    pub(crate) fn unreadable(column: &str, error: impl std::fmt::Display) -> Self {
        StoreError::unreadable(column, error).into()
    }
}
