//! The words in which the two databases differ. Tables are written once, in PostgreSQL's words.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, Statement};

/// SQLite's word for each of PostgreSQL's. UUIDs and times are text there, as the ledger writes them; what may outgrow
/// 64 bits is kept as text or in two parts.
const SQLITE_WORDS: [(&str, &str); 8] = [
    ("UUID", "TEXT"),
    ("TIMESTAMPTZ", "TEXT"),
    ("BYTEA", "BLOB"),
    ("now()", "(strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))"),
    ("NUMERIC(38,0)", "TEXT"),
    ("BIT(1024)", "TEXT"),
    ("BIT(256)", "TEXT"),
    ("BOOLEAN", "INTEGER"),
];

/// Runs statements written in PostgreSQL's words, one by one; a statement may begin with `postgres@` or `sqlite@` to
/// run on that database only.
pub(crate) async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    let backend = manager.get_database_backend();
    for statement in statements {
        let statement = match (statement.split_once('@'), backend) {
            (Some(("postgres", text)), DbBackend::Postgres) | (Some(("sqlite", text)), DbBackend::Sqlite) => text,
            (Some(("postgres" | "sqlite", _)), _) => continue,
            _ => statement,
        };
        manager.get_connection().execute_unprepared(&translate(statement, backend)).await?;
    }
    Ok(())
}

/// Makes an index that writers need not wait for: on PostgreSQL concurrently, which takes a step outside a transaction. What
/// an earlier attempt left half done goes first.
pub(crate) async fn index(manager: &SchemaManager<'_>, name: &str, on: &str) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    if connection.get_database_backend() != DbBackend::Postgres {
        connection.execute_unprepared(&format!("CREATE INDEX IF NOT EXISTS {name} ON {on}")).await?;
        return Ok(());
    }
    let half = format!("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid");
    if connection.query_one_raw(Statement::from_string(DbBackend::Postgres, half)).await?.is_some() {
        connection.execute_unprepared(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await?;
    }
    connection.execute_unprepared(&format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}")).await?;
    Ok(())
}

fn translate(statement: &str, backend: DbBackend) -> String {
    if backend == DbBackend::Postgres {
        return statement.to_owned();
    }
    SQLITE_WORDS.iter().fold(statement.to_owned(), |text, (word, ours)| text.replace(word, ours))
}
