//! Connections: a pool on PostgreSQL; on SQLite one connection that writes and a few that read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goldleaves_runtime::create_private;
use goldleaves_runtime::telemetry::TRACED;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Connection as _};
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, ExecResult, IsolationLevel,
    QueryResult, SqliteTransactionMode, SqlxSqliteConnector, Statement, TransactionOptions, TransactionTrait,
};
use tokio::sync::watch;
use tracing::{Instrument as _, Span, info_span};

use crate::dialect::Dialect;
use crate::error::{StoreError, away, is_full, is_of_the_disk};
use crate::options::StoreOptions;
use crate::postgres::{Numbered, PostgresSetup};
use crate::rows::Params;
use crate::url::sqlite_path;

/// Between giving a lock up and asking for it again: who waited behind it has to have its turn.
const LOCK_PAUSE: Duration = Duration::from_millis(250);

impl StatementTarget {
    fn of(Numbered { pool, number }: Numbered) -> Self {
        Self { connection: pool, pool: Some(number) }
    }
}

/// The connections to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// There are so many.
    pub open: u32,
    /// The number of them that do something.
    pub busy: u32,
    /// There may be so many.
    pub max: u32,
}

impl PoolUse {
    fn new(open: u32, idle: usize, max: u32) -> Self {
        Self { open, busy: open.saturating_sub(u32::try_from(idle).unwrap_or(u32::MAX)), max }
    }
}

/// A database. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<StoreInner>,
}

#[derive(Debug)]
struct StoreInner {
    connections: Connections,
    options: StoreOptions,
    /// The word that the schema was seen, where writes wait for that.
    may_write: watch::Sender<bool>,
}

#[derive(Debug)]
enum Connections {
    /// One that writes, and those that read.
    Sqlite {
        writer: DatabaseConnection,
        reader: DatabaseConnection,
    },
    Postgres(Box<PostgresSetup>),
}

/// Where a statement is to run; `pool` is which one of PostgreSQL's.
#[derive(Debug, Clone)]
struct StatementTarget {
    connection: DatabaseConnection,
    pool: Option<u64>,
}

