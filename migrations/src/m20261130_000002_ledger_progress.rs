//! How much of each stream the ledger has, so that a ledger that went back is noticed.

use sea_orm_migration::prelude::*;

use crate::dialect;

/// The second step.
#[derive(DeriveMigrationName)]
pub(crate) struct Step;

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, &[PROGRESS]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, &["DROP TABLE ledger_progress"]).await
    }
}

/// Ranges of sequences that are recorded whole, written in the transaction that records them. `stream_created` is the time
/// of a stream's creation in the stream's own words: another text is another stream. Ranges that touch become one.
const PROGRESS: &str = "CREATE TABLE ledger_progress (
    stream VARCHAR(255) NOT NULL,
    stream_created VARCHAR(64) NOT NULL,
    first_sequence BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, stream_created, first_sequence)
)";
