//! The schema that the ledger needs. A test keeps the list equal to that of `goldleaves-migrations`.

use std::sync::atomic::AtomicBool;

use goldleaves_store::StoreError;

use crate::Ledger;

/// Every step of the schema that this crate was written for, in order.
const STEPS: [&str; 7] = [
    "m20261124_000001_usage_ledger",
    "m20261130_000002_ledger_progress",
    "m20261130_000003_billing",
    "m20261130_000004_indexes",
    "m20261130_000005_stripe_totals",
    "m20261130_000006_progress_marks",
    "m20261130_000007_more_indexes",
];

impl Ledger {
    /// Checks that the database has the schema this program was written for, or a newer one beside which it goes on.
    ///
    /// # Errors
    /// [`StoreError::SchemaMissing`] or [`StoreError::SchemaNewer`]; any other error says that it could not be found out.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        self.store().check_schema(&STEPS).await
    }

    /// Keeps `is_ready` saying whether the database answers and has the schema, as [`goldleaves_store::Store::watch`] does.
    pub async fn watch(&self, is_ready: &AtomicBool) -> StoreError {
        self.store().watch(&STEPS, is_ready).await
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_needed_schema_is_what_the_migrations_make() {
        assert_eq!(goldleaves_testkit::migrations::names(), super::STEPS);
    }
}
