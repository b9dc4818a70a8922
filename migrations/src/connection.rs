//! One connection and one transaction for one run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm_migration::sea_orm::sqlx::ConnectOptions as _;
use sea_orm_migration::sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm_migration::sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, RuntimeErr, SqliteTransactionMode, SqlxPostgresConnector,
    SqlxSqliteConnector, TransactionOptions, TransactionTrait, sqlx,
};

use crate::MigrationError;

/// The advisory lock of PostgreSQL under which the schema changes: "GL" and the number of this use.
const SCHEMA_LOCK: i64 = 0x474c_0000_0000_0001;
/// How long another run, or another writer, is waited for.
const WAIT: Duration = Duration::from_secs(60);

/// Opens the database and begins a transaction that no other run can be in at the same time.
pub(crate) async fn open(url: &str) -> Result<DatabaseTransaction, MigrationError> {
    match url.split_once(':') {
        Some(("sqlite", rest)) => open_sqlite(rest).await,
        Some(("postgres" | "postgresql", _)) => open_postgres(url).await,
        _ => Err(MigrationError::Url(None)),
    }
}

async fn open_postgres(url: &str) -> Result<DatabaseTransaction, MigrationError> {
    let options: PgConnectOptions = url.parse().map_err(|error| MigrationError::Url(Some(Box::new(error))))?;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(WAIT);
    let pool = pool.connect_with(options.disable_statement_logging()).await.map_err(away)?;
    let session = SqlxPostgresConnector::from_sqlx_postgres_pool(pool).begin().await?;
    session.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")).await?;
    Ok(session)
}

async fn open_sqlite(rest: &str) -> Result<DatabaseTransaction, MigrationError> {
    let path = sqlite_path(rest).ok_or(MigrationError::Url(None))?;
    create_private(&path).map_err(|source| MigrationError::File { path: path.display().to_string(), source })?;
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

/// Makes the file with mode 0600 when it is missing; SQLite gives its two companions the same mode.
///
/// A file that is there is never opened: closing it again would drop every lock this process holds on it (POSIX locks
/// belong to process and file), and the next program to look at the database would take the log away from under us.
fn create_private(path: &Path) -> std::io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

fn away(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_not_opened() {
        // Opening a directory to write would fail, and say so.
        create_private(&std::env::temp_dir()).unwrap();
    }
}
