//! Connections: a pool on PostgreSQL; on SQLite one connection that writes and a few that read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Connection as _};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, ExecResult, QueryResult, RuntimeErr,
    SqliteTransactionMode, SqlxPostgresConnector, SqlxSqliteConnector, Statement, TransactionOptions, TransactionTrait,
    sqlx,
};

use tokio::sync::watch;

use crate::StoreError;
use crate::dialect::Dialect;
use crate::error::{is_full, is_of_the_disk};
use crate::rows::Params;
use crate::url::sqlite_path;

/// How the database is used.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The most connections: all of them on PostgreSQL, those that read on SQLite.
    pub connections_max: u32,
    /// How long a connection, and the turn to write on SQLite, is waited for.
    pub acquire_timeout: Duration,
    /// How long a transaction or a query may take.
    pub work_timeout: Duration,
    /// How long [`Store::ping`] waits.
    pub ping_timeout: Duration,
    /// Whether a missing SQLite file is made; if not, it is an error.
    pub create_missing: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            connections_max: 8,
            acquire_timeout: Duration::from_secs(10),
            work_timeout: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(2),
            create_missing: true,
        }
    }
}

/// A database. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialect: Dialect,
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    options: StoreOptions,
    connections: watch::Sender<u64>,
}

impl Store {
    /// Opens the database. PostgreSQL need not be there yet, and the disk of SQLite may have no room: the first use connects
    /// then. A missing SQLite file is created unless the options say otherwise, readable by its owner only; it must be
    /// migrated before use, as [`Store::check_schema`] tells.
    ///
    /// # Errors
    /// A bad URL, or an SQLite file that can't be opened.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let connections = watch::channel(0).0;
        let (dialect, writer, reader) = match url.split_once(':') {
            Some(("sqlite", rest)) => {
                let path = sqlite_path(rest).ok_or(StoreError::Url(None))?;
                let (writer, reader) = open_sqlite(&path, &options).await?;
                (Dialect::Sqlite, writer, reader)
            }
            Some(("postgres" | "postgresql", _)) => {
                let pool = open_postgres(url, &options, &connections)?;
                (Dialect::Postgres, pool.clone(), pool)
            }
            _ => return Err(StoreError::Url(None)),
        };
        Ok(Self { inner: Arc::new(Inner { dialect, writer, reader, options, connections }) })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// It does not, or not in time.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let answer = async {
            let mut params = Params::default();
            let one = params.bind(1_i64);
            self.read(&format!("SELECT {one} AS one"), params).await.map(drop)
        };
        within(self.inner.options.ping_timeout, answer).await
    }

    /// Connects once more and hangs up, to learn at once what keeps it from that: the pool tries again for a while, and then
    /// knows no more than that it took too long. SQLite is always within reach.
    ///
    /// # Errors
    /// [`StoreError::Refused`], or why it can't be reached.
    pub async fn reach(&self) -> Result<(), StoreError> {
        if self.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let options = self.inner.writer.get_postgres_connection_pool().connect_options();
        let connecting = async {
            let connection = PgConnection::connect_with(&options).await.map_err(StoreError::of_the_login)?;
            // It let us in: how it takes the goodbye does not matter.
            let _ = connection.close().await;
            Ok(())
        };
        within(self.inner.options.ping_timeout, connecting).await
    }

    /// Whether there is a connection to write with; asks nobody.
    pub fn is_connected(&self) -> bool {
        match self.dialect() {
            Dialect::Sqlite => self.inner.writer.get_sqlite_connection_pool().size() > 0,
            Dialect::Postgres => self.inner.writer.get_postgres_connection_pool().size() > 0,
        }
    }

    /// Counts the connections that were made to a database server: another one may lead to another server.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.inner.connections.subscribe()
    }

    /// Closes every connection; what is under way ends first.
    pub async fn close(&self) {
        for pool in [&self.inner.writer, &self.inner.reader] {
            if let Err(error) = pool.close_by_ref().await {
                tracing::warn!(%error, "a database connection did not close");
            }
        }
    }

    /// Which database it is, as traces name it.
    pub fn system(&self) -> &'static str {
        match self.dialect() {
            Dialect::Postgres => "postgresql",
            Dialect::Sqlite => "sqlite",
        }
    }

    /// The words of this database.
    pub fn dialect(&self) -> Dialect {
        self.inner.dialect
    }

    /// Runs one reading statement, which sees one snapshot.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn read(&self, sql: &str, params: Params) -> Result<Vec<QueryResult>, StoreError> {
        let statement = Statement::from_sql_and_values(self.dialect().backend(), sql, params.into_values());
        let rows = async { Ok(self.inner.reader.query_all_raw(statement).await?) };
        within(self.inner.options.work_timeout, rows).await
    }

    /// Runs `work` in one transaction and commits it; an error rolls everything back.
    ///
    /// # Errors
    /// What `work` came to, or that the transaction was not begun, committed or done in time.
    pub async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        E: From<StoreError>,
        W: AsyncFnOnce(&Transaction) -> Result<T, E>,
    {
        let transaction = async {
            let mode = TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            };
            let inner = self.inner.writer.begin_with_options(mode).await.map_err(StoreError::from)?;
            let transaction = Transaction { inner, dialect: self.dialect() };
            match work(&transaction).await {
                Ok(done) => {
                    transaction.inner.commit().await.map_err(StoreError::from)?;
                    Ok(done)
                }
                Err(error) => {
                    // Why the work failed says more than why its rollback did: SQLite may have rolled back already.
                    if let Err(rollback) = transaction.inner.rollback().await {
                        tracing::debug!(error = %rollback, "a transaction that failed could not be rolled back either");
                    }
                    Err(error)
                }
            }
        };
        within(self.inner.options.work_timeout, transaction).await
    }
}

