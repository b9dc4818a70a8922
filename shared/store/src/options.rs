//! How a database is used: how many connections, and how long anything is waited for.

use std::time::Duration;

/// The use that is made of the database.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The most connections: all of them on PostgreSQL, those that read on SQLite.
    pub connections_max: u32,
    /// The time for which a connection, and the turn to write on SQLite, is waited for.
    pub acquire_timeout: Duration,
    /// The longest time a transaction or a query may take.
    pub work_timeout: Duration,
    /// The time for which [`Store::ping`](crate::Store::ping) waits.
    pub ping_timeout: Duration,
    /// True if a missing SQLite file is made; if not, it is an error.
    pub create_missing: bool,
    /// True if nothing is written before [`Store::watch`](crate::Store::watch) has found this program's schema.
    pub writes_wait_for_schema: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            connections_max: 8,
            acquire_timeout: Duration::from_secs(10),
            work_timeout: Duration::from_secs(40),
            ping_timeout: Duration::from_secs(2),
            create_missing: true,
            writes_wait_for_schema: false,
        }
    }
}
