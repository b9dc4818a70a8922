//! A pooler between the programs and PostgreSQL, such as PgBouncer: one that gives each connection a session of its own is
//! as good as the server; one that gives each transaction another session is refused, because statements that are
//! prepared, and what is set for a session, are then somebody else's.

use std::time::Duration;

use sea_orm::SqlxError;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection};
use sea_orm::sqlx::{AssertSqlSafe, Connection as _, Row as _, raw_sql};

use crate::error::{StoreError, is_of_shared_sessions};

/// The longest time the second connection may take; without it nothing is found out, which is no reason not to start.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// The setting by which the first connection marks its session.
const MARK: &str = "goldleaves.session";

/// Finds out whether another connection comes upon the session of this one.
pub(crate) async fn refuse_shared_sessions(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), StoreError> {
    let mark = uuid::Uuid::new_v4().simple().to_string();
    raw_sql(AssertSqlSafe(format!("SET {MARK} = '{mark}'"))).execute(&mut *connection).await.map_err(of)?;
    let looked = tokio::time::timeout(LOOK_MAX, async {
        let mut other = PgConnection::connect_with(options).await?;
        let found = look(connection, &mut other, &mark).await;
        // It has been looked at: how it takes the goodbye does not matter.
        let _ = other.close().await;
        found
    });
    match looked.await {
        Ok(Ok(true)) => Err(StoreError::Pooled),
        Ok(Err(error)) if is_of_shared_sessions(&error) => Err(StoreError::Pooled),
        // One connection more may be one too many, or slow to come.
        Ok(Ok(false) | Err(_)) | Err(_) => Ok(()),
    }
}

/// Returns whether the other one's transaction has this one's session, or keeps it from this one.
async fn look(own: &mut PgConnection, other: &mut PgConnection, mark: &str) -> Result<bool, SqlxError> {
    raw_sql("BEGIN").execute(&mut *other).await?;
    let (theirs, mine) = (marked(other).await?, marked(own).await?);
    raw_sql("ROLLBACK").execute(&mut *other).await?;
    Ok(theirs.as_deref() == Some(mark) || mine.as_deref() != Some(mark))
}

async fn marked(connection: &mut PgConnection) -> Result<Option<String>, SqlxError> {
    let sql = format!("SELECT current_setting('{MARK}', true)");
    let row = raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?;
    row.try_get(0)
}

fn of(error: SqlxError) -> StoreError {
    if is_of_shared_sessions(&error) { StoreError::Pooled } else { StoreError::of_the_login(error) }
}
