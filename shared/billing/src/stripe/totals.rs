//! Both sides of a lane: what the ledger has, what was pushed, what Stripe has; for comparing, for the report of drift and for
//! metrics.

use std::collections::BTreeMap;

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Transaction, read};

use super::books::Books;
use super::freeze::{step, wide};
use super::lanes::{LaneKey, is_lane};
use super::meters;
use super::seal::{Pair, unsealed};
use crate::BillingError;
use crate::audit::bad_cursor;
use crate::list::{Cursor, Page, PageOf};
use crate::source::Source;
use crate::usage::UnitsTotal;

/// Late hours that are looked at for a report of drift.
const LATE_MAX: i64 = 5_000;

/// The sums of a lane's rows in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneSums {
    /// The positive values that were ever attempted and are not given up: Stripe can't have more.
    pub most: i128,
    /// The values that Stripe took.
    pub pushed: i128,
}

/// One lane in the report of drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneReport {
    /// Which lane.
    pub lane: LaneKey,
    /// The sum of the ledger's rows.
    pub ledger: UnitsTotal,
    /// The usage that changed after it was sealed, and that no row says yet.
    pub unsealed: UnitsTotal,
    /// To be sent, or sent with an unknown outcome.
    pub pending: UnitsTotal,
    /// May or may not be there.
    pub held: UnitsTotal,
    /// Needs a person.
    pub failed: UnitsTotal,
    /// Stripe took it.
    pub pushed: UnitsTotal,
    /// The sum that Stripe has; `None` before it was read.
    pub stripe: Option<UnitsTotal>,
    /// Stripe's sum less what was pushed, when both were read.
    pub drift: Option<UnitsTotal>,
    /// Why nothing is sent.
    pub blocked: Option<String>,
    /// When Stripe's side was read last.
    pub read_back_at: Option<Timestamp>,
}

/// The values of the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BooksGauges {
    /// Rows in each state.
    pub rows: BTreeMap<String, i64>,
    /// Lanes that are blocked, by reason.
    pub blocked: BTreeMap<String, i64>,
    /// When the oldest row that is not sent was made.
    pub oldest_pending: Option<Timestamp>,
    /// The sum of what lanes are apart, each taken as positive, in millionths.
    pub drift_micro: i128,
}

