//! Reports to Stripe: what a tenant's settled hours of a meter come to, and how much of that is there.

use std::collections::BTreeMap;

use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_store::{Params, read_wide};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::books::Books;
use super::meters::{METER, StoredMeter};
use super::rows::by_state;
use super::rules::{Made, RowState, lacking};
use super::seal::{hour_of, meter_or_default};
use crate::source::{Source, wide};
use crate::usage::UnitsTotal;
use crate::{BillingError, RefusalCode, locks};

/// The time after its end for which an hour is still waited for.
const SETTLE_MICROS: i64 = 300_000_000;
/// Usage of so long ago can still come.
const LOOK_BACK: i64 = 40 * Timestamp::DAY_MICROS;

/// The point that a report has reached.
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

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::Pending => "pending",
            Self::Pushed => "pushed",
            Self::Failed => "failed",
        }
    }
}

/// The tenant, meter and range that are reported.
#[derive(Debug, Clone, Copy)]
pub struct ReportOf<'a> {
    /// The tenant whose usage it is.
    pub tenant: &'a TenantId,
    /// The name of the meter.
    pub meter: &'a str,
    /// When.
    pub period: &'a Period,
}

/// The outcome of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePush {
    /// The same for the same tenant, period and meter.
    pub report_id: Uuid,
    /// The tenant whose usage it is.
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

pub(super) type Hours = (Timestamp, Timestamp);
type Rows = Vec<(Timestamp, RowState, i128)>;

impl Books {
    /// Makes the missing rows for the hours that lie wholly in the period and ended five minutes before `now` or
    /// earlier, and says what they come to. Calling again makes nothing twice. By the database's clock they are over, too: a
    /// program whose clock is ahead makes no rows of an hour that goes on.
    ///
    /// # Errors
    /// There is no such meter, or a database that is away or refuses.
    pub async fn report_usage(&self, of: &ReportOf<'_>, now: Timestamp) -> Result<UsagePush, BillingError> {
        self.billing()
            .store()
            .write(async |transaction| {
                let source = Source::Transaction(transaction);
                locks::reports(transaction).await?;
                let hours = settled_hours(of.period, now.min(self.now_in(transaction).await?));
                let meter = known(source, of.meter).await?;
                let Some(hours) = hours else { return Ok(sum_up(of, &meter, BTreeMap::new(), Vec::new())) };
                let used = read_hours(source, of.tenant, &meter, hours).await?;
                let rows = by_state(source, of.tenant, of.meter, hours).await?;
                if !missing(&used, &rows).is_empty() {
                    let touched = used.keys().copied().chain(rows.iter().map(|(hour, _, _)| *hour));
                    let pairs = touched.map(|hour| {
                        let units = used.get(&hour).copied().unwrap_or_default();
                        ((of.tenant.as_str().to_owned(), hour), units)
                    });
                    self.make(transaction, &meter, pairs.collect()).await?;
                }
                let rows = by_state(source, of.tenant, of.meter, hours).await?;
                Ok(sum_up(of, &meter, used, rows))
            })
            .await
    }

    /// The same without making rows.
    ///
    /// # Errors
    /// There is no such meter, or a database that is away or refuses.
    pub async fn report(&self, of: &ReportOf<'_>, now: Timestamp) -> Result<UsagePush, BillingError> {
        let source = self.billing().source();
        let meter = known(source, of.meter).await?;
        let Some(hours) = settled_hours(of.period, now.min(self.moment(source).await?)) else {
            return Ok(sum_up(of, &meter, BTreeMap::new(), Vec::new()));
        };
        // The rows first: what is read of usage afterwards is at least what they were made of.
        let rows = by_state(source, of.tenant, of.meter, hours).await?;
        let used = read_hours(source, of.tenant, &meter, hours).await?;
        Ok(sum_up(of, &meter, used, rows))
    }
}

async fn known(source: Source<'_>, name: &str) -> Result<StoredMeter, BillingError> {
    match meter_or_default(source, name).await? {
        Some(meter) => Ok(meter),
        None => BillingError::refused(RefusalCode::NotFound, format!("there is no meter {name:?}")),
    }
}

/// The settled hours since one of them, as far back as late usage is looked for; `None` when there are none.
pub(super) fn settled_since(from: Timestamp, now: Timestamp) -> Option<Hours> {
    let until = now.plus_micros(-SETTLE_MICROS)?.hour();
    let first = from.max(until.plus_micros(-LOOK_BACK)?);
    (first < until).then_some((first, until))
}

