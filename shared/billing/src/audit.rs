//! The record of who changed what, written in the transaction of the change.

use goldleaves_domain::{Period, Timestamp};
use goldleaves_store::{Params, Transaction, read};
use uuid::Uuid;

use crate::list::{Cursor, Page, PageOf};
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
    /// Whose bill; empty where it is nobody's.
    pub tenant_id: String,
    /// The change as it was asked for.
    pub body: String,
}

pub(crate) async fn write(transaction: &Transaction, change: &Change<'_>) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let body: String = change.body.chars().take(BODY_CHARS_MAX).collect();
    let author = change.author;
    let values = [
        params.bind(dialect.uuid(Uuid::now_v7())),
        dialect.now().to_owned(),
        params.bind(author.actor.as_str()),
        params.bind(author.roles.as_str()),
        params.bind(author.request_id.as_str()),
        params.bind(change.action),
        params.bind(change.tenant_id),
        params.bind(body),
    ];
    let sql = format!(
        "INSERT INTO billing_audit (id, at, actor, roles, request_id, action, tenant_id, body) VALUES ({})",
        values.join(", ")
    );
    transaction.execute(&sql, params).await?;
    Ok(())
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
        let source = self.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let (from, to) = (params.bind(dialect.time(range.start())), params.bind(dialect.time(range.end())));
        let mut conditions = vec![format!("at >= {from} AND at < {to}")];
        if let Some(tenant) = tenant {
            conditions.push(format!("tenant_id = {}", params.bind(tenant)));
        }
        if let Some(cursor) = &page.cursor {
            let (at, id) = cursor.time_and_text().map_err(bad_cursor)?;
            let id = Uuid::try_parse(id).map_err(|_| bad_cursor(crate::CursorError))?;
            let (at, id) = (params.bind(dialect.time(at)), params.bind(dialect.uuid(id)));
            conditions.push(format!("(at, id) > ({at}, {id})"));
        }
        let limit = params.bind(page.rows());
        let sql = format!(
            "SELECT id, at, actor, roles, request_id, action, tenant_id, body FROM billing_audit WHERE {} \
             ORDER BY at, id LIMIT {limit}",
            conditions.join(" AND ")
        );
        let rows = source.query(&sql, params).await?;
        let rows = rows.iter().map(|row| {
            Ok(AuditRow {
                id: dialect.read_uuid(row, "id")?,
                at: dialect.read_time(row, "at")?,
                actor: read(row, "actor")?,
                roles: read(row, "roles")?,
                request_id: read(row, "request_id")?,
                action: read(row, "action")?,
                tenant_id: read(row, "tenant_id")?,
                body: read(row, "body")?,
            })
        });
        let rows = rows.collect::<Result<Vec<_>, BillingError>>()?;
        Ok(PageOf::cut(rows, page.limit, |row| Cursor::after([row.at.to_string(), row.id.to_string()])))
    }
}

pub(crate) fn bad_cursor(error: crate::CursorError) -> BillingError {
    BillingError::Refused(Refusal::new(RefusalCode::Invalid, format!("cursor is {error}")))
}
