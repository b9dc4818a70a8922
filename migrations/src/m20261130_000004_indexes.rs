//! Indexes for looks that would otherwise read a whole table. Made beside writers, which takes a step outside a transaction.

use sea_orm_migration::prelude::*;

use crate::dialect;

/// Says whether anything was priced from a moment on is asked before a rate card is added, and what a tenant repeated is listed.
const INDEXES: [(&str, &str); 3] = [
    ("idx_usage_duplicates_tenant_ts", "usage_duplicates (tenant_id, ts)"),
    ("idx_usage_duplicates_ts", "usage_duplicates (ts)"),
    ("idx_usage_rollups_hour", "usage_rollups (hour)"),
];

/// The fourth step.
#[derive(DeriveMigrationName)]
pub(crate) struct Step;

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, on) in INDEXES {
            dialect::index(manager, name, on).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDEXES {
            dialect::run(manager, &[&format!("DROP INDEX IF EXISTS {name}")]).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }
}