impl Books {
    /// Returns the sums of a lane's rows in the window `[from, to)`.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn lane_sums(
        &self,
        lane: &LaneKey,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<LaneSums, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let is_lane = is_lane("", lane, &mut params);
        let (from, to) = (params.bind(dialect.time(from)), params.bind(dialect.time(to)));
        let sql = format!(
            "SELECT state, value, CASE WHEN attempts > 0 OR origin = 'adopted' THEN 1 ELSE 0 END AS was_sent \
             FROM stripe_pushes WHERE {is_lane} AND event_timestamp >= {from} AND event_timestamp < {to} \
             AND state <> 'abandoned'"
        );
        let mut sums = LaneSums::default();
        for row in source.query(&sql, params).await? {
            let value = wide(&row, "value")?;
            if read::<i32>(&row, "was_sent")? == 1 {
                sums.most += value.max(0);
            }
            if read::<String>(&row, "state")? == "pushed" {
                sums.pushed += value;
            }
        }
        Ok(sums)
    }

    /// A page of all lanes, by customer and name.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn drift(&self, page: &Page) -> Result<PageOf<LaneReport>, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let places: BTreeMap<String, i16> =
            self.meters().await?.into_iter().map(|meter| (meter.event_name, meter.places)).collect();
        let mut params = Params::default();
        let mut condition = "true".to_owned();
        if let Some(cursor) = &page.cursor {
            let [customer, name] = cursor.keys().map_err(bad_cursor)?;
            let (customer, name) = (params.bind(customer), params.bind(name));
            condition = format!("(l.stripe_customer_id, l.event_name) > ({customer}, {name})");
        }
        let limit = params.bind(page.rows());
        let sql = format!(
            "WITH l AS (SELECT l.* FROM stripe_lanes AS l WHERE {condition} \
                 ORDER BY l.stripe_customer_id, l.event_name LIMIT {limit}) \
             SELECT l.stripe_customer_id, l.event_name, l.blocked, l.checked_at, \
                 CAST(l.stripe_value AS text) AS stripe_value, CAST(l.pushed_value AS text) AS pushed_value, \
                 s.state, s.units, s.read_back_at \
             FROM l LEFT JOIN ({sums}) AS s \
                 ON s.stripe_customer_id = l.stripe_customer_id AND s.event_name = l.event_name \
             ORDER BY l.stripe_customer_id, l.event_name",
            sums = sums_of_states(dialect),
        );
        let mut lanes: Vec<LaneReport> = Vec::new();
        for row in source.query(&sql, params).await? {
            let lane = LaneKey {
                stripe_customer_id: read(&row, "stripe_customer_id")?,
                event_name: read(&row, "event_name")?,
            };
            if lanes.last().is_none_or(|last| last.lane != lane) {
                let step = step(places.get(&lane.event_name).copied().unwrap_or(6));
                lanes.push(lane_of(dialect, &row, (lane, step))?);
            }
            if let (Some(last), Some(state)) = (lanes.last_mut(), read::<Option<String>>(&row, "state")?) {
                last.add(&state, wide(&row, "units")?);
                let read_back = dialect.read_time_or_null(&row, "read_back_at")?;
                last.read_back_at = last.read_back_at.max(read_back);
            }
        }
        self.add_unsealed(&mut lanes).await?;
        for lane in &mut lanes {
            lane.stripe = lane.drift.map(|drift| UnitsTotal(lane.pushed.0 + drift.0));
        }
        let key =
            |lane: &LaneReport| Cursor::after([lane.lane.stripe_customer_id.clone(), lane.lane.event_name.clone()]);
        Ok(PageOf::cut(lanes, page.limit, key))
    }

    /// Adds to lanes what changed after it was sealed.
    async fn add_unsealed(&self, lanes: &mut [LaneReport]) -> Result<(), BillingError> {
        let found = self
            .billing
            .store()
            .write(async |transaction| {
                let mut found: Vec<(LaneKey, i128)> = Vec::new();
                for meter in meters::all(Source::Transaction(transaction)).await? {
                    let customers = late_customers(transaction, &meter.meter).await?;
                    let pairs: Vec<Pair> = customers.keys().cloned().collect();
                    if pairs.is_empty() {
                        continue;
                    }
                    for (pair, units) in unsealed(transaction, &meter, &pairs).await? {
                        let customer = customers.get(&pair).cloned().unwrap_or_default();
                        let event_name = meter.event_name.clone();
                        found.push((LaneKey { stripe_customer_id: customer, event_name }, units));
                    }
                }
                Ok::<_, BillingError>(found)
            })
            .await?;
        for (key, units) in found {
            if let Some(lane) = lanes.iter_mut().find(|lane| lane.lane == key) {
                lane.unsealed.0 += units;
                lane.ledger.0 += units;
            }
        }
        Ok(())
    }

    /// Returns the values of the metrics.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn gauges(&self) -> Result<BooksGauges, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut gauges = BooksGauges::default();
        let sql = "SELECT state, COUNT(*) AS count FROM stripe_pushes GROUP BY state";
        for row in source.query(sql, Params::default()).await? {
            gauges.rows.insert(read(&row, "state")?, read(&row, "count")?);
        }
        let sql = "SELECT blocked, COUNT(*) AS count FROM stripe_lanes WHERE blocked IS NOT NULL GROUP BY blocked";
        for row in source.query(sql, Params::default()).await? {
            gauges.blocked.insert(read(&row, "blocked")?, read(&row, "count")?);
        }
        let sql = "SELECT MIN(frozen_at) AS frozen_at FROM stripe_pushes WHERE state = 'pending'";
        if let Some(row) = source.query(sql, Params::default()).await?.first() {
            gauges.oldest_pending = dialect.read_time_or_null(row, "frozen_at")?;
        }
        let places: BTreeMap<String, i16> =
            self.meters().await?.into_iter().map(|meter| (meter.event_name, meter.places)).collect();
        let sql = "SELECT event_name, CAST(stripe_value AS text) AS stripe_value, \
             CAST(pushed_value AS text) AS pushed_value FROM stripe_lanes WHERE stripe_value <> pushed_value";
        for row in source.query(sql, Params::default()).await? {
            let name: String = read(&row, "event_name")?;
            let apart = wide(&row, "stripe_value")? - wide(&row, "pushed_value")?;
            gauges.drift_micro += apart.abs() * step(places.get(&name).copied().unwrap_or(6));
        }
        Ok(gauges)
    }
}

