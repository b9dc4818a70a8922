//! The record of who changed what, written in the transaction of the change.

use goldleaves_domain::{Period, Timestamp};
use goldleaves_store::{Id, Moment, Transaction};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use uuid::Uuid;

use crate::entities::audit::{self, Column};
use crate::list::{Cursor, Page, PageOf, behind};
use crate::source::insert;
use crate::{Billing, BillingError, Refusal, RefusalCode};

/// The longest body that is kept whole.
const BODY_CHARS_MAX: usize = 8_000;

/// The author of a change, and the call in which it was made.
#[derive(Debug, Clone)]
pub struct Author {
    /// The token's `sub`.
    pub actor: String,
    /// The token's roles, separated by blanks.
    pub roles: String,
    /// The call's id.
    pub request_id: String,
}

impl Author {
    /// The program itself.
    pub fn program() -> Self {
        Self { actor: "goldleaves".to_owned(), roles: String::new(), request_id: String::new() }
    }
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Change<'a> {
    pub(crate) author: &'a Author,
    pub(crate) action: &'static str,
    pub(crate) tenant_id: &'a str,
    pub(crate) body: &'a str,
}

/// A row of the record.
#[derive(Debug, Clone)]
pub struct AuditRow {
    /// Names the row.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// The author.
    pub actor: String,
    /// The author's roles.
    pub roles: String,
    /// The call.
    pub request_id: String,
    /// The kind of change.
    pub action: String,
    /// The tenant whose bill it is; empty where it is nobody's.
    pub tenant_id: String,
    /// The change as it was asked for.
    pub body: String,
}

impl AuditRow {
    fn of(row: audit::Model) -> Self {
        let audit::Model { id: Id(id), at: Moment(at), actor, roles, request_id, action, tenant_id, body } = row;
        Self { id, at, actor, roles, request_id, action, tenant_id, body }
    }
}

pub(crate) async fn write(transaction: &Transaction, change: &Change<'_>) -> Result<(), BillingError> {
    let body: String = change.body.chars().take(BODY_CHARS_MAX).collect();
    let author = change.author;
    let row = Query::insert()
        .into_table(audit::Entity)
        .columns([
            Column::Id,
            Column::At,
            Column::Actor,
            Column::Roles,
            Column::RequestId,
            Column::Action,
            Column::TenantId,
            Column::Body,
        ])
        .values([
            Id(Uuid::now_v7()).into(),
            Expr::cust(transaction.dialect().now()),
            author.actor.as_str().into(),
            author.roles.as_str().into(),
            author.request_id.as_str().into(),
            change.action.into(),
            change.tenant_id.into(),
            body.into(),
        ])
        .map_err(|error| BillingError::unreadable("billing_audit", error))?
        .to_owned();
    insert(transaction, &row).await
}

impl Billing {
    /// The changes of a range, oldest first; of one tenant, or all.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn audit(
        &self,
        range: &Period,
        tenant: Option<&str>,
        page: &Page,
    ) -> Result<PageOf<AuditRow>, BillingError> {
        let mut rows = audit::Entity::find()
            .filter(Column::At.gte(Moment(range.start())))
            .filter(Column::At.lt(Moment(range.end())))
            .order_by_asc(Column::At)
            .order_by_asc(Column::Id)
            .limit(page.rows().unsigned_abs());
        if let Some(tenant) = tenant {
            rows = rows.filter(Column::TenantId.eq(tenant));
        }
        if let Some(cursor) = &page.cursor {
            let (at, id) = cursor.time_and_text().map_err(bad_cursor)?;
            let id = Uuid::try_parse(id).map_err(|_| bad_cursor(crate::CursorError))?;
            rows = rows.filter(behind([Column::At, Column::Id], [Moment(at).into(), Id(id).into()]));
        }
        let rows: Vec<AuditRow> = self.source().find(rows).await?.into_iter().map(AuditRow::of).collect();
        Ok(PageOf::cut(rows, page.limit, |row| Cursor::after([row.at.to_string(), row.id.to_string()])))
    }
}

pub(crate) fn bad_cursor(error: crate::CursorError) -> BillingError {
    BillingError::Refused(Refusal::new(RefusalCode::Invalid, format!("cursor is {error}")))
}
