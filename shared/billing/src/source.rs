//! Where a statement runs: on its own, or within a transaction.

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Store, Transaction, build, read};
use sea_orm::sea_query::{Expr, InsertStatement};
use sea_orm::{EntityTrait, FromQueryResult as _, QueryResult, QuerySelect as _, QueryTrait as _, Select};

use crate::{AnswerLimits, BillingError};

/// Where a statement runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// On its own, for an answer within these limits.
    Store(&'a Store, AnswerLimits),
    /// Within a transaction.
    Transaction(&'a Transaction),
}

impl Source<'_> {
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Store(store, _) => store.dialect(),
            Self::Transaction(transaction) => transaction.dialect(),
        }
    }

    /// The most lines that are read: for an answer to somebody there are so many, for what has to be done all.
    pub(crate) const fn lines_max(self) -> Option<usize> {
        match self {
            Self::Store(_, limits) => Some(limits.lines),
            Self::Transaction(_) => None,
        }
    }

    pub(crate) async fn query(self, sql: &str, params: Params) -> Result<Vec<QueryResult>, BillingError> {
        match self {
            Self::Store(store, limits) => match tokio::time::timeout(limits.statement, store.read(sql, params)).await {
                Ok(rows) => Ok(rows?),
                Err(_) => Err(BillingError::TooSlow),
            },
            Self::Transaction(transaction) => Ok(transaction.query(sql, params).await?),
        }
    }

    /// The rows that a query finds.
    pub(crate) async fn find<E: EntityTrait>(self, select: Select<E>) -> Result<Vec<E::Model>, BillingError> {
        let (sql, params) = build(self.dialect(), select.as_query());
        let rows = self.query(&sql, params).await?;
        let unreadable = |error| BillingError::unreadable(E::default().table_name(), error);
        rows.iter().map(|row| E::Model::from_query_result(row, "").map_err(unreadable)).collect()
    }

    /// The first row that a query finds.
    pub(crate) async fn first<E: EntityTrait>(self, select: Select<E>) -> Result<Option<E::Model>, BillingError> {
        Ok(self.find(select.limit(1)).await?.into_iter().next())
    }

    /// Returns the number of rows that a query finds.
    pub(crate) async fn count<E: EntityTrait>(self, select: Select<E>) -> Result<i64, BillingError> {
        let select = select.select_only().expr_as(Expr::cust("COUNT(*)"), "count");
        let (sql, params) = build(self.dialect(), select.as_query());
        let rows = self.query(&sql, params).await?;
        Ok(rows.first().map_or(Ok(0), |row| read(row, "count"))?)
    }

    /// The database's clock.
    pub(crate) async fn now(self) -> Result<Timestamp, BillingError> {
        let dialect = self.dialect();
        let now = match dialect {
            Dialect::Postgres => "clock_timestamp()",
            Dialect::Sqlite => dialect.now(),
        };
        let rows = self.query(&format!("SELECT {now} AS now"), Params::default()).await?;
        let row = rows.first().ok_or_else(|| BillingError::unreadable("now", "no row"))?;
        Ok(dialect.read_time(row, "now")?)
    }
}

/// Adds the rows of a statement of the query builder.
pub(crate) async fn insert(transaction: &Transaction, rows: &InsertStatement) -> Result<(), BillingError> {
    let (sql, params) = build(transaction.dialect(), rows);
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Sums of units: PostgreSQL's are wide, SQLite's are made of two parts that are added apart.
pub(crate) mod wide {
    use goldleaves_store::Dialect;

    /// A row's units as what [`sums`] adds up.
    pub(crate) fn of_row(dialect: Dialect, column: &str) -> String {
        match dialect {
            Dialect::Postgres => format!("{column}::numeric AS units"),
            Dialect::Sqlite => format!("{column} / 1000000000 AS high, {column} % 1000000000 AS low"),
        }
    }

    /// A rollup's units as what [`sums`] adds up.
    pub(crate) fn of_rollup(dialect: Dialect, alias: &str) -> String {
        match dialect {
            Dialect::Postgres => format!("{alias}.units_micro AS units"),
            Dialect::Sqlite => format!("{alias}.units_micro_high AS high, {alias}.units_micro_low AS low"),
        }
    }

    /// Returns what [`goldleaves_store::read_wide`] reads as `units_micro`.
    pub(crate) const fn sums(dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Postgres => "COALESCE(SUM(units), 0)::text AS units_micro",
            Dialect::Sqlite => "COALESCE(SUM(high), 0) AS units_micro_high, COALESCE(SUM(low), 0) AS units_micro_low",
        }
    }

    /// A sum of integers that is itself one of 64 bits.
    pub(crate) fn count(dialect: Dialect, column: &str) -> String {
        match dialect {
            Dialect::Postgres => format!("COALESCE(SUM({column}), 0)::bigint"),
            Dialect::Sqlite => format!("COALESCE(SUM({column}), 0)"),
        }
    }

    /// Returns whether the units come to anything.
    pub(crate) const fn has_units(dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Postgres => "SUM(units) <> 0",
            // Parts that differ may come to nothing together: what was added as (0, 1) is taken away as (-1, 999999999).
            Dialect::Sqlite => "SUM(high) * 1000000000 + SUM(low) <> 0",
        }
    }
}
