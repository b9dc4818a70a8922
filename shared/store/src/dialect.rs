//! The words in which the two databases differ, and how their values are read back. Statements are written once.

use chrono::{DateTime, Utc};
use goldleaves_domain::Timestamp;
use sea_orm::{DbBackend, QueryResult, Value};
use uuid::Uuid;

use crate::error::StoreError;

/// The database that statements are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    pub(crate) const fn backend(self) -> DbBackend {
        match self {
            Self::Postgres => DbBackend::Postgres,
            Self::Sqlite => DbBackend::Sqlite,
        }
    }

    /// A value as a column holds it: SQLite keeps identifiers and moments as texts.
    pub(crate) fn kept(self, value: Value) -> Value {
        match (self, value) {
            (Self::Sqlite, Value::Uuid(id)) => Value::String(id.map(|id| id.as_hyphenated().to_string())),
            (Self::Sqlite, Value::ChronoDateTimeUtc(moment)) => {
                let moment = moment.and_then(|moment| Timestamp::from_date_time(moment).ok());
                Value::String(moment.map(|moment| moment.to_string()))
            }
            (_, value) => value,
        }
    }

    /// The moment of the statement (SQLite) or transaction (PostgreSQL), as a column holds it.
    pub const fn now(self) -> &'static str {
        match self {
            Self::Postgres => "now()",
            Self::Sqlite => "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')",
        }
    }

    /// A UUID as the hyphenated text that it is on SQLite anyway.
    pub fn uuid_text(self, column: &str) -> String {
        match self {
            Self::Postgres => format!("{column}::text"),
            Self::Sqlite => column.to_owned(),
        }
    }

    /// The greater of two values.
    pub const fn greatest(self) -> &'static str {
        match self {
            Self::Postgres => "GREATEST",
            Self::Sqlite => "MAX",
        }
    }

    /// A UUID as a column holds it.
    pub fn uuid(self, id: Uuid) -> Value {
        match self {
            Self::Postgres => id.into(),
            Self::Sqlite => id.as_hyphenated().to_string().into(),
        }
    }

    /// A UUID that may be NULL, as a column holds it.
    pub fn uuid_or_null(self, id: Option<Uuid>) -> Value {
        match self {
            Self::Postgres => id.into(),
            Self::Sqlite => id.map(|id| id.as_hyphenated().to_string()).into(),
        }
    }

    /// A moment as a column holds it.
    pub fn time(self, moment: Timestamp) -> Value {
        match self {
            Self::Postgres => Value::ChronoDateTimeUtc(moment.to_date_time()),
            Self::Sqlite => moment.to_string().into(),
        }
    }

    /// Reads a UUID.
    ///
    /// # Errors
    /// The column is NULL or holds something else.
    pub fn read_uuid(self, row: &QueryResult, column: &str) -> Result<Uuid, StoreError> {
        self.read_uuid_or_null(row, column)?.ok_or_else(|| StoreError::unreadable(column, "NULL"))
    }

    /// Reads a UUID or NULL.
    ///
    /// # Errors
    /// The column holds something else.
    pub fn read_uuid_or_null(self, row: &QueryResult, column: &str) -> Result<Option<Uuid>, StoreError> {
        match self {
            Self::Postgres => read(row, column),
            Self::Sqlite => read::<Option<String>>(row, column)?
                .map(|text| Uuid::try_parse(&text).map_err(|error| StoreError::unreadable(column, error)))
                .transpose(),
        }
    }

    /// Reads a moment.
    ///
    /// # Errors
    /// The column is NULL or holds something else.
    pub fn read_time(self, row: &QueryResult, column: &str) -> Result<Timestamp, StoreError> {
        self.read_time_or_null(row, column)?.ok_or_else(|| StoreError::unreadable(column, "NULL"))
    }

    /// Reads a moment or NULL.
    ///
    /// # Errors
    /// The column holds something else.
    pub fn read_time_or_null(self, row: &QueryResult, column: &str) -> Result<Option<Timestamp>, StoreError> {
        let moment = match self {
            Self::Postgres => read::<Option<DateTime<Utc>>>(row, column)?.map(Timestamp::from_date_time),
            Self::Sqlite => read::<Option<String>>(row, column)?.map(|text| text.parse()),
        };
        moment.transpose().map_err(|error| StoreError::unreadable(column, error))
    }
}

/// Reads a column of any type that is the same on both databases.
///
/// # Errors
/// The column is missing or holds something else.
pub fn read<T: sea_orm::TryGetable>(row: &QueryResult, column: &str) -> Result<T, StoreError> {
    row.try_get("", column).map_err(|error| StoreError::unreadable(column, error))
}

/// Reads a wide sum, which PostgreSQL gives as text and SQLite in two parts, `{column}_high` and `{column}_low`.
///
/// # Errors
/// The columns are missing or hold something else.
pub fn read_wide(dialect: Dialect, row: &QueryResult, column: &str) -> Result<i128, StoreError> {
    match dialect {
        Dialect::Postgres => {
            read::<String>(row, column)?.parse().map_err(|error| StoreError::unreadable(column, error))
        }
        Dialect::Sqlite => {
            let high: i64 = read(row, &format!("{column}_high"))?;
            let low: i64 = read(row, &format!("{column}_low"))?;
            Ok(i128::from(high) * WIDE_LOW + i128::from(low))
        }
    }
}

/// The modulus of a wide number's low part on SQLite.
pub const WIDE_LOW: i128 = 1_000_000_000;
