//! The steps of a schema in their order, and what a run does with them.
//!
//! A step is in a transaction of its own, or in none when it says so, and each of its statements waits a moment for a lock
//! and no longer: behind a statement that waits for a table, everybody else who wants that table waits as well. So it gives
//! way, and is tried again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, Statement, TransactionTrait,
};

use crate::connection::{self, Session};
use crate::{Losses, MigrationError, Progress, Step};

/// The time for which a statement of a step waits for a lock.
const LOCK_WAIT: &str = "2s";
/// The time for which one that is outside a transaction does: who makes an index concurrently waits for every
/// transaction that began before, and keeps nobody waiting.
const LOCK_WAIT_OUTSIDE: &str = "60s";
/// Between two attempts of a step.
const PAUSE: Duration = Duration::from_secs(1);
/// The time for which a step is tried again.
const PATIENCE: Duration = Duration::from_secs(600);

/// One step of a [`Plan`].
pub struct Planned {
    step: Box<dyn MigrationTrait>,
    compatible_since: Option<&'static str>,
}

/// The steps of a schema, in their order.
pub struct Plan(Vec<Planned>);

/// Says whether steps are done or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    /// With the number of rows that may go.
    Down {
        agreed: u64,
    },
}

impl Planned {
    /// A step that ends every program which does not know it.
    pub fn breaking(step: impl MigrationTrait + 'static) -> Self {
        Self { step: Box::new(step), compatible_since: None }
    }

    /// A step beside which every program goes on that knows the step of this name: it only adds.
    pub fn expanding(step: impl MigrationTrait + 'static, compatible_since: &'static str) -> Self {
        Self { step: Box::new(step), compatible_since: Some(compatible_since) }
    }
}

impl Plan {
    /// These steps.
    pub const fn new(steps: Vec<Planned>) -> Self {
        Self(steps)
    }

    /// With one more step after the others.
    #[must_use]
    pub fn and(mut self, step: Planned) -> Self {
        self.0.push(step);
        self
    }

