//! The ledger's tables as any tool would read them: plain SQL over a connection of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use goldleaves_testkit::child::wait_for;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, IsolationLevel, QueryResult, Statement,
    TransactionTrait as _,
};

use crate::patience::PATIENCE;

/// A database of the ledger.
#[derive(Debug)]
pub struct Tables {
    database: DatabaseConnection,
}

/// A row of `usage_events` or `usage_duplicates`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// `id`, which is the event's id.
    pub id: String,
    /// `request_id`.
    pub request_id: String,
    /// `client_request_id`.
    pub client_request_id: Option<String>,
    /// `tenant_id`.
    pub tenant: String,
    /// `route`.
    pub route: String,
    /// `outcome`.
    pub outcome: String,
    /// `units_micro`.
    pub units_micro: i64,
    /// `metadata`.
    pub metadata: Option<String>,
}

/// A row of `usage_dead_letters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// `id`.
    pub id: String,
    /// `request_id`.
    pub request_id: Option<String>,
    /// `reason`.
    pub reason: String,
}

/// All three tables of one moment. An event's id is in exactly one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableContents {
    /// `usage_events`.
    pub events: Vec<TableRow>,
    /// `usage_duplicates`.
    pub duplicates: Vec<TableRow>,
    /// `usage_dead_letters`.
    pub dead_letters: Vec<DeadLetterRow>,
}

impl Tables {
    /// Connects.
    ///
    /// # Errors
    /// There is no such database.
    pub async fn open(url: &str) -> Result<Self> {
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).acquire_timeout(Duration::from_secs(30)).sqlx_logging(false);
        Ok(Self { database: Database::connect(options).await.with_context(|| format!("opening {url}"))? })
    }

    /// Everything recorded now.
    ///
    /// # Errors
    /// A table can't be read.
    pub async fn contents(&self) -> Result<TableContents> {
        // SQLite knows this level only, and says so when it is named.
        let level =
            (self.database.get_database_backend() == DbBackend::Postgres).then_some(IsolationLevel::RepeatableRead);
        let snapshot = self.database.begin_with_config(level, None).await.context("a snapshot")?;
        let events = rows(&snapshot, "usage_events").await?;
        let duplicates = rows(&snapshot, "usage_duplicates").await?;
        let dead = "SELECT id, request_id, reason FROM usage_dead_letters";
        let dead_letters = query(&snapshot, dead).await?.iter().map(dead_letter).collect::<Result<_>>()?;
        snapshot.commit().await.context("the end of a snapshot")?;
        Ok(TableContents { events, duplicates, dead_letters })
    }

    /// Returns what is recorded once `settled` holds.
    ///
    /// # Errors
    /// It never does.
    pub async fn wait(&self, what: &str, settled: impl Fn(&TableContents) -> bool) -> Result<TableContents> {
        wait_for(what, PATIENCE, async || {
            let contents = self.contents().await?;
            Ok(settled(&contents).then_some(contents))
        })
        .await
    }

    /// One number.
    ///
    /// # Errors
    /// The query fails, or gives no number.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let rows = query(&self.database, sql).await?;
        let row = rows.first().context("no row")?;
        row.try_get_by_index(0).with_context(|| format!("a number: {sql}"))
    }

    /// Runs a statement, as somebody at the database would.
    ///
    /// # Errors
    /// The database refuses it.
    pub async fn run(&self, sql: &str) -> Result<()> {
        self.database.execute_unprepared(sql).await.with_context(|| sql.to_owned())?;
        Ok(())
    }

    /// Returns the number of calls gateways served without a record, as their seals say.
    ///
    /// # Errors
    /// The table can't be read.
    pub async fn unrecorded(&self) -> Result<u64> {
        let sum = self.number("SELECT CAST(COALESCE(SUM(unrecorded), 0) AS BIGINT) FROM usage_epochs").await?;
        u64::try_from(sum).context("a count")
    }

    /// The rows of a query of one text column.
    ///
    /// # Errors
    /// The query fails, or gives anything else.
    pub async fn texts(&self, sql: &str) -> Result<Vec<String>> {
        let rows = query(&self.database, sql).await?;
        rows.iter().map(|row| row.try_get_by_index(0).with_context(|| format!("a text: {sql}"))).collect()
    }

    /// Where receipts and seals disagree, in words.
    ///
    /// # Errors
    /// A table can't be read.
    pub async fn disagreements(&self) -> Result<Vec<String>> {
        crate::seals::disagreements(&self.database).await
    }
}

async fn rows(connection: &impl ConnectionTrait, table: &str) -> Result<Vec<TableRow>> {
    let sql = format!(
        "SELECT CAST(id AS TEXT) AS id, request_id, client_request_id, tenant_id, route, outcome, units_micro, metadata \
         FROM {table}"
    );
    query(connection, &sql).await?.iter().map(row).collect()
}

async fn query(connection: &impl ConnectionTrait, sql: &str) -> Result<Vec<QueryResult>> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    connection.query_all_raw(statement).await.with_context(|| sql.to_owned())
}

impl TableContents {
    /// Returns how often each event's id stands in the three tables together.
    pub fn occurrences(&self) -> BTreeMap<&str, usize> {
        let rows = self.events.iter().chain(&self.duplicates).map(|row| row.id.as_str());
        let mut counts = BTreeMap::new();
        for id in rows.chain(self.dead_letters.iter().map(|letter| letter.id.as_str())) {
            *counts.entry(id).or_default() += 1;
        }
        counts
    }

    /// Returns the number of rows the three tables have.
    pub fn len(&self) -> usize {
        self.events.len() + self.duplicates.len() + self.dead_letters.len()
    }

    /// Returns whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn row(row: &QueryResult) -> Result<TableRow> {
    Ok(TableRow {
        id: row.try_get("", "id")?,
        request_id: row.try_get("", "request_id")?,
        client_request_id: row.try_get("", "client_request_id")?,
        tenant: row.try_get("", "tenant_id")?,
        route: row.try_get("", "route")?,
        outcome: row.try_get("", "outcome")?,
        units_micro: row.try_get("", "units_micro")?,
        metadata: row.try_get("", "metadata")?,
    })
}

fn dead_letter(row: &QueryResult) -> Result<DeadLetterRow> {
    Ok(DeadLetterRow {
        id: row.try_get("", "id")?,
        request_id: row.try_get("", "request_id")?,
        reason: row.try_get("", "reason")?,
    })
}