impl Store {
    /// Opens the database. PostgreSQL need not be there yet, and the disk of SQLite may have no room: the first use connects
    /// then. A missing SQLite file is created unless the options say otherwise, readable by its owner only; it must be
    /// migrated before use, as [`Store::check_schema`] tells.
    ///
    /// # Errors
    /// A bad URL, or an SQLite file that can't be opened.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let connections = match url.split_once(':') {
            Some(("sqlite", rest)) => {
                let path = sqlite_path(rest).ok_or_else(StoreError::unknown_url)?;
                let (writer, reader) = open_sqlite(&path, &options).await?;
                Connections::Sqlite { writer, reader }
            }
            Some(("postgres" | "postgresql", _)) => {
                Connections::Postgres(Box::new(PostgresSetup::open(url, &options)?))
            }
            _ => return Err(StoreError::unknown_url()),
        };
        let may_write = watch::Sender::new(!options.writes_wait_for_schema);
        Ok(Self { inner: Arc::new(StoreInner { connections, options, may_write }) })
    }

    /// The schema was seen to be this program's.
    pub(crate) fn allow_writes(&self) {
        self.inner.may_write.send_replace(true);
    }

    /// Waits for the first look at the schema, as long as for a connection.
    async fn schema_seen(&self) -> Result<(), StoreError> {
        if *self.inner.may_write.borrow() {
            return Ok(());
        }
        let mut may_write = self.inner.may_write.subscribe();
        let seen = may_write.wait_for(|may_write| *may_write);
        match tokio::time::timeout(self.inner.options.acquire_timeout, seen).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(StoreError::SchemaUnseen),
        }
    }

    /// The most connections that statements share: those that read, on SQLite.
    pub fn connections_max(&self) -> u32 {
        self.inner.options.connections_max
    }

    /// Returns whether the database answers. PostgreSQL is asked over a connection that nothing else uses and that stays open, so
    /// that it neither waits for statements nor keeps them waiting.
    ///
    /// # Errors
    /// It does not, or not in time.
    pub async fn ping(&self) -> Result<(), StoreError> {
        if let Connections::Postgres(postgres) = &self.inner.connections {
            return within(self.inner.options.ping_timeout, postgres.ping()).await;
        }
        let mut params = Params::default();
        let one = params.bind(1_i64);
        self.read_within(self.inner.options.ping_timeout, &format!("SELECT {one} AS one"), params).await.map(drop)
    }

    /// Connects once more and hangs up, to learn at once what keeps it from that: the pool tries again for a while, and then
    /// knows no more than that it took too long. SQLite is always within reach.
    ///
    /// # Errors
    /// [`StoreError::Refused`], or why it can't be reached.
    pub async fn reach(&self) -> Result<(), StoreError> {
        match &self.inner.connections {
            Connections::Sqlite { .. } => Ok(()),
            Connections::Postgres(postgres) => within(self.inner.options.ping_timeout, postgres.reach()).await,
        }
    }

    /// Returns whether there is a connection to write with; asks nobody.
    pub fn is_connected(&self) -> bool {
        match &self.inner.connections {
            Connections::Sqlite { writer, .. } => writer.get_sqlite_connection_pool().size() > 0,
            Connections::Postgres(postgres) => postgres.pool().pool.get_postgres_connection_pool().size() > 0,
        }
    }

    /// Counts the connections that were made to a database server: another one may lead to another server.
    pub fn connections(&self) -> watch::Receiver<u64> {
        match &self.inner.connections {
            Connections::Sqlite { .. } => watch::channel(0).1,
            Connections::Postgres(postgres) => postgres.connections(),
        }
    }

    /// Returns the number of connections; asks nobody.
    pub fn pool_use(&self) -> PoolUse {
        let max = self.inner.options.connections_max;
        match &self.inner.connections {
            Connections::Postgres(postgres) => {
                let current = postgres.pool().pool;
                let pool = current.get_postgres_connection_pool();
                PoolUse::new(pool.size(), pool.num_idle(), max)
            }
            Connections::Sqlite { writer, reader } => {
                let (writer, reader) = (writer.get_sqlite_connection_pool(), reader.get_sqlite_connection_pool());
                let idle = writer.num_idle() + reader.num_idle();
                // One writes.
                PoolUse::new(writer.size() + reader.size(), idle, max.saturating_add(1))
            }
        }
    }

    /// Closes every connection; what is under way ends first.
    pub async fn close(&self) {
        let pools = match &self.inner.connections {
            Connections::Sqlite { writer, reader } => vec![writer.clone(), reader.clone()],
            Connections::Postgres(postgres) => vec![postgres.pool().pool],
        };
        if let Connections::Postgres(postgres) = &self.inner.connections {
            postgres.close().await;
        }
        for pool in pools {
            match tokio::time::timeout(self.inner.options.acquire_timeout, pool.close_by_ref()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a database connection did not close"),
                Err(_) => tracing::warn!("a database connection did not close in time"),
            }
        }
    }

    /// The database, as traces name it.
    pub fn system(&self) -> &'static str {
        match self.dialect() {
            Dialect::Postgres => "postgresql",
            Dialect::Sqlite => "sqlite",
        }
    }

    /// The words of this database.
    pub fn dialect(&self) -> Dialect {
        match &self.inner.connections {
            Connections::Sqlite { .. } => Dialect::Sqlite,
            Connections::Postgres(_) => Dialect::Postgres,
        }
    }

    fn writer(&self) -> StatementTarget {
        match &self.inner.connections {
            Connections::Sqlite { writer, .. } => StatementTarget { connection: writer.clone(), pool: None },
            Connections::Postgres(postgres) => StatementTarget::of(postgres.pool()),
        }
    }

    fn reader(&self) -> StatementTarget {
        match &self.inner.connections {
            Connections::Sqlite { reader, .. } => StatementTarget { connection: reader.clone(), pool: None },
            Connections::Postgres(postgres) => StatementTarget::of(postgres.pool()),
        }
    }

    /// A statement. The log never has the values, which may be anybody's.
    fn statement(&self, sql: &str, params: Params) -> Statement {
        tracing::trace!(sql, "a statement");
        let dialect = self.dialect();
        let values = params.into_values().into_iter().map(|value| dialect.kept(value));
        Statement::from_sql_and_values(dialect.backend(), sql, values)
    }

    /// Leaves the pool of this target if what came of a statement puts its connection in doubt.
    fn doubt(&self, target: &StatementTarget, cause: &StoreError) {
        if let (Connections::Postgres(postgres), Some(number)) = (&self.inner.connections, target.pool)
            && cause.is_of_the_connection()
        {
            postgres.renew(number, cause);
        }
    }

    /// Runs one reading statement, which sees one snapshot.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn read(&self, sql: &str, params: Params) -> Result<Vec<QueryResult>, StoreError> {
        self.read_within(self.inner.options.work_timeout, sql, params).await
    }

    async fn read_within(&self, limit: Duration, sql: &str, params: Params) -> Result<Vec<QueryResult>, StoreError> {
        let statement = self.statement(sql, params);
        let target = self.reader();
        let rows = async {
            loop {
                let rows = target.connection.query_all_raw(statement.clone()).await;
                match rows.map_err(|error| StoreError::from(error).named()) {
                    // Only a change of the schema locks readers out. They gave way, and ask again.
                    Err(error) if error.is_lock_timeout() => {}
                    rows => return rows,
                }
            }
        };
        let rows = within(limit, rows).instrument(self.traced("read")).await;
        rows.inspect_err(|cause| self.doubt(&target, cause))
    }

    /// Runs `work`, which only reads, in one transaction whose statements all see the same snapshot. It may take its time:
    /// each statement has its limit, the whole has none, and nobody waits for it.
    ///
    /// # Errors
    /// What `work` came to, or that the transaction was not begun or ended.
    pub async fn snapshot<T, E, W>(&self, work: W) -> Result<T, E>
    where
        E: From<StoreError>,
        W: AsyncFnOnce(&Transaction) -> Result<T, E>,
    {
        let target = self.reader();
        // SQLite's readers only read, and see what was there at their first statement.
        let mode = match self.dialect() {
            Dialect::Postgres => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                ..TransactionOptions::default()
            },
            Dialect::Sqlite => TransactionOptions::default(),
        };
        let transaction = self.begin(&target, mode).await?;
        if self.dialect() == Dialect::Postgres {
            // What is read may go to somebody who is slow to take it.
            transaction.execute("SET LOCAL idle_in_transaction_session_timeout = 0", Params::default()).await?;
        }
        let done = work(&transaction).instrument(self.traced("read a snapshot")).await;
        if let Err(error) = transaction.inner.rollback().await {
            tracing::debug!(%error, "a transaction that only read did not end");
        }
        done
    }

    /// The span of a statement or transaction, where what it belongs to has one.
    fn traced(&self, operation: &'static str) -> Span {
        if Span::current().is_none() {
            return Span::none();
        }
        info_span!(
            target: TRACED,
            "database",
            otel.name = operation,
            otel.kind = "client",
            db.system.name = self.system(),
        )
    }

    async fn begin(&self, target: &StatementTarget, mode: TransactionOptions) -> Result<Transaction, StoreError> {
        let inner = target.connection.begin_with_options(mode).await.map_err(|error| {
            let error = StoreError::from(error).named();
            self.doubt(target, &error);
            error
        })?;
        let (store, target) = (self.clone(), target.clone());
        Ok(Transaction { inner, store, target, gave_way: AtomicBool::new(false) })
    }

    /// Runs `work` in one transaction and commits it; an error rolls everything back. Where a lock was not to be had soon,
    /// it runs again: meanwhile those who waited behind it had theirs.
    ///
    /// # Errors
    /// What `work` came to, or that the transaction was not begun, committed or done in time.
    pub async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        E: From<StoreError>,
        W: AsyncFnOnce(&Transaction) -> Result<T, E> + Clone,
    {
        self.write_within(self.inner.options.work_timeout, work).await
    }

    /// Works like [`Store::write`], for work that takes longer than the others' may.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_within<T, E, W>(&self, limit: Duration, work: W) -> Result<T, E>
    where
        E: From<StoreError>,
        W: AsyncFnOnce(&Transaction) -> Result<T, E> + Clone,
    {
        self.schema_seen().await?;
        let start = Instant::now();
        loop {
            let gave_way = AtomicBool::new(false);
            let done = self.write_once(work.clone(), limit, &gave_way).instrument(self.traced("write")).await;
            let again = gave_way.into_inner() && start.elapsed() < limit / 2;
            if done.is_ok() || !again {
                return done;
            }
            tracing::info!("a lock in the database was not to be had within 5 s; it is asked for again");
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    async fn write_once<T, E, W>(&self, work: W, limit: Duration, gave_way: &AtomicBool) -> Result<T, E>
    where
        E: From<StoreError>,
        W: AsyncFnOnce(&Transaction) -> Result<T, E>,
    {
        let target = self.writer();
        let transaction = async {
            let mode = TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            };
            let transaction = self.begin(&target, mode).await?;
            match work(&transaction).await {
                Ok(done) => {
                    transaction.inner.commit().await.map_err(|error| {
                        let error = StoreError::from(error).named();
                        self.doubt(&target, &error);
                        error
                    })?;
                    Ok(done)
                }
                Err(error) => {
                    gave_way.store(transaction.gave_way.into_inner(), Ordering::Relaxed);
                    // Why the work failed says more than why its rollback did: SQLite may have rolled back already.
                    if let Err(rollback) = transaction.inner.rollback().await {
                        tracing::debug!(error = %rollback, "a transaction that failed could not be rolled back either");
                    }
                    Err(error)
                }
            }
        };
        let done = tokio::time::timeout(limit, transaction).await;
        done.unwrap_or_else(|_| {
            self.doubt(&target, &StoreError::TimedOut);
            Err(StoreError::TimedOut.into())
        })
    }
}

