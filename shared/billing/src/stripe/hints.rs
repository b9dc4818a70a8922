//! Webhooks: each is worked off once, and starts nothing but readings.

use goldleaves_domain::Timestamp;
use goldleaves_store::{Params, read};

use super::books::Books;
use crate::BillingError;

/// The time for which the id of a webhook is kept.
const KEPT: i64 = 40 * Timestamp::DAY_MICROS;
/// The most that are worked off at once.
const HINTS_AT_ONCE: i64 = 20;

/// A webhook whose signature was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHint {
    /// The event's id.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// The identifier of the thing that it is about.
    pub related_id: Option<String>,
}

impl Books {
    /// Keeps a webhook's id; whether it is new.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn hint(&self, hint: &StoredHint) -> Result<bool, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let dialect = transaction.dialect();
                let now = self.now_in(transaction).await?;
                let mut params = Params::default();
                let values = [
                    params.bind(hint.id.as_str()),
                    params.bind(hint.kind.as_str()),
                    params.bind(hint.related_id.clone()),
                    params.bind(dialect.time(now)),
                ];
                let sql = format!(
                    "INSERT INTO stripe_events (id, type, related_id, received_at) VALUES ({}) \
                     ON CONFLICT (id) DO NOTHING",
                    values.join(", ")
                );
                Ok(transaction.execute(&sql, params).await?.rows_affected() > 0)
            })
            .await
    }

    /// Webhooks that were not worked off yet, the oldest first. Ids that are old enough go.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn open_hints(&self) -> Result<Vec<StoredHint>, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                let mut params = Params::default();
                let before = now.plus_micros(-KEPT).unwrap_or(now);
                let before = params.bind(transaction.dialect().time(before));
                transaction.execute(&format!("DELETE FROM stripe_events WHERE received_at < {before}"), params).await?;
                let mut params = Params::default();
                let limit = params.bind(HINTS_AT_ONCE);
                let sql = format!(
                    "SELECT id, type, related_id FROM stripe_events WHERE processed_at IS NULL \
                     ORDER BY received_at, id LIMIT {limit}"
                );
                let rows = transaction.query(&sql, params).await?;
                let hint = |row| {
                    Ok(StoredHint {
                        id: read(row, "id")?,
                        kind: read(row, "type")?,
                        related_id: read(row, "related_id")?,
                    })
                };
                rows.iter().map(hint).collect()
            })
            .await
    }

    /// Notes that a webhook was worked off.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn hint_done(&self, id: &str) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                let mut params = Params::default();
                let (now, id) = (params.bind(transaction.dialect().time(now)), params.bind(id));
                let sql = format!("UPDATE stripe_events SET processed_at = {now} WHERE id = {id}");
                transaction.execute(&sql, params).await?;
                Ok(())
            })
            .await
    }

    /// Has every row of a meter that Stripe took or may have, and that is not confirmed, read now: also one that was sent just
    /// now, whose turn would come later.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn read_all_of(&self, stripe_meter_id: &str) -> Result<u64, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let dialect = transaction.dialect();
                let now = self.now_in(transaction).await?;
                let mut params = Params::default();
                let (now, id) = (params.bind(dialect.time(now)), params.bind(stripe_meter_id));
                let sql = format!(
                    "UPDATE stripe_pushes SET next_attempt_at = {now} \
                     WHERE state IN ('pushed', 'held') AND confirmed_at IS NULL AND event_timestamp IS NOT NULL \
                     AND meter IN (SELECT meter FROM stripe_meters WHERE stripe_meter_id = {id})"
                );
                Ok(transaction.execute(&sql, params).await?.rows_affected())
            })
            .await
    }

    /// Writes what Stripe said of an event to the rows whose identifier is, or begins, this key.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn note(&self, key: &str, error: &str) -> Result<(), BillingError> {
        let identifier = key.split('.').next().unwrap_or(key);
        self.billing
            .store()
            .write(async |transaction| {
                let mut params = Params::default();
                let error: String = error.chars().take(1_000).collect();
                let (error, identifier) = (params.bind(error), params.bind(identifier));
                let sql = format!(
                    "UPDATE stripe_pushes SET last_error = {error} \
                     WHERE identifier = {identifier} AND confirmed_at IS NULL"
                );
                transaction.execute(&sql, params).await?;
                Ok(())
            })
            .await
    }

    /// Has meters read again before the next event is sent: one, or all.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn uncheck(&self, stripe_meter_id: Option<&str>) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let mut params = Params::default();
                let condition = match stripe_meter_id {
                    Some(id) => format!("stripe_meter_id = {}", params.bind(id)),
                    None => "true".to_owned(),
                };
                let sql = format!("UPDATE stripe_meters SET checked_at = NULL WHERE {condition}");
                transaction.execute(&sql, params).await?;
                Ok(())
            })
            .await
    }
}
