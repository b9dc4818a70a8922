//! Indexes for two further looks that would otherwise read a whole table, or all that a tenant has in one.

use sea_orm_migration::prelude::*;

use crate::dialect;

/// One request is looked for among what was set aside: a tenant whose upstream breaks off often has many such rows. And all tenants'
/// corrections of a range are read together.
const INDEXES: [(&str, &str); 2] = [
    ("idx_usage_dead_letters_tenant_request", "usage_dead_letters (tenant_id, request_id)"),
    ("idx_usage_corrections_ts", "usage_corrections (ts)"),
];

/// The seventh step.
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
