//! A fresh, migrated database for each test, and its tables as text.

use goldleaves_ledger::{Ledger, LedgerOptions, sqlite_url};
use goldleaves_testkit::postgres::Postgres;
use tempfile::TempDir;

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A database of its own.
pub(crate) struct Database {
    #[expect(dead_code, reason = "the tests of the catalogue follow")]
    pub(crate) kind: Kind,
    pub(crate) url: String,
    _directory: Option<TempDir>,
}

impl Database {
    pub(crate) async fn new(kind: Kind) -> Self {
        if kind == Kind::Postgres {
            let url = Postgres::shared().await.unwrap().database().await.unwrap();
            return Self { kind, url, _directory: None };
        }
        let directory = tempfile::tempdir().unwrap();
        let url = sqlite_url(&directory.path().join("data dir/goldleaves.db"));
        goldleaves_migrations::up(&url, &|_| ()).await.unwrap();
        Self { kind, url, _directory: Some(directory) }
    }

    pub(crate) async fn ledger(&self) -> Ledger {
        let ledger = Ledger::connect(&self.url, LedgerOptions::default()).await.unwrap();
        ledger.check_schema().await.unwrap();
        ledger
    }
}

/// A ledger with a rate of 25 cents.
pub(crate) async fn priced(database: &Database) -> Ledger {
    let ledger = database.ledger().await;
    ledger.set_rate("25".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
    ledger
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::harness::Database::new(crate::harness::Kind::Sqlite).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::harness::Database::new(crate::harness::Kind::Postgres).await).await;
            })*
        }
    };
}
pub(crate) use on_both;
