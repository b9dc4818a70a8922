//! The ledger: a database, and the rows of the rollups that this process adds to.

use goldleaves_cards::CardsFile;
use goldleaves_store::{Dialect, Params, Store, StoreError, StoreOptions, Transaction};
use sea_orm::QueryResult;

use crate::LedgerError;
use crate::memory::Memory;
use crate::priced::Cache;

/// Rollups are spread over this many rows each, so that workers do not wait for each other.
const SHARDS: u128 = 16;

/// The billing ledger. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    shard: i64,
    cache: Cache,
    memory: Memory,
}

impl Ledger {
    /// The ledger in this database.
    pub fn new(store: Store) -> Self {
        let shard = (uuid::Uuid::new_v4().as_u128() % SHARDS) as i64;
        Self { store, shard, cache: Cache::default(), memory: Memory::default() }
    }

    /// Opens a database, as [`Store::connect`] does.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        Store::connect(url, options).await.map(Self::new)
    }

    /// Remembers in this file by which cards usage is priced, before that is committed, and brings back from it at any time what
    /// the ledger lacks. For the one process that owns both.
    #[must_use]
    pub fn keeping_cards_in(self, file: CardsFile) -> Self {
        Self { memory: Memory::in_file(file), ..self }
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

    /// The cards that usage was priced by.
    pub(crate) const fn memory(&self) -> &Memory {
        &self.memory
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
