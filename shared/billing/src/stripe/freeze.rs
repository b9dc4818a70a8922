//! The fields of a row that are written down once, before anything is sent: customer, name, value, minute and
//! identifier.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use uuid::Uuid;

use super::books::State;
use super::lanes::LaneKey;
use super::mappings::{self, Mappings};
use super::meters::StoredMeter;
use super::rules::{self, RowName, minutes_for, step, value_of};
use super::seal::{Pair, pair_rows};
use crate::{BillingError, PeriodState};

/// A row that is to be made, or that waited for a customer.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) id: Uuid,
    pub(super) tenant: String,
    pub(super) hour: Timestamp,
    pub(super) revision: i64,
    pub(super) units_micro: i128,
    pub(super) frozen: Option<Frozen>,
}

/// The fields that are never changed again.
#[derive(Debug, Clone)]
pub(super) struct Frozen {
    pub(super) lane: LaneKey,
    pub(super) value: i128,
    /// Nothing is sent of a value of 0.
    pub(super) minute: Option<Timestamp>,
    pub(super) identifier: String,
}

/// In what a row is frozen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freezing<'a> {
    pub(super) meter: &'a StoredMeter,
    pub(super) state: State,
    pub(super) now: Timestamp,
}

pub(super) fn identifier(generation: Uuid, meter: &str, draft: &Draft) -> String {
    let Draft { tenant, hour, revision, .. } = draft;
    rules::identifier(generation, &RowName { tenant, meter, hour: *hour, revision: *revision })
}

/// The minutes of lanes that rows have.
#[derive(Debug, Default)]
struct Minutes(BTreeSet<(LaneKey, i64)>);

impl Minutes {
    /// The first free one among these, which is taken then.
    fn take(&mut self, lane: &LaneKey, candidates: impl Iterator<Item = i64>) -> Option<Timestamp> {
        for micros in candidates {
            if self.0.insert((lane.clone(), micros)) {
                return Timestamp::from_unix_micros(micros).ok();
            }
        }
        None
    }
}

/// Freezes all that have a customer. Without a free minute a row stays as it is; the drafts that come back were not frozen
/// for that reason.
pub(super) async fn freeze(
    transaction: &Transaction,
    freezing: &Freezing<'_>,
    drafts: &mut [Draft],
) -> Result<BTreeSet<Uuid>, BillingError> {
    let wanted = lanes_of(transaction, freezing.meter, drafts).await?;
    let lanes: BTreeSet<&LaneKey> = wanted.iter().map(|(_, lane)| lane).collect();
    if lanes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let closed = closed_until(transaction, drafts).await?;
    let first = drafts.iter().map(|draft| draft.hour).min().unwrap_or(freezing.now);
    let mut minutes = minutes_taken(transaction, &lanes, first.min(freezing.now.hour())).await?;
    let mut carried = carried(transaction, &lanes, freezing.meter.places).await?;
    let mut without = BTreeSet::new();
    for (at, lane) in wanted {
        let Some(draft) = drafts.get_mut(at) else { continue };
        let rest = carried.entry(lane.clone()).or_default();
        let before = *rest;
        let value = value_of(rest, draft.units_micro, freezing.meter.places);
        let period = match closed.get(&draft.tenant) {
            Some((from, until)) if is_within(draft.hour, *from, *until) => PeriodState::Closed,
            _ => PeriodState::Open,
        };
        let candidates = minutes_for(draft.hour, period, freezing.now);
        let minute = if value == 0 { None } else { minutes.take(&lane, candidates) };
        if value != 0 && minute.is_none() {
            *rest = before;
            without.insert(draft.id);
            continue;
        }
        let identifier = identifier(freezing.state.generation, &freezing.meter.meter, draft);
        draft.frozen = Some(Frozen { lane, value, minute, identifier });
    }
    Ok(without)
}

/// The lanes of those that have a customer, each with the place of its draft.
pub(super) async fn lanes_of(
    transaction: &Transaction,
    meter: &StoredMeter,
    drafts: &[Draft],
) -> Result<Vec<(usize, LaneKey)>, BillingError> {
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    let mappings = Mappings::read(transaction, &meter.meter, drafts).await?;
    let gone = gone_to(transaction, &meter.meter, drafts).await?;
    let lane = |(at, draft): (usize, &Draft)| {
        // What is corrected of an hour goes where the hour went.
        let gone = gone.get(&(draft.tenant.clone(), draft.hour)).map(String::as_str);
        let customer = gone.or_else(|| mappings.customer(&draft.tenant, draft.hour))?;
        let lane = LaneKey { stripe_customer_id: customer.to_owned(), event_name: meter.event_name.clone() };
        Some((at, lane))
    };
    Ok(drafts.iter().enumerate().filter_map(lane).collect())
}

