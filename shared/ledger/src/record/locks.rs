//! The locks of PostgreSQL on (tenant, client id), and on reports. The lock that all writers share is the store's.

use std::collections::BTreeSet;

use goldleaves_store::{Dialect, Params, Rows, Transaction};

use crate::LedgerError;
use crate::batch::EventRow;

/// The first of the locks on (tenant, client id): "GL" and the number of the use.
const REQUESTS: i64 = 0x474c_0003_0000_0000;
/// So many locks for all (tenant, client id): few enough that a batch never fills the server's lock table.
const REQUEST_LOCKS: u64 = 512;

/// Locks the (tenant, client id) of each event, in the order of the locks.
pub(super) async fn lock_requests(transaction: &Transaction, events: &[&EventRow<'_>]) -> Result<(), LedgerError> {
    let dialect = transaction.dialect();
    if dialect == Dialect::Postgres {
        let keys: BTreeSet<i64> = events.iter().map(|row| request_lock(row)).collect();
        let mut params = Params::default();
        let keys = Rows::new(dialect).column("key", keys.into_iter()).query(&mut params);
        transaction.execute(&format!("SELECT pg_advisory_xact_lock(k.key) FROM ({keys}) AS k"), params).await?;
    }
    Ok(())
}

/// FNV-1a, because workers of different builds must agree.
fn request_lock(row: &EventRow<'_>) -> i64 {
    let parts = [row.event.tenant_id.as_str(), "\0", row.event.request_id.as_str()];
    let hash = parts
        .iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    REQUESTS | i64::try_from(hash % REQUEST_LOCKS).unwrap_or_default()
}

/// Others with the same use, for [`crate::push`].
pub(crate) async fn lock_reports(transaction: &Transaction) -> Result<(), LedgerError> {
    const REPORTS: i64 = 0x474c_0004_0000_0000;
    if transaction.dialect() == Dialect::Postgres {
        transaction.execute(&format!("SELECT pg_advisory_xact_lock({REPORTS})"), Params::default()).await?;
    }
    Ok(())
}
