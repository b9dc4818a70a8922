//! The database under ledger and billing, PostgreSQL or SQLite: connections, transactions, the words in which the two
//! differ, parameters of many rows, and what can go wrong.
//!
//! Statements are written once, in the crates above, with the words of [`Dialect`]. What this crate does not do: it knows no
//! table of usage or billing, no HTTP and no broker, and it migrates nothing. The only tables it reads are the
//! two in which the steps of the schema are listed, because every program that opens a database looks there first.

mod columns;
mod dialect;
mod error;
mod locks;
mod options;
mod pooler;
mod postgres;
mod rows;
mod schema;
mod setting;
mod store;
mod url;
mod watch;

pub use columns::{Id, Moment};
pub use dialect::{Dialect, WIDE_LOW, read, read_wide};
pub use error::{StoreError, is_of_the_disk};
pub use locks::{Hold, request_lock};
pub use options::StoreOptions;
pub use rows::{Cell, Params, Rows, build};
pub use setting::database_url;
pub use store::{PoolUse, Store, Transaction};
pub use url::sqlite_url;
