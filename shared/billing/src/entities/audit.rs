//! `billing_audit`: who changed what.

use goldleaves_store::{Id, Moment};
use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "billing_audit")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Id,
    pub(crate) at: Moment,
    pub(crate) actor: String,
    pub(crate) roles: String,
    pub(crate) request_id: String,
    pub(crate) action: String,
    pub(crate) tenant_id: String,
    pub(crate) body: String,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