/// One transaction.
#[derive(Debug)]
pub struct Transaction {
    inner: DatabaseTransaction,
    dialect: Dialect,
}

impl Transaction {
    /// The words of this database.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Runs a statement that gives rows.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn query(&self, sql: &str, params: Params) -> Result<Vec<QueryResult>, StoreError> {
        Ok(self.inner.query_all_raw(self.statement(sql, params)).await?)
    }

    /// Runs a statement that gives none.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn execute(&self, sql: &str, params: Params) -> Result<ExecResult, StoreError> {
        Ok(self.inner.execute_raw(self.statement(sql, params)).await?)
    }

    fn statement(&self, sql: &str, params: Params) -> Statement {
        Statement::from_sql_and_values(self.dialect.backend(), sql, params.into_values())
    }
}

async fn within<T, E: From<StoreError>>(limit: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(StoreError::TimedOut.into()))
}

/// Read committed, because statements must see what was committed while they waited for a lock; synchronous, because
/// what is reported as recorded must outlive a power cut. The rest is for workers that are stopped, or whose machine is
/// gone, in a transaction: their locks must not keep everybody else out.
const POSTGRES_SETTINGS: [(&str, &str); 5] = [
    ("default_transaction_isolation", "read committed"),
    ("synchronous_commit", "on"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];

fn open_postgres(
    url: &str,
    options: &StoreOptions,
    connections: &watch::Sender<u64>,
) -> Result<DatabaseConnection, StoreError> {
    let connection: PgConnectOptions = url.parse().map_err(|error| StoreError::Url(Some(Box::new(error))))?;
    let limit_millis = options.work_timeout.as_millis().to_string();
    let limits = ["statement_timeout", "idle_in_transaction_session_timeout"].map(|name| (name, limit_millis.as_str()));
    let connection = connection.application_name("goldleaves").options(POSTGRES_SETTINGS).options(limits);
    let connection = connection.disable_statement_logging();
    let connections = connections.clone();
    let pool = PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .after_connect(move |_, _| {
            connections.send_modify(|count| *count += 1);
            Box::pin(std::future::ready(Ok(())))
        })
        .connect_lazy_with(connection);
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

async fn open_sqlite(
    path: &Path,
    options: &StoreOptions,
) -> Result<(DatabaseConnection, DatabaseConnection), StoreError> {
    let connection = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.acquire_timeout)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().acquire_timeout(options.acquire_timeout).idle_timeout(None).max_lifetime(None);
    // SQLite ends a transaction by itself on a full disk. The driver does not notice, takes the next one for a nested one,
    // and that one's "commit" commits nothing: a connection whose transaction did not end as asked is closed.
    let writer = pool.clone().min_connections(1).max_connections(1).after_release(|connection, _| {
        let ended = !connection.is_in_transaction();
        Box::pin(std::future::ready(Ok(ended)))
    });
    let there = if options.create_missing { create_private(path) } else { path.metadata().map(drop) };
    let writer = match there {
        Ok(()) => match writer.clone().connect_with(connection.clone()).await {
            Err(error) if is_of_the_disk(&error) || has_no_room(path) => writer.connect_lazy_with(connection.clone()),
            connected => connected.map_err(away)?,
        },
        // It is made with the schema, and until then every use says what is wrong.
        Err(error) if is_full(&error) => writer.connect_lazy_with(connection.clone()),
        Err(source) => return Err(StoreError::File { path: path.display().to_string(), source }),
    };
    let reader = pool.max_connections(options.connections_max).connect_lazy_with(connection.read_only(true));
    Ok((SqlxSqliteConnector::from_sqlx_sqlite_pool(writer), SqlxSqliteConnector::from_sqlx_sqlite_pool(reader)))
}

/// Whether no further file can be made beside the database. SQLite then says no more than that it can't open a file.
fn has_no_room(path: &Path) -> bool {
    let probe = path.with_added_extension("probe");
    let made = create_private(&probe);
    // It is empty, and of no use to anybody.
    let _ = std::fs::remove_file(probe);
    made.is_err_and(|error| is_full(&error))
}

pub(crate) fn away(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_not_opened() {
        // Opening a directory to write would fail, and say so.
        create_private(&std::env::temp_dir()).unwrap();
    }
}
