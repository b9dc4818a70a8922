//! Databases, and what the ledger's tables hold, read with plain SQL and not with the ledger's own words.

use std::collections::BTreeMap;
use std::path::Path;

use goldleaves_e2e::seals::disagreements;
use goldleaves_ledger::{Ledger, StoreOptions, sqlite_url};
use goldleaves_testkit::postgres::Postgres;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};

use crate::child;

/// An SQLite database with the current schema and a rate of 25 cents.
pub(crate) async fn sqlite(folder: &Path) -> String {
    let url = sqlite_url(&folder.join("ledger.db"));
    goldleaves_migrations::up(&url, &|_| {}).await.unwrap();
    set_rate(&url).await;
    url
}

/// The same on PostgreSQL.
pub(crate) async fn postgres() -> String {
    let url = Postgres::shared().await.unwrap().database().await.unwrap();
    set_rate(&url).await;
    url
}

async fn set_rate(url: &str) {
    let ledger = Ledger::connect(url, StoreOptions::default()).await.unwrap();
    ledger.set_rate("25".parse().unwrap(), child::now()).await.unwrap();
    ledger.store().close().await;
}

/// The ledger's tables.
pub(crate) struct Tables {
    connection: DatabaseConnection,
}

/// Where one event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) table: String,
    pub(crate) outcome: String,
}

/// Some columns of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) tenant_id: String,
    pub(crate) route: String,
    pub(crate) units_micro: u64,
}

impl Tables {
    pub(crate) async fn open(url: &str) -> Self {
        Self { connection: Database::connect(url).await.unwrap() }
    }

    /// Every event and dead letter by its id; more than one row under an id fails.
    pub(crate) async fn rows(&self) -> BTreeMap<String, Row> {
        let sql = "SELECT CAST(id AS VARCHAR(64)) AS id, 'usage_events' AS place, outcome FROM usage_events
            UNION ALL SELECT CAST(id AS VARCHAR(64)), 'usage_duplicates', outcome FROM usage_duplicates
            UNION ALL SELECT id, 'usage_dead_letters', reason FROM usage_dead_letters";
        let mut rows = BTreeMap::new();
        for row in self.all(sql).await {
            let id: String = row.try_get("", "id").unwrap();
            let row = Row { table: row.try_get("", "place").unwrap(), outcome: row.try_get("", "outcome").unwrap() };
            if let Some(other) = rows.insert(id.clone(), row.clone()) {
                panic!("{id} is in the ledger twice: {other:?} and {row:?}");
            }
        }
        rows
    }

    /// Returns what billed events and repeats hold, by id.
    pub(crate) async fn stored(&self) -> Vec<(String, Stored)> {
        let sql = "SELECT CAST(id AS VARCHAR(64)) AS id, tenant_id, route, units_micro FROM usage_events
            UNION ALL SELECT CAST(id AS VARCHAR(64)), tenant_id, route, units_micro FROM usage_duplicates";
        let rows = self.all(sql).await;
        let stored = rows.iter().map(|row| {
            let units_micro: i64 = row.try_get("", "units_micro").unwrap();
            let stored = Stored {
                tenant_id: row.try_get("", "tenant_id").unwrap(),
                route: row.try_get("", "route").unwrap(),
                units_micro: units_micro.try_into().unwrap(),
            };
            (row.try_get("", "id").unwrap(), stored)
        });
        stored.collect()
    }

    /// Where receipts and seals disagree, in words.
    pub(crate) async fn disagreements(&self) -> Vec<String> {
        disagreements(&self.connection).await.unwrap()
    }

    /// Epochs that a seal spoke of.
    pub(crate) async fn sealed_epochs(&self) -> usize {
        self.all("SELECT epoch FROM usage_epochs").await.len()
    }

    /// Changes the schema, to make it refuse something.
    pub(crate) async fn run(&self, sql: &str) {
        self.connection.execute_unprepared(sql).await.unwrap();
    }

    async fn all(&self, sql: &str) -> Vec<sea_orm::QueryResult> {
        let statement = Statement::from_string(self.connection.get_database_backend(), sql);
        self.connection.query_all_raw(statement).await.unwrap()
    }
}
