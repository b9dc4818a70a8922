//! The types of entities' columns whose values the two databases keep differently: identifiers and moments.
//!
//! PostgreSQL has types for both; SQLite keeps texts, hyphenated and of fixed width. Reading looks where the row came from; values
//! that are bound are put into SQLite's words by [`crate::Dialect`] when a statement is made, whoever made it.

use chrono::{DateTime, Utc};
use goldleaves_domain::Timestamp;
use sea_orm::sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr};
use sea_orm::{ColIdx, DbErr, QueryResult, TryFromU64, TryGetError, TryGetable, Value};
use uuid::Uuid;

/// An identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub Uuid);

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Timestamp);

fn unreadable(error: impl std::fmt::Display) -> TryGetError {
    TryGetError::DbErr(DbErr::Type(error.to_string()))
}

// === impl Id ===

impl From<Id> for Value {
    fn from(id: Id) -> Self {
        Self::Uuid(Some(id.0))
    }
}

impl TryGetable for Id {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        if row.try_as_sqlite_row().is_none() {
            return Uuid::try_get_by(row, index).map(Self);
        }
        let text = String::try_get_by(row, index)?;
        Uuid::try_parse(&text).map(Self).map_err(unreadable)
    }
}

impl ValueType for Id {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        <Uuid as ValueType>::try_from(value).map(Self)
    }

    fn type_name() -> String {
        "Id".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::Uuid
    }

    fn column_type() -> ColumnType {
        ColumnType::Uuid
    }
}

impl Nullable for Id {
    fn null() -> Value {
        Value::Uuid(None)
    }
}

impl TryFromU64 for Id {
    /// No database counts identifiers up.
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("Id"))
    }
}

// === impl Moment ===

impl From<Moment> for Value {
    fn from(moment: Moment) -> Self {
        Self::ChronoDateTimeUtc(moment.0.to_date_time())
    }
}

impl TryGetable for Moment {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        if row.try_as_sqlite_row().is_none() {
            let moment = DateTime::<Utc>::try_get_by(row, index)?;
            return Timestamp::from_date_time(moment).map(Self).map_err(unreadable);
        }
        String::try_get_by(row, index)?.parse().map(Self).map_err(unreadable)
    }
}

impl ValueType for Moment {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        let moment = <DateTime<Utc> as ValueType>::try_from(value)?;
        Timestamp::from_date_time(moment).map(Self).map_err(|_| ValueTypeErr)
    }

    fn type_name() -> String {
        "Moment".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::ChronoDateTimeUtc
    }

    fn column_type() -> ColumnType {
        ColumnType::TimestampWithTimeZone
    }
}

impl Nullable for Moment {
    fn null() -> Value {
        Value::ChronoDateTimeUtc(None)
    }
}

impl TryFromU64 for Moment {
    /// No database counts moments up.
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("Moment"))
    }
}
