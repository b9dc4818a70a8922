//! The billing ledger: what was used, once, and what it costs, on PostgreSQL or SQLite.
//!
//! Events may be recorded in any order, in any number of copies, by any number
//! of workers: the tables are a function of the set of events and of the rate cards. Every reading takes the tenant as its
//! first argument.
//!
//! **A write.** A batch is split by what it needs. Billable events go in with one insert that is also the look-up: what it
//! does not return was there before, or lost its label and goes the slow way under a lock on (tenant, client id), or waits
//! as a dead letter. The last statement adds the difference to the rollups and the receipts. What is set aside goes in
//! a transaction of its own, which holds the ids of its events; seals go last. Each event is in one transaction.
//!
//! **Locks** on PostgreSQL, always in this order: the lock all writers share, ids of what is set aside, labels (the unique
//! index, in the sorted insert), (tenant, client id), rollups, receipts, progress. SQLite has one writer and needs none.
//!
//! What it does not do: it knows no HTTP and no broker, it migrates nothing, it bills nobody (`goldleaves-billing` reads what is
//! written here), and it sums no column but `units_micro`.

mod batch;
mod error;
mod known;
mod ledger;
mod memory;
mod priced;
mod progress;
mod rates;
mod record;
mod remembered;
mod schema;

pub use batch::{Incoming, Recorded, reasons_to_set_aside};
pub use error::LedgerError;
pub use goldleaves_cards::{
    CardsFile, CardsFileError, ImportError, Imported, RateCardsError, read_rate_cards, write_rate_cards,
};
pub use goldleaves_store::{PoolUse, StoreError, StoreOptions, database_url, is_of_the_disk, sqlite_url};
pub use ledger::Ledger;
pub use progress::{Landmark, Sequences, StreamCourse, StreamPlace};
pub use rates::{Leap, RateChange};
pub use remembered::{LackingCards, RememberedCards};
