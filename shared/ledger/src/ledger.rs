//! The ledger: a database, and the rows of the rollups that this process adds to.

use goldleaves_store::{Dialect, Params, Store, StoreError, StoreOptions, Transaction};
use sea_orm::QueryResult;

use crate::LedgerError;
use crate::priced::Cache;

/// Rollups are spread over this many rows each, so that workers do not wait for each other.
const SHARDS: u128 = 16;

/// The billing ledger. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    shard: i64,
    cache: Cache,
}

impl Ledger {
    /// The ledger in this database.
    pub fn new(store: Store) -> Self {
        Self { store, shard: (uuid::Uuid::new_v4().as_u128() % SHARDS) as i64, cache: Cache::default() }
    }

    /// Opens a database, as [`Store::connect`] does.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        Store::connect(url, options).await.map(Self::new)
    }

    /// The database that the ledger is in.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.store.dialect()
    }

    /// The rollup row of each key that this ledger adds to.
    pub(crate) const fn shard(&self) -> i64 {
        self.shard
    }

    /// The rate cards that were read last.
    pub(crate) const fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(crate) async fn read(&self, sql: &str, params: Params) -> Result<Vec<QueryResult>, StoreError> {
        self.store.read(sql, params).await
    }

    pub(crate) async fn write<T, W>(&self, work: W) -> Result<T, LedgerError>
    where
        W: AsyncFnOnce(&Transaction) -> Result<T, LedgerError> + Clone,
    {
        self.store.write(work).await
    }
}