/// One transaction.
#[derive(Debug)]
pub struct Transaction {
    inner: DatabaseTransaction,
    store: Store,
    target: StatementTarget,
    /// True if a lock was not to be had soon.
    gave_way: AtomicBool,
}

impl Transaction {
    /// The words of this database.
    pub fn dialect(&self) -> Dialect {
        self.store.dialect()
    }

    /// Runs a statement that gives rows.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn query(&self, sql: &str, params: Params) -> Result<Vec<QueryResult>, StoreError> {
        self.noted(self.inner.query_all_raw(self.store.statement(sql, params)).await)
    }

    /// Runs a statement that gives none.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn execute(&self, sql: &str, params: Params) -> Result<ExecResult, StoreError> {
        self.noted(self.inner.execute_raw(self.store.statement(sql, params)).await)
    }

    fn noted<T>(&self, outcome: Result<T, DbErr>) -> Result<T, StoreError> {
        let outcome = outcome.map_err(|error| StoreError::from(error).named());
        outcome.inspect_err(|cause| {
            if cause.is_lock_timeout() {
                self.gave_way.store(true, Ordering::Relaxed);
            }
            self.store.doubt(&self.target, cause);
        })
    }
}

async fn within<T, E: From<StoreError>>(limit: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(StoreError::TimedOut.into()))
}

