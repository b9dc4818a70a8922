//! The locks of PostgreSQL that billing takes. SQLite has one writer and needs none.

use goldleaves_store::{Dialect, Params, Transaction};

use crate::BillingError;

/// Held alone by whoever adds a correction or closes a period: "GL" and the use's number.
const BILLS: i64 = 0x474c_0005_0000_0000;
/// Held alone by whoever makes rows for Stripe.
const REPORTS: i64 = 0x474c_0004_0000_0000;

/// Held alone by whoever takes lanes to Stripe, for a moment.
const LANES: i64 = 0x474c_0006_0000_0000;

/// Waits until nobody else corrects or closes. It comes before every other lock.
pub(crate) async fn bills(transaction: &Transaction) -> Result<(), BillingError> {
    take(transaction, BILLS).await
}

/// Waits until nobody else makes rows for Stripe.
pub(crate) async fn reports(transaction: &Transaction) -> Result<(), BillingError> {
    take(transaction, REPORTS).await
}

/// Waits until no worker judges events of this tenant with this client id.
pub(crate) async fn request(transaction: &Transaction, tenant: &str, request: &str) -> Result<(), BillingError> {
    take(transaction, goldleaves_store::request_lock(tenant, request)).await
}

async fn take(transaction: &Transaction, lock: i64) -> Result<(), BillingError> {
    if transaction.dialect() == Dialect::Postgres {
        transaction.execute(&format!("SELECT pg_advisory_xact_lock({lock})"), Params::default()).await?;
    }
    Ok(())
}

/// Waits until nobody else takes lanes.
pub(crate) async fn lanes(transaction: &Transaction) -> Result<(), BillingError> {
    take(transaction, LANES).await
}
