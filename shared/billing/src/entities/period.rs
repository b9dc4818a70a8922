//! `billing_periods`: periods that are closed.

use goldleaves_store::Moment;
use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "billing_periods")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) number: i64,
    pub(crate) starts_at: Moment,
    pub(crate) ends_at: Moment,
    pub(crate) time_zone: String,
    pub(crate) tzdb: String,
    /// A number of 38 digits, which is read as text.
    #[sea_orm(select_as = "text")]
    pub(crate) total_cents: String,
    pub(crate) lines_hash: String,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) closed_at: Moment,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
