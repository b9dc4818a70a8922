//! The rows for Stripe: one per tenant, meter and hour, and for what comes later a further revision with the
//! difference. A row is never changed but by the pusher.

use std::collections::BTreeMap;
use std::str::FromStr;

use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_store::{Dialect, Params, Rows, Transaction, read, read_wide};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::record::lock_reports;
use crate::report::UnitsTotal;
use crate::{Ledger, LedgerError};

/// The one meter there is: units.
pub const METER: &str = "goldleaves_units";
/// How long after its end an hour is still waited for.
const SETTLE_MICROS: i64 = 300_000_000;

/// How far a report has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushState {
    /// The tenant has no Stripe customer: held and visible.
    Unmapped,
    /// Not all of it has been sent yet.
    Pending,
    /// Everything has been sent.
    Pushed,
    /// Something will not be sent without help.
    Failed,
}

impl PushState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unmapped, Self::Pending, Self::Pushed, Self::Failed];

    /// The word in `stripe_pushes.state` and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::Pending => "pending",
            Self::Pushed => "pushed",
            Self::Failed => "failed",
        }
    }
}

/// A word that is no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not one of the states unmapped, pending, pushed, failed")]
pub struct PushStateError;

impl FromStr for PushState {
    type Err = PushStateError;

    fn from_str(text: &str) -> Result<Self, PushStateError> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(PushStateError)
    }
}

/// The result of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePush {
    /// The same for the same tenant and period.
    pub report_id: Uuid,
    /// Whose usage.
    pub tenant_id: TenantId,
    /// When.
    pub period: Period,
    /// Units of the period's settled hours.
    pub reported: UnitsTotal,
    /// The part of these that Stripe has.
    pub pushed: UnitsTotal,
    /// The state of the whole.
    pub state: PushState,
}

impl Ledger {
    /// Makes the missing rows for the hours that lie wholly in the period and ended five minutes before `now` or
    /// earlier, and says what they come to. Calling again makes nothing twice.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn report_usage(
        &self,
        tenant: &TenantId,
        period: &Period,
        now: Timestamp,
    ) -> Result<UsagePush, LedgerError> {
        let hours = settled_hours(period, now);
        self.write(async |transaction| {
            let mut rows = BTreeMap::new();
            if let Some(hours) = hours {
                lock_reports(transaction).await?;
                rows = read_rows(transaction, tenant, hours).await?;
                let new = missing(read_hours(transaction, tenant, hours).await?, &rows);
                if !new.is_empty() {
                    insert(transaction, tenant, &new).await?;
                    rows = read_rows(transaction, tenant, hours).await?;
                }
            }
            Ok(sum_up(tenant, period, rows))
        })
        .await
    }
}

type Hours = (Timestamp, Timestamp);

/// From which hour to which; `None` when there is none.
fn settled_hours(period: &Period, now: Timestamp) -> Option<Hours> {
    let start = period.start();
    let first = if start.hour() == start { start } else { start.hour().plus_micros(Timestamp::HOUR_MICROS)? };
    let last = period.end().min(now.plus_micros(-SETTLE_MICROS)?).hour();
    (first < last).then_some((first, last))
}

/// The rows of an hour: how many revisions there are, and what they say in each state.
#[derive(Debug, Default)]
struct HourRows {
    revisions: i64,
    units_micro: i128,
    by_state: Vec<(PushState, i128)>,
}

/// A row to be made.
#[derive(Debug)]
struct NewRow {
    hour: Timestamp,
    revision: i64,
    units_micro: i128,
}

async fn read_hours(
    transaction: &Transaction,
    tenant: &TenantId,
    hours: Hours,
) -> Result<Vec<(Timestamp, i128)>, LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let sums = match dialect {
        Dialect::Postgres => "SUM(units_micro)::text AS units_micro",
        Dialect::Sqlite => "SUM(units_micro_high) AS units_micro_high, SUM(units_micro_low) AS units_micro_low",
    };
    let tenant = params.bind(tenant.as_str());
    let (from, to) = (params.bind(dialect.time(hours.0)), params.bind(dialect.time(hours.1)));
    let sql = format!(
        "SELECT hour, {sums} FROM usage_rollups WHERE tenant_id = {tenant} AND hour >= {from} AND hour < {to} \
         GROUP BY hour ORDER BY hour"
    );
    let rows = transaction.query(&sql, params).await?;
    rows.iter().map(|row| Ok((dialect.read_time(row, "hour")?, read_wide(dialect, row, "units_micro")?))).collect()
}