/// Hours that changed after they were sealed, and the customer of each.
async fn late_customers(transaction: &Transaction, meter: &str) -> Result<BTreeMap<Pair, String>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (meter, limit) = (params.bind(meter), params.bind(LATE_MAX));
    let sql = format!(
        "SELECT h.tenant_id, h.hour, m.stripe_customer_id FROM usage_late_hours AS h JOIN stripe_mappings AS m \
             ON m.tenant_id = h.tenant_id AND m.meter = {meter} AND m.from_hour = ( \
                 SELECT MAX(x.from_hour) FROM stripe_mappings AS x WHERE x.tenant_id = h.tenant_id \
                     AND x.meter = {meter} AND x.from_hour <= h.hour) \
         WHERE h.changes <> h.sealed AND m.stripe_customer_id IS NOT NULL ORDER BY h.changed_at LIMIT {limit}"
    );
    let rows = transaction.query(&sql, params).await?;
    let customer = |row| {
        let pair = (read(row, "tenant_id")?, dialect.read_time(row, "hour")?);
        Ok((pair, read(row, "stripe_customer_id")?))
    };
    rows.iter().map(customer).collect()
}

/// The units of rows by lane and state.
fn sums_of_states(dialect: Dialect) -> String {
    let keys = "p.stripe_customer_id, p.event_name, p.state";
    let joined = "FROM l JOIN stripe_pushes AS p \
         ON p.stripe_customer_id = l.stripe_customer_id AND p.event_name = l.event_name WHERE p.state <> 'abandoned'";
    match dialect {
        Dialect::Postgres => format!(
            "SELECT {keys}, SUM(p.units_micro)::text AS units, MAX(p.read_back_at) AS read_back_at {joined} \
             GROUP BY {keys}"
        ),
        // Wide numbers are texts there, and are added up row by row.
        Dialect::Sqlite => format!("SELECT {keys}, p.units_micro AS units, p.read_back_at {joined}"),
    }
}

fn lane_of(
    dialect: Dialect,
    row: &sea_orm::QueryResult,
    (lane, step): (LaneKey, i128),
) -> Result<LaneReport, BillingError> {
    let is_read = read::<Option<String>>(row, "stripe_value")?.is_some();
    let drift = if is_read { Some(wide(row, "stripe_value")? - wide(row, "pushed_value")?) } else { None };
    let nothing = UnitsTotal(0);
    Ok(LaneReport {
        lane,
        ledger: nothing,
        unsealed: nothing,
        pending: nothing,
        held: nothing,
        failed: nothing,
        pushed: nothing,
        stripe: None,
        drift: drift.map(|drift| UnitsTotal(drift * step)),
        blocked: read(row, "blocked")?,
        read_back_at: dialect.read_time_or_null(row, "checked_at")?,
    })
}

impl LaneReport {
    fn add(&mut self, state: &str, units_micro: i128) {
        self.ledger.0 += units_micro;
        let of_state = match state {
            "pending" => &mut self.pending,
            "held" => &mut self.held,
            "failed" => &mut self.failed,
            "pushed" => &mut self.pushed,
            _ => return,
        };
        of_state.0 += units_micro;
    }
}
