//! How far an hour has come on its way to Stripe, meter by meter.

use std::collections::BTreeMap;

use goldleaves_domain::{TenantId, Timestamp};
use goldleaves_store::{Params, read, read_wide};

use crate::source::{Source, wide};
use crate::stripe::METER;
use crate::{Billing, BillingError};

/// The point that an hour has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HourState {
    /// No customer, or no row yet.
    Unmapped,
    /// To be sent, or sent with an unknown outcome.
    Pending,
    /// May or may not be there.
    Held,
    /// Needs a person.
    Failed,
    /// Some of it is there.
    Partly,
    /// All of it is there, and was read back.
    WithStripe,
}

impl HourState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Partly => "partly",
            Self::WithStripe => "with_stripe",
        }
    }
}

/// The state of an hour for one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterState {
    /// The meter.
    pub meter: String,
    /// The hour.
    pub hour: Timestamp,
    /// The point that it has reached.
    pub state: HourState,
    /// The newest revision.
    pub through_revision: Option<i32>,
    /// When the last of its rows was taken.
    pub pushed_at: Option<Timestamp>,
    /// When the last of its rows was read back.
    pub confirmed_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Rows {
    states: Vec<String>,
    units_micro: i128,
    is_confirmed: bool,
    revision: Option<i32>,
    pushed_at: Option<Timestamp>,
    confirmed_at: Option<Timestamp>,
}

impl Rows {
    fn state(&self, used_micro: i128) -> HourState {
        let has = |state: &str| self.states.iter().any(|other| other == state);
        if has("failed") {
            HourState::Failed
        } else if has("held") {
            HourState::Held
        } else if has("pending") {
            HourState::Pending
        } else if has("unmapped") || self.states.is_empty() {
            HourState::Unmapped
        } else if self.is_confirmed && self.units_micro == used_micro {
            HourState::WithStripe
        } else {
            HourState::Partly
        }
    }
}

impl Billing {
    pub(crate) async fn meter_states(
        &self,
        source: Source<'_>,
        tenant: &TenantId,
        hour: Timestamp,
    ) -> Result<Vec<MeterState>, BillingError> {
        let used = used_by_route(source, tenant, hour).await?;
        let meters = meters(source).await?;
        let mut rows = pushes(source, tenant, hour, &meters).await?;
        // The meter that there always is.
        rows.entry(METER.to_owned()).or_default();
        let states = rows.into_iter().map(|(meter, rows)| {
            let route = meters.get(&meter).map_or("", String::as_str);
            let used_micro =
                used.iter().filter(|(used, _)| route.is_empty() || used == route).map(|(_, units)| units).sum();
            MeterState {
                hour,
                state: rows.state(used_micro),
                through_revision: rows.revision,
                pushed_at: rows.pushed_at,
                confirmed_at: rows.confirmed_at,
                meter,
            }
        });
        Ok(states.collect())
    }
}

async fn meters(source: Source<'_>) -> Result<BTreeMap<String, String>, BillingError> {
    let rows = source.query("SELECT meter, route FROM stripe_meters", Params::default()).await?;
    rows.iter().map(|row| Ok((read(row, "meter")?, read(row, "route")?))).collect()
}

async fn pushes(
    source: Source<'_>,
    tenant: &TenantId,
    hour: Timestamp,
    meters: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Rows>, BillingError> {
    let dialect = source.dialect();
    let mut params = Params::default();
    let (tenant, hour) = (params.bind(tenant.as_str()), params.bind(dialect.time(hour)));
    // By name: the index goes by tenant, meter and hour, and a tenant has as many rows as hours.
    let names = meters.keys().map(String::as_str).chain([METER]);
    let names: Vec<String> = names.map(|name| params.bind(name)).collect();
    let sql = format!(
        "SELECT meter, revision, state, CAST(units_micro AS text) AS units_micro, pushed_at, confirmed_at, \
             CASE WHEN pushed_at IS NULL THEN 0 ELSE 1 END AS has_pushed, \
             CASE WHEN confirmed_at IS NULL THEN 0 ELSE 1 END AS has_confirmed \
         FROM stripe_pushes WHERE tenant_id = {tenant} AND meter IN ({names}) AND hour = {hour} ORDER BY meter, revision",
        names = names.join(", ")
    );
    let mut meters: BTreeMap<String, Rows> = BTreeMap::new();
    for row in source.query(&sql, params).await? {
        let is_new = !meters.contains_key(&read::<String>(&row, "meter")?);
        let rows = meters.entry(read(&row, "meter")?).or_default();
        rows.is_confirmed |= is_new;
        rows.revision = Some(read(&row, "revision")?);
        let state: String = read(&row, "state")?;
        if state == "abandoned" {
            continue;
        }
        let units: String = read(&row, "units_micro")?;
        rows.units_micro += units.parse::<i128>().map_err(|error| BillingError::unreadable("units_micro", error))?;
        rows.states.push(state);
        if read::<i32>(&row, "has_pushed")? == 1 {
            rows.pushed_at = rows.pushed_at.max(Some(dialect.read_time(&row, "pushed_at")?));
        }
        if read::<i32>(&row, "has_confirmed")? == 1 {
            rows.confirmed_at = rows.confirmed_at.max(Some(dialect.read_time(&row, "confirmed_at")?));
        } else {
            rows.is_confirmed = false;
        }
    }
    Ok(meters)
}

/// Returns what an hour counts, net of corrections.
async fn used_by_route(
    source: Source<'_>,
    tenant: &TenantId,
    hour: Timestamp,
) -> Result<Vec<(String, i128)>, BillingError> {
    let dialect = source.dialect();
    let until = hour.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(hour);
    let mut params = Params::default();
    let tenant = params.bind(tenant.as_str());
    let (from, until) = (params.bind(dialect.time(hour)), params.bind(dialect.time(until)));
    let sql = format!(
        "SELECT route, {sums} FROM ( \
             SELECT r.route, {rolled} FROM usage_rollups AS r WHERE r.tenant_id = {tenant} AND r.hour = {from} \
             UNION ALL SELECT c.route, {corrected} FROM usage_corrections AS c WHERE c.tenant_id = {tenant} \
                 AND c.ts >= {from} AND c.ts < {until} AND c.kind <> 'amount' \
         ) AS u GROUP BY route",
        sums = wide::sums(dialect),
        rolled = wide::of_rollup(dialect, "r"),
        corrected = wide::of_row(dialect, "c.units_micro"),
    );
    let rows = source.query(&sql, params).await?;
    rows.iter().map(|row| Ok((read(row, "route")?, read_wide(dialect, row, "units_micro")?))).collect()
}
