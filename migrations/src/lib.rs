//! The ledger's schema, made step by step on SQLite and PostgreSQL: a library, so that `migrate`, the one-process
//! program and the tests run the same steps.
//!
//! Each run is one transaction under one lock, so two that start at once are as good as one. Nothing here knows the
//! ledger's entities: a step never changes once it has landed.

mod connection;
mod dialect;
mod m20261124_000001_usage_ledger;
mod m20261130_000003_billing;

use sea_orm_migration::MigrationStatus;
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseTransaction;

/// Why the schema could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Not an URL of SQLite or PostgreSQL. The URL itself may hold a password and is never printed.
    #[error("the database URL is none of postgresql://user:password@host:port/database and sqlite:///path/to/file")]
    Url(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The file or its directory can't be made.
    #[error("the database file {path} can't be opened")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database has steps that this program does not know.
    #[error("the schema was made by a newer version of this program")]
    Newer(#[source] DbErr),
    /// The database refused or is away.
    #[error("the database did not take the migration")]
    Database(#[source] DbErr),
}

impl From<DbErr> for MigrationError {
    fn from(error: DbErr) -> Self {
        // sea-orm-migration says nothing else in this form.
        if matches!(error, DbErr::Custom(_)) { Self::Newer(error) } else { Self::Database(error) }
    }
}

/// One step and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The step's name, as kept in the table `seaql_migrations`.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Where lines about the progress go.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The names of all steps in order; the last one is the version of the schema.
pub fn names() -> Vec<String> {
    Steps::migrations().iter().map(|step| step.name().to_owned()).collect()
}

/// Brings the schema up to date; creates a missing SQLite file, readable by its owner only.
///
/// # Errors
/// A bad URL, a database that is away, refuses, or was made by a newer program.
pub async fn up(url: &str, progress: Progress<'_>) -> Result<(), MigrationError> {
    let session = begin(url).await?;
    let pending = Steps::get_pending_migrations(&session).await?.len();
    progress(&format!("{pending} of {} steps to do", Steps::migrations().len()));
    for step in Steps::get_pending_migrations(&session).await? {
        progress(&format!("up {}", step.name()));
        Steps::up(&session, Some(1)).await?;
    }
    session.commit().await?;
    progress("the schema is up to date");
    Ok(())
}

/// Takes the last `steps` steps back, all of them when `None`. What the tables hold is lost.
///
/// # Errors
/// As [`up`].
pub async fn down(url: &str, steps: Option<u32>, progress: Progress<'_>) -> Result<(), MigrationError> {
    let session = begin(url).await?;
    let applied = Steps::get_applied_migrations(&session).await?;
    let steps = steps.map_or(applied.len(), |steps| usize::try_from(steps).unwrap_or(usize::MAX));
    for step in applied.iter().rev().take(steps) {
        progress(&format!("down {}", step.name()));
        Steps::down(&session, Some(1)).await?;
    }
    session.commit().await?;
    progress("done");
    Ok(())
}

/// Every step, and whether the database has it. Changes nothing but the table of steps, which it creates when missing.
///
/// # Errors
/// As [`up`].
pub async fn status(url: &str) -> Result<Vec<Step>, MigrationError> {
    let session = begin(url).await?;
    let steps = Steps::get_migration_with_status(&session).await?;
    let steps = steps
        .iter()
        .map(|step| Step { name: step.name().to_owned(), applied: step.status() == MigrationStatus::Applied })
        .collect();
    session.commit().await?;
    Ok(steps)
}

/// One transaction on a connection of its own, holding the lock that keeps other runs away.
async fn begin(url: &str) -> Result<DatabaseTransaction, MigrationError> {
    let session = connection::open(url).await?;
    Steps::install(&session).await?;
    Ok(session)
}

struct Steps;

impl MigratorTrait for Steps {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261124_000001_usage_ledger::Step), Box::new(m20261130_000003_billing::Step)]
    }
}