/// The customers that earlier rows of these hours went to.
async fn gone_to(
    transaction: &Transaction,
    meter: &str,
    drafts: &[Draft],
) -> Result<BTreeMap<Pair, String>, BillingError> {
    let dialect = transaction.dialect();
    let later: BTreeSet<Pair> =
        drafts.iter().filter(|draft| draft.revision > 0).map(|draft| (draft.tenant.clone(), draft.hour)).collect();
    if later.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut params = Params::default();
    let keys = pair_rows(dialect, later.iter(), &mut params);
    let meter = params.bind(meter);
    let sql = format!(
        "SELECT p.tenant_id, p.hour, p.stripe_customer_id FROM ({keys}) AS k JOIN stripe_pushes AS p \
         ON p.tenant_id = k.tenant_id AND p.meter = {meter} AND p.hour = k.hour \
         WHERE p.stripe_customer_id IS NOT NULL ORDER BY p.revision DESC"
    );
    let mut gone = BTreeMap::new();
    for row in transaction.query(&sql, params).await? {
        // The first row comes last, and stays.
        gone.insert((read(&row, "tenant_id")?, dialect.read_time(&row, "hour")?), read(&row, "stripe_customer_id")?);
    }
    Ok(gone)
}

fn is_within(hour: Timestamp, from: Timestamp, until: Timestamp) -> bool {
    let end = hour.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(hour);
    hour < until && end > from
}

/// From when to when a tenant's periods are closed: they follow each other without a gap.
async fn closed_until(
    transaction: &Transaction,
    drafts: &[Draft],
) -> Result<BTreeMap<String, (Timestamp, Timestamp)>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let tenants = mappings::tenants(dialect, drafts, &mut params);
    let sql = format!(
        "SELECT p.tenant_id, MIN(p.starts_at) AS starts_at, MAX(p.ends_at) AS ends_at FROM billing_periods AS p \
         JOIN ({tenants}) AS t ON t.tenant_id = p.tenant_id GROUP BY p.tenant_id"
    );
    let rows = transaction.query(&sql, params).await?;
    rows.iter()
        .map(|row| {
            let ends = (dialect.read_time(row, "starts_at")?, dialect.read_time(row, "ends_at")?);
            Ok((read(row, "tenant_id")?, ends))
        })
        .collect()
}

fn lane_rows(dialect: Dialect, lanes: &BTreeSet<&LaneKey>, params: &mut Params) -> String {
    Rows::new(dialect)
        .column("stripe_customer_id", lanes.iter().map(|lane| lane.stripe_customer_id.as_str()))
        .column("event_name", lanes.iter().map(|lane| lane.event_name.as_str()))
        .query(params)
}

async fn minutes_taken(
    transaction: &Transaction,
    lanes: &BTreeSet<&LaneKey>,
    from: Timestamp,
) -> Result<Minutes, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let lanes = lane_rows(dialect, lanes, &mut params);
    let from = from.plus_micros(-Timestamp::HOUR_MICROS).unwrap_or(from);
    let from = params.bind(dialect.time(from));
    let sql = format!(
        "SELECT p.stripe_customer_id, p.event_name, p.event_timestamp FROM ({lanes}) AS l JOIN stripe_pushes AS p \
         ON p.stripe_customer_id = l.stripe_customer_id AND p.event_name = l.event_name AND p.event_timestamp >= {from}"
    );
    let mut minutes = Minutes::default();
    for row in transaction.query(&sql, params).await? {
        let lane =
            LaneKey { stripe_customer_id: read(&row, "stripe_customer_id")?, event_name: read(&row, "event_name")? };
        minutes.0.insert((lane, dialect.read_time(&row, "event_timestamp")?.unix_micros()));
    }
    Ok(minutes)
}

/// Returns the units of earlier rows that are in no value yet. A meter of six places leaves nothing over.
async fn carried(
    transaction: &Transaction,
    lanes: &BTreeSet<&LaneKey>,
    places: i16,
) -> Result<BTreeMap<LaneKey, i128>, BillingError> {
    let mut carried: BTreeMap<LaneKey, i128> = BTreeMap::new();
    if places != 0 {
        return Ok(carried);
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let lanes = lane_rows(dialect, lanes, &mut params);
    let (rest, group) = match dialect {
        Dialect::Postgres => (
            "SUM(p.units_micro - p.value::numeric * 1000000)::text AS rest, '0' AS value",
            "GROUP BY p.stripe_customer_id, p.event_name",
        ),
        Dialect::Sqlite => ("p.units_micro AS rest, p.value AS value", ""),
    };
    let sql = format!(
        "SELECT p.stripe_customer_id, p.event_name, {rest} FROM ({lanes}) AS l JOIN stripe_pushes AS p \
         ON p.stripe_customer_id = l.stripe_customer_id AND p.event_name = l.event_name \
         WHERE p.value IS NOT NULL AND p.state <> 'abandoned' {group}"
    );
    for row in transaction.query(&sql, params).await? {
        let lane =
            LaneKey { stripe_customer_id: read(&row, "stripe_customer_id")?, event_name: read(&row, "event_name")? };
        let (rest, value) = (wide(&row, "rest")?, wide(&row, "value")?);
        *carried.entry(lane).or_default() += rest - value * step(places);
    }
    Ok(carried)
}

/// A number of any size that is text in the row.
pub(super) fn wide(row: &sea_orm::QueryResult, column: &str) -> Result<i128, BillingError> {
    let text: String = read(row, column)?;
    // PostgreSQL writes the scale of a product.
    let whole = text.split_once('.').map_or(text.as_str(), |(whole, _)| whole);
    whole.parse().map_err(|error| BillingError::unreadable(column, error))
}
