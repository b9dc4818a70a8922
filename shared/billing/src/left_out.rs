//! The usage that lay before a tenant's first period when that was closed: left out knowingly, and kept in mind, so that only what
//! comes later is billed as late.
//!
//! It is kept as lines that stand on no invoice: their number is 0. A ledger whose first periods were closed by a program that
//! did not keep it gets it when this one first looks.

use goldleaves_domain::{TenantId, Timestamp};
use goldleaves_store::{Params, Transaction, read};
use uuid::Uuid;

use crate::lines::{self, InvoiceLine, LineKind};
use crate::source::Source;
use crate::{Billing, BillingError, late, locks};

impl Billing {
    /// Keeps in mind what lies before the first periods of tenants of which that is not known. Returns their number.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn note_left_out(&self) -> Result<u64, BillingError> {
        const UNKNOWN: &str = "SELECT p.tenant_id, p.starts_at FROM billing_periods AS p WHERE p.number = 1 AND NOT EXISTS ( \
             SELECT 1 FROM billing_lines AS l WHERE l.tenant_id = p.tenant_id AND l.number = 0) ORDER BY p.tenant_id";
        let (source, mut noted) = (self.source(), 0);
        for row in source.query(UNKNOWN, Params::default()).await? {
            let (tenant, start): (String, _) =
                (read(&row, "tenant_id")?, source.dialect().read_time(&row, "starts_at")?);
            self.store()
                .write(async |transaction| {
                    locks::bills(transaction).await?;
                    if_unknown(transaction, &tenant, start).await
                })
                .await?;
            noted += 1;
        }
        Ok(noted)
    }
}

/// Keeps in mind what lies before the first period, which is closed, where nobody did. Amounts are not among it: they are billed
/// wherever they lie.
pub(crate) async fn if_unknown(transaction: &Transaction, tenant: &str, start: Timestamp) -> Result<(), BillingError> {
    if lines::knows_left_out(Source::Transaction(transaction), tenant).await? {
        return Ok(());
    }
    if note(transaction, tenant, start).await? {
        // No close would look for them: their hours changed before the last one.
        let before = start.plus_micros(-1).unwrap_or(start);
        late::mark(transaction, tenant, before.hour()).await?;
    }
    Ok(())
}

/// Keeps in mind what lies before the first period. Returns whether amounts do, too.
pub(crate) async fn note(transaction: &Transaction, tenant: &str, start: Timestamp) -> Result<bool, BillingError> {
    let mut before = lines::before_first(Source::Transaction(transaction), tenant, start).await?;
    let all = before.len();
    before.retain(|line| line.kind != LineKind::Amount);
    let has_amounts = before.len() < all;
    if before.is_empty() {
        before.push(InvoiceLine::nothing(lines::FIRST));
    }
    lines::freeze(transaction, tenant, lines::NO_INVOICE, &before).await?;
    Ok(has_amounts)
}

/// Returns whether an event lay before its tenant's first period when that was closed: it is on no invoice.
pub(crate) async fn is_left_out(
    transaction: &Transaction,
    tenant: &TenantId,
    event: Uuid,
) -> Result<bool, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (tenant, event) = (params.bind(tenant.as_str()), params.bind(dialect.uuid(event)));
    let sql = format!(
        "SELECT e.id FROM usage_events AS e JOIN billing_periods AS p ON p.tenant_id = e.tenant_id AND p.number = {FIRST} \
         WHERE e.id = {event} AND e.tenant_id = {tenant} AND e.ts < p.starts_at AND e.created_at < p.closed_at",
        FIRST = lines::FIRST
    );
    Ok(!transaction.query(&sql, params).await?.is_empty())
}
