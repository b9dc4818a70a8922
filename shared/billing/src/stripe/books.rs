//! The door: billing's database with the clock that deadlines and leases go by.

use std::fmt;
use std::sync::Arc;

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Transaction, read};
use uuid::Uuid;

use crate::source::Source;
use crate::{Billing, BillingError};

/// The clock that deadlines and leases go by: the database's, which all programs share. Tests drive their own.
#[derive(Clone)]
pub enum BooksClock {
    /// The database's.
    Database,
    /// A test's.
    Driven(Arc<dyn Fn() -> Timestamp + Send + Sync>),
}

impl fmt::Debug for BooksClock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Database => "Database",
            Self::Driven(_) => "Driven",
        })
    }
}

/// The books of the push to Stripe. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Books {
    pub(super) billing: Billing,
    clock: BooksClock,
}

impl Books {
    /// The books in this database.
    pub const fn new(billing: Billing, clock: BooksClock) -> Self {
        Self { billing, clock }
    }

    /// Returns the part that reads and writes everything else of billing.
    pub const fn billing(&self) -> &Billing {
        &self.billing
    }

    /// The moment by which deadlines go.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn now(&self) -> Result<Timestamp, BillingError> {
        self.moment(self.billing.source()).await
    }

    pub(super) async fn moment(&self, source: Source<'_>) -> Result<Timestamp, BillingError> {
        match &self.clock {
            BooksClock::Database => source.now().await,
            BooksClock::Driven(now) => Ok(now()),
        }
    }

    pub(super) async fn now_in(&self, transaction: &Transaction) -> Result<Timestamp, BillingError> {
        self.moment(Source::Transaction(transaction)).await
    }
}

/// The state that all lanes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) generation: Uuid,
    pub(super) livemode: Option<bool>,
}

/// Reads the one row, and makes it where there is none.
pub(super) async fn state(transaction: &Transaction) -> Result<State, BillingError> {
    let dialect = transaction.dialect();
    let livemode = livemode_column(dialect);
    let sql = format!("SELECT generation, {livemode} AS livemode FROM stripe_state WHERE id = 1");
    for _ in 0..2 {
        if let Some(row) = transaction.query(&sql, Params::default()).await?.first() {
            let livemode: Option<i32> = read(row, "livemode")?;
            let generation = dialect.read_uuid(row, "generation")?;
            return Ok(State { generation, livemode: livemode.map(|flag| flag != 0) });
        }
        let mut params = Params::default();
        let generation = params.bind(dialect.uuid(Uuid::new_v4()));
        let sql =
            format!("INSERT INTO stripe_state (id, generation) VALUES (1, {generation}) ON CONFLICT (id) DO NOTHING");
        transaction.execute(&sql, params).await?;
    }
    Err(BillingError::unreadable("stripe_state", "no row"))
}

fn livemode_column(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "livemode::int",
        Dialect::Sqlite => "livemode",
    }
}

/// A flag as a column holds it.
pub(super) const fn flag(dialect: Dialect, is: bool) -> &'static str {
    match (dialect, is) {
        (Dialect::Postgres, true) => "TRUE",
        (Dialect::Postgres, false) => "FALSE",
        (Dialect::Sqlite, true) => "1",
        (Dialect::Sqlite, false) => "0",
    }
}
