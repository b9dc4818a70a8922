//! The connections of one run: on PostgreSQL one that holds the lock and one that works, on SQLite one transaction for all.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use goldleaves_runtime::create_private;
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::sqlx::ConnectOptions as _;
use sea_orm_migration::sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm_migration::sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqliteTransactionMode,
    SqlxPostgresConnector, SqlxSqliteConnector, Statement, TransactionOptions, TransactionTrait, sqlx,
};
use url::Url;

use crate::{MigrationError, Progress};

/// The advisory lock of PostgreSQL under which the schema changes: "GL" and the number of this use.
const SCHEMA_LOCK: i64 = 0x474c_0000_0000_0001;
/// The time for which another run, or another writer, is waited for.
const WAIT: Duration = Duration::from_secs(60);
/// Between two looks whether another run is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The connection of one run. No other run works at the same time.
pub(crate) enum Session {
    /// Everything in one transaction, which is the lock as well.
    Sqlite(DatabaseTransaction),
    /// Steps have transactions of their own, or none.
    Postgres {
        /// One connection that works.
        database: DatabaseConnection,
        /// Holds the lock on another.
        guard: DatabaseTransaction,
    },
}

impl Session {
    /// Opens the database and waits until no other run works.
    pub(crate) async fn open(url: &str, progress: Progress<'_>) -> Result<Self, MigrationError> {
        match url.split_once(':') {
            Some(("sqlite", rest)) => open_sqlite(rest).await.map(Self::Sqlite),
            Some(("postgres" | "postgresql", _)) => open_postgres(url, progress).await,
            _ => Err(MigrationError::Url(None)),
        }
    }

    /// Returns what statements run on that belong to no step.
    pub(crate) fn connection(&self) -> SchemaManagerConnection<'_> {
        match self {
            Self::Sqlite(transaction) => transaction.into(),
            Self::Postgres { database, .. } => database.into(),
        }
    }

    /// Begins a transaction, on SQLite a part of the one there is.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        match self {
            Self::Sqlite(transaction) => transaction.begin().await,
            Self::Postgres { database, .. } => database.begin().await,
        }
    }

    /// Makes what was done on SQLite stay, and lets the next run in.
    pub(crate) async fn finish(self) -> Result<(), DbErr> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres { database, guard } => {
                guard.commit().await?;
                database.close().await
            }
        }
    }
}

/// Opens a database to look at it, beside any run; `None` where there is no SQLite file.
pub(crate) async fn look(url: &str) -> Result<Option<DatabaseConnection>, MigrationError> {
    match url.split_once(':') {
        Some(("sqlite", rest)) => {
            let path = sqlite_path(rest).ok_or(MigrationError::Url(None))?;
            match path.metadata() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(MigrationError::File { path: path.display().to_string(), source }),
                Ok(_) => {}
            }
            let options = SqliteConnectOptions::new().filename(&path).busy_timeout(WAIT).disable_statement_logging();
            let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(away)?;
            Ok(Some(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)))
        }
        Some(("postgres" | "postgresql", _)) => {
            let options = postgres_options(url)?;
            let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(WAIT);
            let pool = pool.connect_with(options.disable_statement_logging()).await.map_err(away)?;
            Ok(Some(SqlxPostgresConnector::from_sqlx_postgres_pool(pool)))
        }
        _ => Err(MigrationError::Url(None)),
    }
}

async fn open_postgres(url: &str, progress: Progress<'_>) -> Result<Session, MigrationError> {
    let options = postgres_options(url)?;
    let options = options.application_name("goldleaves migrate").disable_statement_logging();
    let connect = async || {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(WAIT);
        pool.connect_with(options.clone()).await.map(SqlxPostgresConnector::from_sqlx_postgres_pool).map_err(away)
    };
    let guard = connect().await?.begin().await?;
    // The lock must outlast the longest step.
    guard.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    lock(&guard, progress).await?;
    Ok(Session::Postgres { database: connect().await?, guard })
}

/// Leaves out which server a session may be on, for the programs to heed: a server that only reads refuses a step by itself. The driver
/// would log what it does not know. A pooler of sessions refuses to be told about digits, and no number here is a float.
fn postgres_options(url: &str) -> Result<PgConnectOptions, MigrationError> {
    let mut url: Url = url.parse().map_err(|error| MigrationError::Url(Some(Box::new(error))))?;
    let mine = |key: &str| key == "target_session_attrs";
    if url.query_pairs().any(|(key, _)| mine(&key)) {
        let kept: Vec<_> = url.query_pairs().into_owned().filter(|(key, _)| !mine(key)).collect();
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
    }
    let options: PgConnectOptions = url.as_str().parse().map_err(|error| MigrationError::Url(Some(Box::new(error))))?;
    Ok(options.extra_float_digits(None))
}

/// Takes the lock by asking again and again: who waits for it inside a statement has a snapshot, and an index that the
/// other run makes concurrently waits until no older snapshot is left, which would be for ever.
async fn lock(guard: &DatabaseTransaction, progress: Progress<'_>) -> Result<(), DbErr> {
    let (start, mut told) = (Instant::now(), false);
    loop {
        let ask = format!("SELECT pg_try_advisory_xact_lock({SCHEMA_LOCK}) AS held");
        let row = guard.query_one_raw(Statement::from_string(DbBackend::Postgres, ask)).await?;
        if row.is_some_and(|row| row.try_get("", "held").unwrap_or(false)) {
            return Ok(());
        }
        if start.elapsed() > WAIT {
            let text = format!("another run has been changing the schema for more than {} s", WAIT.as_secs());
            return Err(DbErr::Migration(text));
        }
        if !told {
            progress("waiting for another run to end");
            told = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn open_sqlite(rest: &str) -> Result<DatabaseTransaction, MigrationError> {
    let path = sqlite_path(rest).ok_or(MigrationError::Url(None))?;
    let file = path.clone();
    // A disk that stands still blocks the thread that asks it.
    let made = tokio::task::spawn_blocking(move || create_private(&file)).await;
    made.unwrap_or_else(|broken| Err(std::io::Error::other(broken)))
        .map_err(|source| MigrationError::File { path: path.display().to_string(), source })?;
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(WAIT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(away)?;
    let database = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool);
    let mode = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    Ok(database.begin_with_options(mode).await?)
}

/// The file named by what follows `sqlite:`; `None` for databases in memory, which no second connection would see.
fn sqlite_path(rest: &str) -> Option<PathBuf> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    (!path.is_empty() && path != ":memory:").then(|| PathBuf::from(path.as_ref()))
}

fn away(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
