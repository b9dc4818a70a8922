//! Keeps when the newest message of each range of `ledger_progress` was stored, so that a stream that went back and grew again is not
//! taken for the one whose sequences the ledger has.

use sea_orm_migration::prelude::*;

use crate::dialect;

/// The sixth step.
#[derive(DeriveMigrationName)]
pub(crate) struct Step;

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Zero: nobody knows.
        dialect::run(
            manager,
            &[
                "ALTER TABLE ledger_progress ADD COLUMN stored_sequence BIGINT NOT NULL DEFAULT 0",
                "ALTER TABLE ledger_progress ADD COLUMN stored_micros BIGINT NOT NULL DEFAULT 0",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(
            manager,
            &[
                "ALTER TABLE ledger_progress DROP COLUMN stored_micros",
                "ALTER TABLE ledger_progress DROP COLUMN stored_sequence",
            ],
        )
        .await
    }
}
