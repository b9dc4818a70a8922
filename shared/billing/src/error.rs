//! The errors of billing, and its refusals.

use std::fmt;

use goldleaves_store::StoreError;
use sea_orm::{DbErr, RuntimeErr};

/// The reason billing did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// Asked for what can't be done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No rate was ever set, so nothing can be priced.
    #[error("the ledger has no rate yet: run migrate")]
    NoRate,
    /// Usage names a rate card that is not there: somebody deleted it, or a rebuilt ledger did not get it.
    #[error(
        "usage was priced by rate card version {version}, which the ledger does not have: bring the cards back with \
         goldleaves rate-cards import (or goldleaves billing import)"
    )]
    MissingCard {
        /// The version; the lowest where there are more.
        version: i64,
    },
    /// A statement took longer than it may.
    #[error("the statement took longer than 10 s")]
    TooSlow,
    /// The database is away or refuses.
    #[error(transparent)]
    Store(StoreError),
}

/// A request that contradicts what is stored, or that is about nothing that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub detail: String,
    /// The row that is there already, as JSON, where that is the reason.
    pub stored: Option<String>,
}

/// The reason a request is refused, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// 409: the id stands for something else.
    AlreadyExists,
    /// 404: no event of this tenant has this id.
    NoSuchEvent,
    /// 409: there is usage that was priced without the card.
    UsageExists,
    /// 409: the event was set aside, so there is nothing to correct.
    NotBilled,
    /// 409: the event is void.
    AlreadyVoid,
    /// 409: the period has not been over for an hour.
    TooEarly,
    /// 409: periods are closed one after the other.
    OutOfOrder,
    /// 409 or 410: the event lies in an archive.
    Archived,
    /// 400: more groups than an answer holds.
    TooManyGroups,
    /// 400: more rows than an answer holds.
    TooManyRows,
    /// 422: the customer of Stripe has the usage of as many tenants as a meter can tell apart.
    LaneFull,
    /// 400: a member of the body that can't be.
    BodyInvalid,
    /// 400: a value that can't be.
    Invalid,
    /// 404: there is no such thing.
    NotFound,
}

impl Refusal {
    /// A refusal with words for people.
    pub fn new(code: RefusalCode, detail: impl fmt::Display) -> Self {
        Self { code, detail: detail.to_string(), stored: None }
    }
}

impl BillingError {
    /// Returns whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(_) | Self::MissingCard { .. } => false,
            Self::NoRate | Self::TooSlow => true,
            Self::Store(error) => error.is_transient(),
        }
    }

    pub(crate) fn refused<T>(code: RefusalCode, detail: impl fmt::Display) -> Result<T, Self> {
        Err(Self::Refused(Refusal::new(code, detail)))
    }

    pub(crate) fn unreadable(column: &str, error: impl fmt::Display) -> Self {
        Self::Store(StoreError::unreadable(column, error))
    }
}

impl From<StoreError> for BillingError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::TimedOut) || is_cancelled(&error) { Self::TooSlow } else { Self::Store(error) }
    }
}

/// Returns whether PostgreSQL stopped a statement that took too long.
fn is_cancelled(error: &StoreError) -> bool {
    let StoreError::Database(DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return false;
    };
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57014")
}