    /// The names of all steps in order.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|planned| planned.step.name().to_owned()).collect()
    }

    /// Does every step that the database lacks.
    ///
    /// # Errors
    /// As [`crate::up`].
    pub async fn up(&self, url: &str, progress: Progress<'_>) -> Result<(), MigrationError> {
        let session = Session::open(url, progress).await?;
        install(&session).await?;
        let applied = self.applied(&session).await?;
        let pending: Vec<&Planned> = self.0.iter().filter(|planned| !applied.contains(planned.step.name())).collect();
        progress(&format!("{} of {} steps to do", pending.len(), self.0.len()));
        for planned in pending {
            progress(&format!("up {}", planned.step.name()));
            self.apply(&session, planned, Direction::Up, progress).await?;
        }
        session.finish().await?;
        progress("the schema is up to date");
        Ok(())
    }

    /// Returns what taking the last step back would destroy.
    ///
    /// # Errors
    /// As [`crate::losses`].
    pub async fn losses(&self, url: &str) -> Result<Option<(String, Losses)>, MigrationError> {
        let session = Session::open(url, &|_| ()).await?;
        install(&session).await?;
        let applied = self.applied(&session).await?;
        let Some(last) = self.last(&applied) else { return Ok(None) };
        let transaction = session.begin().await?;
        let losses = last.losses(&transaction).await?;
        transaction.rollback().await?;
        session.finish().await?;
        Ok(Some((last.step.name().to_owned(), losses)))
    }

    /// Takes the last step back.
    ///
    /// # Errors
    /// As [`crate::down`].
    pub async fn down(&self, url: &str, agreed: u64, progress: Progress<'_>) -> Result<(), MigrationError> {
        let session = Session::open(url, progress).await?;
        install(&session).await?;
        let applied = self.applied(&session).await?;
        if let Some(last) = self.last(&applied) {
            progress(&format!("down {}", last.step.name()));
            self.apply(&session, last, Direction::Down { agreed }, progress).await?;
        }
        session.finish().await?;
        progress("done");
        Ok(())
    }

    /// The last step that the database has.
    fn last(&self, applied: &HashSet<String>) -> Option<&Planned> {
        self.0.iter().rev().find(|planned| applied.contains(planned.step.name()))
    }

    /// Every step, and whether the database has it.
    ///
    /// # Errors
    /// As [`crate::status`].
    pub async fn status(&self, url: &str) -> Result<Vec<Step>, MigrationError> {
        let applied = match connection::look(url).await? {
            Some(database) => {
                let applied = self.applied_on((&database).into()).await?;
                database.close().await?;
                applied
            }
            None => HashSet::new(),
        };
        let step = |name: String| Step { applied: applied.contains(&name), name };
        Ok(self.names().into_iter().map(step).collect())
    }

    /// The steps that the database has.
    async fn applied(&self, session: &Session) -> Result<HashSet<String>, MigrationError> {
        self.applied_on(session.connection()).await
    }

    async fn applied_on(&self, connection: SchemaManagerConnection<'_>) -> Result<HashSet<String>, MigrationError> {
        let manager = SchemaManager::new(connection);
        if !manager.has_table("seaql_migrations").await? {
            return Ok(HashSet::new());
        }
        let connection = manager.get_connection();
        let ask = Statement::from_string(connection.get_database_backend(), "SELECT version FROM seaql_migrations");
        let rows = connection.query_all_raw(ask).await?;
        let applied: HashSet<String> =
            rows.iter().map(|row| row.try_get("", "version")).collect::<Result<_, DbErr>>()?;
        let names = self.names();
        let mut unknown: Vec<&str> = applied.iter().filter(|name| !names.contains(name)).map(String::as_str).collect();
        unknown.sort_unstable();
        match unknown.as_slice() {
            [] => Ok(applied),
            steps => Err(MigrationError::Newer { steps: steps.join(", ") }),
        }
    }

    /// Does or undoes one step and notes that; on PostgreSQL again and again while it finds no lock.
    async fn apply(
        &self,
        session: &Session,
        planned: &Planned,
        direction: Direction,
        progress: Progress<'_>,
    ) -> Result<(), MigrationError> {
        let database = match session {
            Session::Sqlite(transaction) => return planned.check_and_run(transaction, direction).await,
            Session::Postgres { database, .. } => database,
        };
        let start = Instant::now();
        loop {
            let outcome = if planned.step.use_transaction() == Some(false) {
                planned.run_outside(database, direction).await
            } else {
                planned.run_inside(database, direction).await
            };
            match outcome {
                Err(MigrationError::Database(error)) if is_lock_timeout(&error) && start.elapsed() < PATIENCE => {
                    progress("a table it needs is in use, it gives way and is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

impl Planned {
    async fn run_inside(&self, database: &DatabaseConnection, direction: Direction) -> Result<(), MigrationError> {
        let transaction = database.begin().await?;
        transaction.execute_unprepared(&format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'")).await?;
        self.check_and_run(&transaction, direction).await?;
        Ok(transaction.commit().await?)
    }

    /// Runs the step in a transaction; back only when what that destroys is what was agreed to.
    async fn check_and_run(
        &self,
        transaction: &DatabaseTransaction,
        direction: Direction,
    ) -> Result<(), MigrationError> {
        if let Direction::Down { agreed } = direction {
            let losses = self.losses(transaction).await?;
            if losses.rows() != agreed {
                return Err(MigrationError::Losses { losses, agreed });
            }
        }
        Ok(self.run(transaction.into(), direction).await?)
    }

    /// Returns what undoing the step destroys. One that runs outside a transaction only makes indexes.
    async fn losses(&self, transaction: &DatabaseTransaction) -> Result<Losses, DbErr> {
        if self.step.use_transaction() == Some(false) {
            return Ok(Losses::default());
        }
        Losses::look(transaction, self.step.as_ref()).await
    }

    async fn run_outside(&self, database: &DatabaseConnection, direction: Direction) -> Result<(), MigrationError> {
        if let Direction::Down { agreed: agreed @ 1.. } = direction {
            return Err(MigrationError::Losses { losses: Losses::default(), agreed });
        }
        database.execute_unprepared(&format!("SET lock_timeout = '{LOCK_WAIT_OUTSIDE}'")).await?;
        let outcome = self.run(database.into(), direction).await;
        database.execute_unprepared("RESET lock_timeout").await?;
        Ok(outcome?)
    }

    async fn run(&self, connection: SchemaManagerConnection<'_>, direction: Direction) -> Result<(), DbErr> {
        let manager = SchemaManager::new(connection);
        let connection = manager.get_connection();
        let backend = connection.get_database_backend();
        let name = self.step.name();
        let note = |sql: &str| Statement::from_sql_and_values(backend, sql, [name.into()]);
        match direction {
            Direction::Up => {
                self.step.up(&manager).await?;
                // Before the step is noted: a program that sees a step it does not know asks at once whether it may go on.
                if let Some(since) = self.compatible_since {
                    let tell = "INSERT INTO schema_steps (step, compatible_since) VALUES ($1, $2) \
                                ON CONFLICT (step) DO NOTHING";
                    let tell = Statement::from_sql_and_values(backend, tell, [name.into(), since.into()]);
                    connection.execute_raw(tell).await?;
                }
                let now = match backend {
                    DbBackend::Postgres => "EXTRACT(EPOCH FROM now())::bigint",
                    _ => "unixepoch()",
                };
                let insert = format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ($1, {now})");
                connection.execute_raw(note(&insert)).await?;
            }
            Direction::Down { .. } => {
                self.step.down(&manager).await?;
                connection.execute_raw(note("DELETE FROM seaql_migrations WHERE version = $1")).await?;
                connection.execute_raw(note("DELETE FROM schema_steps WHERE step = $1")).await?;
            }
        }
        Ok(())
    }
}

/// Makes the two tables in which the schema speaks of itself.
async fn install(session: &Session) -> Result<(), DbErr> {
    let connection = session.connection();
    for table in [
        "CREATE TABLE IF NOT EXISTS seaql_migrations (version VARCHAR NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS schema_steps (
            step VARCHAR(255) PRIMARY KEY NOT NULL,
            compatible_since VARCHAR(255) NOT NULL
        )",
    ] {
        connection.execute_unprepared(table).await?;
    }
    Ok(())
}

/// PostgreSQL: a lock was not to be had in time, or was part of a deadlock.
fn is_lock_timeout(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(&*code, "55P03" | "40P01"))
}
