//! The locks of PostgreSQL on (tenant, client id). The lock that all writers share is the store's.

use std::collections::BTreeSet;

use goldleaves_store::{Dialect, Params, Rows, Transaction};

use crate::LedgerError;
use crate::batch::EventRow;

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

fn request_lock(row: &EventRow<'_>) -> i64 {
    goldleaves_store::request_lock(row.event.tenant_id.as_str(), row.event.request_id.as_str())
}