/// From which hour to which; `None` when there is none.
fn settled_hours(period: &Period, now: Timestamp) -> Option<Hours> {
    let start = period.start();
    let first = if start.hour() == start { start } else { start.hour().plus_micros(Timestamp::HOUR_MICROS)? };
    let last = period.end().min(now.plus_micros(-SETTLE_MICROS)?).hour();
    (first < last).then_some((first, last))
}

/// The units of each hour that a meter counts, net of corrections.
pub(super) async fn read_hours(
    source: Source<'_>,
    tenant: &TenantId,
    meter: &StoredMeter,
    hours: Hours,
) -> Result<BTreeMap<Timestamp, i128>, BillingError> {
    let dialect = source.dialect();
    let mut params = Params::default();
    let tenant = params.bind(tenant.as_str());
    let (from, to) = (params.bind(dialect.time(hours.0)), params.bind(dialect.time(hours.1)));
    let route = |alias: &str, params: &mut Params| match meter.route.as_str() {
        "" => String::new(),
        route => format!(" AND {alias}.route = {}", params.bind(route)),
    };
    let (of_rollup, of_correction) = (route("r", &mut params), route("c", &mut params));
    let hour_of = hour_of(dialect, "c.ts");
    let sql = format!(
        "SELECT hour, {sums} FROM ( \
             SELECT r.hour AS hour, {rolled} FROM usage_rollups AS r \
                 WHERE r.tenant_id = {tenant} AND r.hour >= {from} AND r.hour < {to} {of_rollup} \
             UNION ALL SELECT {hour_of}, {corrected} FROM usage_corrections AS c \
                 WHERE c.tenant_id = {tenant} AND c.ts >= {from} AND c.ts < {to} AND c.kind <> 'amount' {of_correction} \
         ) AS u GROUP BY hour ORDER BY hour",
        sums = wide::sums(dialect),
        rolled = wide::of_rollup(dialect, "r"),
        corrected = wide::of_row(dialect, "c.units_micro"),
    );
    let rows = source.query(&sql, params).await?;
    rows.iter().map(|row| Ok((dialect.read_time(row, "hour")?, read_wide(dialect, row, "units_micro")?))).collect()
}

/// The hours whose rows do not say what was used, and by how much.
fn missing(used: &BTreeMap<Timestamp, i128>, rows: &Rows) -> BTreeMap<Timestamp, i128> {
    let mut left = used.clone();
    for (hour, _, units) in rows {
        *left.entry(*hour).or_default() -= units;
    }
    left.retain(|_, units| *units != 0);
    left
}

fn sum_up(of: &ReportOf<'_>, meter: &StoredMeter, used: BTreeMap<Timestamp, i128>, rows: Rows) -> UsagePush {
    let has = |states: &[RowState]| rows.iter().any(|(_, state, _)| states.contains(state));
    let missing = missing(&used, &rows);
    let is_unsealed = !missing.is_empty();
    // No row of that can be made, until a person chooses another meter.
    let is_too_much = missing.values().any(|units| lacking(*units, Made::default(), meter.places).is_none());
    let state = if is_too_much || has(&[RowState::Failed]) {
        PushState::Failed
    } else if has(&[RowState::Pending, RowState::Held]) {
        PushState::Pending
    } else if has(&[RowState::Unmapped]) || rows.is_empty() {
        PushState::Unmapped
    } else if is_unsealed {
        PushState::Pending
    } else {
        PushState::Pushed
    };
    UsagePush {
        report_id: report_id(of),
        tenant_id: of.tenant.clone(),
        period: *of.period,
        reported: UnitsTotal(used.values().sum()),
        pushed: UnitsTotal(rows.iter().filter(|row| row.1 == RowState::Pushed).map(|row| row.2).sum()),
        state,
    }
}

/// A UUIDv8 from what the report is about, so that the same request names the same report.
fn report_id(of: &ReportOf<'_>) -> Uuid {
    let meter = if of.meter == METER { String::new() } else { format!(" {}", of.meter) };
    let name = format!("{} {} {}{meter}", of.period.start(), of.period.end(), of.tenant.as_str());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(Sha256::digest(name.as_bytes())).for_each(|(byte, digit)| *byte = digit);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
