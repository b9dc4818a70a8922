//! The lock that everybody who wrote usage shares until the commit, and that whoever must see all of it holds alone. PostgreSQL's
//! advisory locks, because a table's lock would make a dump stall every writer. SQLite has one writer, which holds everything.

use crate::StoreError;
use crate::dialect::Dialect;
use crate::rows::Params;
use crate::store::Transaction;

/// "GL" and the number of the use.
const WRITERS: i64 = 0x474c_0002_0000_0000;

/// The hold on the lock that all writers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// By all who billed events, when nothing is left but to see whether they may stay.
    Shared,
    /// By who needs that nobody bills meanwhile what he does not see: to set events aside, or to choose the moment from which a
    /// price is valid.
    Alone,
}

impl Hold {
    /// Takes the lock in a statement of its own, so that the next one sees what others did before.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn take(self, transaction: &Transaction) -> Result<(), StoreError> {
        if transaction.dialect() == Dialect::Postgres {
            let function = match self {
                Self::Shared => "pg_advisory_xact_lock_shared",
                Self::Alone => "pg_advisory_xact_lock",
            };
            transaction.execute(&format!("SELECT {function}({WRITERS})"), Params::default()).await?;
        }
        Ok(())
    }
}

/// The first of the locks on (tenant, client id): "GL" and the number of the use.
const REQUESTS: i64 = 0x474c_0003_0000_0000;
/// The locks for all (tenant, client id): few enough that a batch never fills the server's lock table.
const REQUEST_LOCKS: u64 = 512;

/// The lock on a tenant's events with one client id, under which repeats are judged and corrected.
///
/// FNV-1a, because programs of different builds must agree.
pub fn request_lock(tenant: &str, request: &str) -> i64 {
    let parts = [tenant, "\0", request];
    let hash = parts
        .iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    REQUESTS | i64::try_from(hash % REQUEST_LOCKS).unwrap_or_default()
}
