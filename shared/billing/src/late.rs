//! Hours that changed after their end: what Stripe and closed periods have to look at again.

use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_store::{Moment, Params, Transaction, read};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};

use crate::audit::bad_cursor;
use crate::entities::late_hour::{Column, Entity};
use crate::list::{Cursor, Page, PageOf};
use crate::source::insert;
use crate::{Billing, BillingError};

/// An hour that changed after its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateHour {
    /// The hour.
    pub hour: Timestamp,
    /// The number of them.
    pub changes: i64,
    /// The last time.
    pub changed_at: Timestamp,
    /// The closed period that it lies in; `None` while its period is open.
    pub period_number: Option<i64>,
}

/// Marks an hour as changed.
pub(crate) async fn mark(transaction: &Transaction, tenant: &str, hour: Timestamp) -> Result<(), BillingError> {
    let again = OnConflict::columns([Column::TenantId, Column::Hour])
        .value(Column::Changes, Expr::col((Entity, Column::Changes)).add(1))
        .update_column(Column::ChangedAt)
        .to_owned();
    let row = Query::insert()
        .into_table(Entity)
        .columns([Column::TenantId, Column::Hour, Column::Changes, Column::ChangedAt])
        .values([tenant.into(), Moment(hour).into(), 1_i64.into(), Expr::cust(transaction.dialect().now())])
        .map_err(|error| BillingError::unreadable("usage_late_hours", error))?
        .on_conflict(again)
        .to_owned();
    insert(transaction, &row).await
}

impl Billing {
    /// A tenant's hours in a range that changed after their end, in their order; without a range, all of them that
    /// changed after the close that would have billed them.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn late_hours(
        &self,
        tenant: &TenantId,
        range: Option<&Period>,
        page: &Page,
    ) -> Result<PageOf<LateHour>, BillingError> {
        let source = self.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let tenant = params.bind(tenant.as_str());
        let next = hour_after(dialect, "h.hour");
        let mut condition = match range {
            Some(range) => {
                let (from, to) = (dialect.time(range.start().hour()), dialect.time(range.end()));
                let (from, to) = (params.bind(from), params.bind(to));
                format!("h.tenant_id = {tenant} AND h.hour >= {from} AND h.hour < {to}")
            }
            None => format!(
                "h.tenant_id = {tenant} AND NOT EXISTS (SELECT 1 FROM billing_periods AS b WHERE b.tenant_id = {tenant} \
                     AND b.ends_at >= {next} AND b.closed_at > h.changed_at)"
            ),
        };
        if let Some(cursor) = &page.cursor {
            let [hour] = cursor.keys().map_err(bad_cursor)?;
            let hour: Timestamp = hour.parse().map_err(|_| bad_cursor(crate::CursorError))?;
            condition.push_str(&format!(" AND h.hour > {}", params.bind(dialect.time(hour))));
        }
        let limit = params.bind(page.rows());
        // An hour that a boundary cuts belongs to the earlier period first, and what comes before the first one, after it
        // was closed, to that.
        let sql = format!(
            "SELECT h.hour, h.changes, h.changed_at, \
                 (SELECT MIN(p.number) FROM billing_periods AS p WHERE p.tenant_id = {tenant} \
                     AND p.ends_at > h.hour AND (p.starts_at < {next} \
                         OR (p.number = 1 AND p.closed_at <= h.changed_at))) AS period_number \
             FROM usage_late_hours AS h WHERE h.changes > 0 AND {condition} ORDER BY h.hour LIMIT {limit}",
        );
        let rows = source.query(&sql, params).await?;
        let rows = rows.iter().map(|row| {
            Ok(LateHour {
                hour: dialect.read_time(row, "hour")?,
                changes: read(row, "changes")?,
                changed_at: dialect.read_time(row, "changed_at")?,
                period_number: read(row, "period_number")?,
            })
        });
        let rows = rows.collect::<Result<Vec<_>, BillingError>>()?;
        Ok(PageOf::cut(rows, page.limit, |row| Cursor::after([row.hour.to_string()])))
    }
}

pub(crate) fn hour_after(dialect: goldleaves_store::Dialect, column: &str) -> String {
    match dialect {
        goldleaves_store::Dialect::Postgres => format!("{column} + interval '1 hour'"),
        goldleaves_store::Dialect::Sqlite => format!("strftime('%Y-%m-%dT%H:00:00.000000Z', {column}, '+1 hour')"),
    }
}
