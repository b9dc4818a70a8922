//! `usage_corrections`: changes of bills, added and never changed.

use goldleaves_store::{Id, Moment};
use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "usage_corrections")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Id,
    pub(crate) tenant_id: String,
    pub(crate) kind: String,
    pub(crate) event_id: Option<Id>,
    pub(crate) follows: Option<Id>,
    pub(crate) ts: Moment,
    pub(crate) route: String,
    pub(crate) action: String,
    pub(crate) rate_version: i64,
    pub(crate) events: i64,
    pub(crate) units_micro: i64,
    pub(crate) cents: i64,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) created_at: Moment,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