async fn read_rows(
    transaction: &Transaction,
    tenant: &TenantId,
    hours: Hours,
) -> Result<BTreeMap<Timestamp, HourRows>, LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (tenant, meter) = (params.bind(tenant.as_str()), params.bind(METER));
    let (from, to) = (params.bind(dialect.time(hours.0)), params.bind(dialect.time(hours.1)));
    let sql = format!(
        "SELECT hour, state, CAST(units_micro AS text) AS units_micro FROM stripe_pushes \
         WHERE tenant_id = {tenant} AND meter = {meter} AND hour >= {from} AND hour < {to}"
    );
    let mut rows: BTreeMap<Timestamp, HourRows> = BTreeMap::new();
    for row in transaction.query(&sql, params).await? {
        let unreadable = |error: &dyn std::fmt::Display| LedgerError::unreadable("stripe_pushes", error);
        let units: i128 = read::<String>(&row, "units_micro")?.parse().map_err(|error| unreadable(&error))?;
        let state: PushState = read::<String>(&row, "state")?.parse().map_err(|error| unreadable(&error))?;
        let hour = rows.entry(dialect.read_time(&row, "hour")?).or_default();
        hour.revisions += 1;
        hour.units_micro += units;
        hour.by_state.push((state, units));
    }
    Ok(rows)
}

/// The difference between what was used and what the rows say, for hours where there is one.
fn missing(used: Vec<(Timestamp, i128)>, rows: &BTreeMap<Timestamp, HourRows>) -> Vec<NewRow> {
    let none = HourRows::default();
    used.into_iter()
        .filter_map(|(hour, units_micro)| {
            let there = rows.get(&hour).unwrap_or(&none);
            let units_micro = units_micro - there.units_micro;
            (units_micro != 0).then_some(NewRow { hour, revision: there.revisions, units_micro })
        })
        .collect()
}

async fn insert(transaction: &Transaction, tenant: &TenantId, rows: &[NewRow]) -> Result<(), LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let source = Rows::new(dialect)
        .column("id", rows.iter().map(|_| Uuid::now_v7()))
        .column("hour", rows.iter().map(|row| row.hour))
        .column("revision", rows.iter().map(|row| row.revision))
        .column("units_micro", rows.iter().map(|row| row.units_micro.to_string()))
        .query(&mut params);
    let (tenant, meter) = (params.bind(tenant.as_str()), params.bind(METER));
    let units = if dialect == Dialect::Postgres { "r.units_micro::numeric" } else { "r.units_micro" };
    let sql = format!(
        "INSERT INTO stripe_pushes (id, tenant_id, meter, hour, revision, units_micro, state) \
         SELECT r.id, {tenant}, {meter}, r.hour, r.revision, {units}, 'unmapped' FROM ({source}) AS r ORDER BY r.n"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

fn sum_up(tenant: &TenantId, period: &Period, rows: BTreeMap<Timestamp, HourRows>) -> UsagePush {
    let parts = || rows.values().flat_map(|row| row.by_state.iter());
    let has = |state| parts().any(|part| part.0 == state);
    let state = if has(PushState::Failed) {
        PushState::Failed
    } else if has(PushState::Pending) {
        PushState::Pending
    } else if has(PushState::Unmapped) || rows.is_empty() {
        PushState::Unmapped
    } else {
        PushState::Pushed
    };
    UsagePush {
        report_id: report_id(tenant, period),
        tenant_id: tenant.clone(),
        period: *period,
        reported: UnitsTotal(parts().map(|part| part.1).sum()),
        pushed: UnitsTotal(parts().filter(|part| part.0 == PushState::Pushed).map(|part| part.1).sum()),
        state,
    }
}

/// A UUIDv8 from what the report is about, so that the same request names the same report.
fn report_id(tenant: &TenantId, period: &Period) -> Uuid {
    let name = format!("{} {} {}", period.start(), period.end(), tenant.as_str());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(Sha256::digest(name.as_bytes())).for_each(|(byte, digit)| *byte = digit);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
