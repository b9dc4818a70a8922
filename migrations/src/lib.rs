//! The ledger's schema, made step by step on SQLite and PostgreSQL: a library, so that `migrate`, the one-process
//! program and the tests run the same steps.
//!
//! A run holds one lock, so two that start at once are as good as one. Nothing here knows the ledger's entities: a step
//! never changes once it has landed. Beside which steps which programs go on is written in the table `schema_steps`, where
//! those programs look.

mod connection;
mod dialect;
mod losses;
mod m20261124_000001_usage_ledger;
mod m20261130_000002_ledger_progress;
mod m20261130_000003_billing;
mod m20261130_000004_indexes;
mod m20261130_000005_stripe_totals;
mod m20261130_000006_progress_marks;
mod m20261130_000007_more_indexes;
mod plan;

use std::pin::Pin;

use sea_orm_migration::prelude::*;

pub use losses::Losses;
pub use plan::{Plan, Planned};

/// The reason the schema could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Not an URL of SQLite or PostgreSQL. The URL itself may hold a password and is never printed.
    #[error("the database URL is none of postgresql://user:password@host:port/database and sqlite:///path/to/file")]
    Url(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The file or its directory can't be made.
    #[error("the database file {path} can't be opened")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The database has steps that this program does not know.
    #[error("the schema was made by a newer version of this program, which knows {steps}")]
    Newer {
        /// Their names.
        steps: String,
    },
    /// Taking the step back would destroy another number of rows than was agreed to.
    #[error("{} rows would go, not {agreed}: {losses}", losses.rows())]
    Losses {
        /// The rows that would go.
        losses: Losses,
        /// The number of rows that somebody agreed to lose.
        agreed: u64,
    },
    /// The database refused or is away.
    #[error("the database did not take the migration")]
    Database(#[from] DbErr),
}

/// One step and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The step's name, as kept in the table `seaql_migrations`.
    pub name: String,
    /// True if the database has it.
    pub applied: bool,
}

/// The rest of a step's work, boxed, so that it is compiled here and not once more in every program that waits for it.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, MigrationError>> + Send + 'a>>;

/// Where lines about the progress go.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Every step of Goldleaves' schema.
///
/// A step that only adds says from which step on a program goes on beside it; any other ends every program that does not know
/// it, so that nothing is written into tables it misunderstands.
pub fn plan() -> Plan {
    const FIRST: &str = "m20261124_000001_usage_ledger";
    Plan::new(vec![
        Planned::breaking(m20261124_000001_usage_ledger::Step),
        Planned::expanding(m20261130_000002_ledger_progress::Step, FIRST),
        Planned::expanding(m20261130_000003_billing::Step, FIRST),
        Planned::expanding(m20261130_000004_indexes::Step, FIRST),
        Planned::expanding(m20261130_000005_stripe_totals::Step, FIRST),
        Planned::expanding(m20261130_000006_progress_marks::Step, FIRST),
        Planned::expanding(m20261130_000007_more_indexes::Step, FIRST),
    ])
}

/// The names of all steps in order; the last one is the version of the schema.
pub fn names() -> Vec<String> {
    plan().names()
}

/// Brings the schema up to date; creates a missing SQLite file, readable by its owner only.
///
/// # Errors
/// A bad URL, a database that is away, refuses, or was made by a newer program.
pub fn up<'a>(url: &'a str, progress: Progress<'a>) -> Work<'a, ()> {
    Box::pin(async move { plan().up(url, progress).await })
}

/// Returns what taking the last step back would destroy, with the step's name; `None` when there is no step to take back. Changes
/// nothing.
///
/// # Errors
/// As [`up`].
pub fn losses(url: &str) -> Work<'_, Option<(String, Losses)>> {
    Box::pin(async move { plan().losses(url).await })
}

/// Takes the last step back, when that destroys exactly so many rows as were agreed to.
///
/// # Errors
/// [`MigrationError::Losses`], else as [`up`].
pub fn down<'a>(url: &'a str, agreed: u64, progress: Progress<'a>) -> Work<'a, ()> {
    Box::pin(async move { plan().down(url, agreed, progress).await })
}

/// Every step, and whether the database has it. Changes nothing, and makes no database.
///
/// # Errors
/// As [`up`].
pub fn status(url: &str) -> Work<'_, Vec<Step>> {
    Box::pin(async move { plan().status(url).await })
}
