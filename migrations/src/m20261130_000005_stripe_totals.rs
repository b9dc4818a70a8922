//! The sums of a lane to Stripe, on both sides, when they were last compared.

use sea_orm_migration::prelude::*;

use crate::dialect;

/// The fifth step.
#[derive(DeriveMigrationName)]
pub(crate) struct Step;

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, &TOTALS).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, &UNDO).await
    }
}

/// Both sums are of the same 35 days, read one after the other.
const TOTALS: [&str; 2] = [
    "ALTER TABLE stripe_lanes ADD stripe_value NUMERIC(38,0)",
    "ALTER TABLE stripe_lanes ADD pushed_value NUMERIC(38,0)",
];

const UNDO: [&str; 2] =
    ["ALTER TABLE stripe_lanes DROP COLUMN pushed_value", "ALTER TABLE stripe_lanes DROP COLUMN stripe_value"];