/// A disk that takes longer stands still.
const DISK_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

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
    let writer = match there(path, options.create_missing).await {
        None => {
            tracing::warn!(
                path = %path.display(),
                "the disk of the ledger does not answer; starts without the ledger and opens it once the disk answers"
            );
            // No connection is made before somebody asks for one.
            writer.min_connections(0).connect_lazy_with(connection.clone())
        }
        Some(Ok(())) => match writer.clone().connect_with(connection.clone()).await {
            Err(error) if is_of_the_disk(&error) || has_no_room(path) => writer.connect_lazy_with(connection.clone()),
            connected => connected.map_err(away)?,
        },
        // It is made with the schema, and until then every use says what is wrong.
        Some(Err(error)) if is_full(&error) => writer.connect_lazy_with(connection.clone()),
        Some(Err(source)) => return Err(StoreError::File { path: path.display().to_string(), source }),
    };
    let reader = pool.max_connections(options.connections_max).connect_lazy_with(connection.read_only(true));
    Ok((SqlxSqliteConnector::from_sqlx_sqlite_pool(writer), SqlxSqliteConnector::from_sqlx_sqlite_pool(reader)))
}

/// Makes the file when it may, else asks for it. `None` when the disk stands still: nobody who starts waits for that, because what
/// has nothing to do with the ledger is served meanwhile.
async fn there(path: &Path, create_missing: bool) -> Option<std::io::Result<()>> {
    let path = path.to_owned();
    let ask = move || if create_missing { create_private(&path) } else { path.metadata().map(drop) };
    let asked = tokio::time::timeout(DISK_ANSWERS_WITHIN, tokio::task::spawn_blocking(ask)).await.ok()?;
    Some(asked.unwrap_or_else(|broken| Err(std::io::Error::other(broken))))
}

/// Returns whether no further file can be made beside the database. SQLite then says no more than that it can't open a file.
fn has_no_room(path: &Path) -> bool {
    let probe = path.with_added_extension("probe");
    let made = create_private(&probe);
    // It is empty, and of no use to anybody.
    let _ = std::fs::remove_file(probe);
    made.is_err_and(|error| is_full(&error))
}
