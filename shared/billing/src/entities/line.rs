//! `billing_lines`: what was billed with a period.

use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "billing_lines")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) number: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) line: i32,
    pub(crate) for_number: i64,
    pub(crate) kind: String,
    pub(crate) route: String,
    pub(crate) action: String,
    pub(crate) rate_version: i64,
    pub(crate) events: i64,
    /// A number of 38 digits, which is read as text.
    #[sea_orm(select_as = "text")]
    pub(crate) units_micro: String,
    /// Another.
    #[sea_orm(select_as = "text")]
    pub(crate) cents: String,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
