//! Connections to PostgreSQL: a pool, and another one in its place as soon as one of its connections is in doubt.
//!
//! A connection that answered nothing in time, or that leads to a server which only reads or ends, must never be used
//! again; and the driver, which asks a connection once more before it takes it back, may wait for that answer until the
//! system gives the connection up, a quarter of an hour later. So the whole pool is left to itself: what is under way in it
//! ends, nothing is returned to it, and what comes next has a pool of its own.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sea_orm::sqlx::postgres::{PgConnection, PgPoolOptions};
use sea_orm::sqlx::{AssertSqlSafe, Connection as _, Row as _};
use sea_orm::{DatabaseConnection, SqlxPostgresConnector, sqlx};
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::pooler;
use crate::url::PostgresUrl;

/// The least time between two pools, so that a server that is only slow is not given ever more to do.
const RENEW_PAUSE: Duration = Duration::from_secs(5);
/// The longest time a pool that was left may take to close what is idle in it.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// A connection that was idle for less is not asked whether it is still there.
const FRESH: Duration = Duration::from_secs(1);

/// Read committed, because statements must see what was committed while they waited for a lock; synchronous, because
/// what is reported as recorded must outlive a power cut. The rest is for workers that are stopped, or whose machine is
/// gone, in a transaction: their locks must not keep everybody else out; and for whoever waits for a lock of theirs, because
/// all who come later wait behind it: it gives way and asks again.
///
/// They are set when the connection is there: as a part of connecting, a pooler of sessions refuses them.
const SESSION: &str = "SET default_transaction_isolation = 'read committed'; SET synchronous_commit = on; \
                       SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; \
                       SET tcp_user_timeout = 60000; SET lock_timeout = '5s'";

/// The pool in use.
#[derive(Debug)]
pub(crate) struct PostgresSetup {
    url: PostgresUrl,
    options: StoreOptions,
    connections: watch::Sender<u64>,
    current: Mutex<Current>,
    /// The connection over which the server is asked whether it answers.
    asking: AsyncMutex<Option<PgConnection>>,
}

#[derive(Debug)]
struct Current {
    pool: DatabaseConnection,
    number: u64,
    made: Instant,
}

/// A pool, and which one it is.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) pool: DatabaseConnection,
    pub(crate) number: u64,
}

impl PostgresSetup {
    pub(crate) fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut url = PostgresUrl::parse(url)?;
        url.options = url.options.application_name("goldleaves");
        let connections = watch::channel(0).0;
        let pool = make_pool(&url, options, &connections);
        let current = Mutex::new(Current { pool, number: 1, made: Instant::now() });
        let asking = AsyncMutex::new(None);
        Ok(Self { url, options: options.clone(), connections, current, asking })
    }

    pub(crate) fn pool(&self) -> Numbered {
        let current = self.current.lock();
        Numbered { pool: current.pool.clone(), number: current.number }
    }

    /// Counts the connections that were made.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// Puts another pool in the place of this one, if that has not happened yet.
    pub(crate) fn renew(&self, number: u64, cause: &dyn Error) {
        let left = {
            let mut current = self.current.lock();
            if current.number != number || (number > 1 && current.made.elapsed() < RENEW_PAUSE) {
                return;
            }
            current.number += 1;
            current.made = Instant::now();
            std::mem::replace(&mut current.pool, make_pool(&self.url, &self.options, &self.connections))
        };
        tracing::warn!(cause = %cause, "a connection to the database is in doubt; all of them are closed, others are opened");
        tokio::spawn(async move {
            // What is in use closes when it ends. What hangs is the system's to give up.
            let _ = tokio::time::timeout(CLOSE_MAX, left.close_by_ref()).await;
        });
    }

    /// Asks over a connection of its own. It is kept only when it answered: not when it failed, and not when whoever waited
    /// for it gave up.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let mut asking = self.asking.lock().await;
        let answered = match asking.take() {
            // One that died silently must leave time to connect.
            Some(connection) => tokio::time::timeout(self.options.ping_timeout / 2, self.ask_again(connection)).await,
            None => Ok(None),
        };
        let connection = match answered {
            Ok(Some(connection)) => connection,
            _ => self.connect().await?,
        };
        *asking = Some(connection);
        Ok(())
    }

    /// Asks over a connection that was there; one that answers no more may only have been ended meanwhile.
    async fn ask_again(&self, mut connection: PgConnection) -> Option<PgConnection> {
        connection.ping().await.ok()?;
        if self.url.must_write {
            must_write(&mut connection).await.ok()?;
        }
        Some(connection)
    }

    /// Hangs up where the server was asked.
    pub(crate) async fn close(&self) {
        *self.asking.lock().await = None;
    }

    /// Connects once and hangs up.
    pub(crate) async fn reach(&self) -> Result<(), StoreError> {
        let connection = self.connect().await?;
        // It let us in: how it takes the goodbye does not matter.
        let _ = connection.close().await;
        Ok(())
    }

    /// Connects. Boxed, so that the driver is compiled here and not once more in every program.
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<PgConnection, StoreError>> + Send + '_>> {
        Box::pin(self.connect_checked())
    }

    async fn connect_checked(&self) -> Result<PgConnection, StoreError> {
        let mut connection = PgConnection::connect_with(&self.url.options).await.map_err(StoreError::of_the_login)?;
        pooler::refuse_shared_sessions(&mut connection, &self.url.options).await?;
        if self.url.must_write {
            must_write(&mut connection).await.map_err(StoreError::of_the_login)?;
        }
        Ok(connection)
    }
}

fn make_pool(url: &PostgresUrl, options: &StoreOptions, connections: &watch::Sender<u64>) -> DatabaseConnection {
    let (connections, writes, patience) = (connections.clone(), url.must_write, options.ping_timeout);
    let millis = options.work_timeout.as_millis();
    let session: Arc<str> =
        format!("{SESSION}; SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}")
            .into();
    let pool = PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .after_connect(move |connection, _| {
            let (connections, session) = (connections.clone(), session.clone());
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut *connection).await?;
                if writes {
                    must_write(connection).await?;
                }
                connections.send_modify(|count| *count += 1);
                Ok(())
            })
        })
        // The driver's own question has no deadline.
        .test_before_acquire(false)
        .before_acquire(move |connection, idle| {
            Box::pin(async move {
                if idle.idle_for < FRESH {
                    return Ok(true);
                }
                tokio::time::timeout(patience, connection.ping()).await.map_err(|_| silent())?.map(|()| true)
            })
        })
        .connect_lazy_with(url.options.clone());
    SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
}

/// `target_session_attrs=read-write`: a standby, or a server that is being taken out of use, is not connected to.
async fn must_write(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = sqlx::query("SHOW transaction_read_only").fetch_one(&mut *connection).await?;
    match row.try_get::<String, _>(0)?.as_str() {
        "off" => Ok(()),
        _ => {
            Err(sqlx::Error::Io(std::io::Error::other("the server only reads, and target_session_attrs is read-write")))
        }
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the connection is silent"))
}
