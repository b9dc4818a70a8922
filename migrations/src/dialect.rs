//! The words in which the two databases differ. Tables are written once, in PostgreSQL's words.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

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

fn translate(statement: &str, backend: DbBackend) -> String {
    if backend == DbBackend::Postgres {
        return statement.to_owned();
    }
    SQLITE_WORDS.iter().fold(statement.to_owned(), |text, (word, ours)| text.replace(word, ours))
}
