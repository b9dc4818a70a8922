//! The steps of the schema that billing needs. A test keeps the list equal to that of `goldleaves-migrations`.

/// Every step, in order.
pub(crate) const STEPS: [&str; 7] = [
    "m20261124_000001_usage_ledger",
    "m20261130_000002_ledger_progress",
    "m20261130_000003_billing",
    "m20261130_000004_indexes",
    "m20261130_000005_stripe_totals",
    "m20261130_000006_progress_marks",
    "m20261130_000007_more_indexes",
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_needed_schema_is_what_the_migrations_make() {
        assert_eq!(goldleaves_testkit::migrations::names(), super::STEPS);
    }
}
