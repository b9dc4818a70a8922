//! The rows that taking a step back destroys. They are found by trying: the step is undone inside a savepoint, and the rows of what is
//! gone are counted. So no step has to say by itself what it loses, and none can forget to.

use std::collections::BTreeMap;
use std::fmt;

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement, TransactionTrait};

/// Tables in which the schema speaks of itself.
const OWN: [&str; 2] = ["seaql_migrations", "schema_steps"];

/// The columns of each table, with their defaults.
type Catalogue = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// The rows that go with a step: those of tables that are dropped, and those that hold something in a column that is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    tables: Vec<(String, u64)>,
}

impl Losses {
    /// All of them.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|(_, rows)| rows).sum()
    }

    /// Tries to take a step back, and takes that back. The tables that lose something are locked until the transaction ends.
    pub(crate) async fn look(transaction: &DatabaseTransaction, step: &dyn MigrationTrait) -> Result<Self, DbErr> {
        let before = catalogue(transaction).await?;
        let trial = transaction.begin().await?;
        step.down(&SchemaManager::new(&trial)).await?;
        let after = catalogue(&trial).await?;
        trial.rollback().await?;
        let mut losses = Self::default();
        for (table, columns) in before.into_iter().filter(|(table, _)| !OWN.contains(&table.as_str())) {
            let condition = match after.get(&table) {
                None => String::new(),
                Some(left) => match holds_something(columns.into_iter().filter(|(name, _)| !left.contains_key(name))) {
                    Some(condition) => format!("WHERE {condition}"),
                    None => continue,
                },
            };
            let rows = count(transaction, &table, &condition).await?;
            if rows > 0 {
                losses.tables.push((table, rows));
            }
        }
        Ok(losses)
    }
}

/// `usage_events 5, rate_cards 1`.
impl fmt::Display for Losses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (table, rows) in &self.tables {
            write!(out, "{between}{table} {rows}")?;
            between = ", ";
        }
        Ok(())
    }
}

/// Returns whether a row has another value than the default in one of these columns; `None` where there is no column.
fn holds_something(columns: impl Iterator<Item = (String, Option<String>)>) -> Option<String> {
    let differs = |(name, default): (String, Option<String>)| {
        format!("\"{name}\" IS DISTINCT FROM ({})", default.as_deref().unwrap_or("NULL"))
    };
    let conditions: Vec<String> = columns.map(differs).collect();
    (!conditions.is_empty()).then(|| conditions.join(" OR "))
}

async fn count(transaction: &DatabaseTransaction, table: &str, condition: &str) -> Result<u64, DbErr> {
    let backend = transaction.get_database_backend();
    if backend == DbBackend::Postgres {
        // What is counted is what goes.
        transaction.execute_unprepared(&format!("LOCK TABLE \"{table}\" IN ACCESS EXCLUSIVE MODE")).await?;
    }
    let sql = format!("SELECT COUNT(*) AS rows FROM \"{table}\" {condition}");
    let row = transaction.query_one_raw(Statement::from_string(backend, sql)).await?;
    let rows: i64 = row.map_or(Ok(0), |row| row.try_get("", "rows"))?;
    Ok(rows.unsigned_abs())
}

async fn catalogue(transaction: &DatabaseTransaction) -> Result<Catalogue, DbErr> {
    let backend = transaction.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => {
            "SELECT c.table_name::text AS table_name, c.column_name::text AS column_name, \
                 c.column_default::text AS column_default \
             FROM information_schema.columns AS c JOIN information_schema.tables AS t USING (table_schema, table_name) \
             WHERE table_schema = current_schema() AND t.table_type = 'BASE TABLE'"
        }
        _ => {
            "SELECT m.name AS table_name, x.name AS column_name, x.dflt_value AS column_default \
             FROM sqlite_schema AS m JOIN pragma_table_xinfo(m.name) AS x \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
        }
    };
    let mut catalogue = Catalogue::new();
    for row in transaction.query_all_raw(Statement::from_string(backend, sql)).await? {
        let table: String = row.try_get("", "table_name")?;
        let columns = catalogue.entry(table).or_default();
        columns.insert(row.try_get("", "column_name")?, row.try_get("", "column_default")?);
    }
    Ok(catalogue)
}
