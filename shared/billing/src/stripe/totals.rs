//! Both sides of a lane: what the ledger has, what was pushed, what Stripe has; for comparing, for the report of drift and for
//! metrics.

use std::collections::BTreeMap;

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, read, read_wide};

use super::books::Books;
use super::freeze::wide;
use super::lanes::{LaneKey, is_lane, lane_rows};
use super::rules::{LaneSums, MayBeThere, RowState, step};
use super::seal::SETTLE_MICROS;
use crate::BillingError;
use crate::audit::bad_cursor;
use crate::list::{Cursor, Page, PageOf};
use crate::source::wide as wide_sums;
use crate::usage::UnitsTotal;

/// The time back to which the ledger itself says what was used: as far as any report goes. Of older hours its rows say it.
const LEDGER_SAYS: i64 = 400 * Timestamp::DAY_MICROS;

/// A row that was read back, and not found.
const READ_NOT_THERE: i32 = 1;

/// One lane in the report of drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneReport {
    /// The lane.
    pub lane: LaneKey,
    /// The usage of settled hours that goes to this lane, as the ledger itself has it.
    pub ledger: UnitsTotal,
    /// The part of it that no row says.
    pub unsealed: UnitsTotal,
    /// To be sent, or sent with an unknown outcome.
    pub pending: UnitsTotal,
    /// May or may not be there.
    pub held: UnitsTotal,
    /// Needs a person.
    pub failed: UnitsTotal,
    /// Stripe took it.
    pub pushed: UnitsTotal,
    /// The sum that Stripe has, as far as was read: a row that it took counts until it was read back and not found. `None`
    /// before anything was read.
    pub stripe: Option<UnitsTotal>,
    /// Stripe's sum less what was pushed.
    pub drift: Option<UnitsTotal>,
    /// The reason nothing is sent.
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
    pub async fn lane_sums(&self, lane: &LaneKey, window: (Timestamp, Timestamp)) -> Result<LaneSums, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let is_lane = is_lane("", lane, &mut params);
        let (from, to) = (params.bind(dialect.time(window.0)), params.bind(dialect.time(window.1)));
        let sql = format!(
            "SELECT state, value, CASE WHEN attempts > 0 OR origin = 'adopted' THEN 1 ELSE 0 END AS was_sent \
             FROM stripe_pushes WHERE {is_lane} AND event_timestamp >= {from} AND event_timestamp < {to} \
             AND state <> 'abandoned'"
        );
        let mut sums = LaneSums::default();
        for row in source.query(&sql, params).await? {
            let may_be_there = if read::<i32>(&row, "was_sent")? == 1 { MayBeThere::Yes } else { MayBeThere::No };
            let state = RowState::of(&read::<String>(&row, "state")?);
            sums.add(state, wide(&row, "value")?, may_be_there);
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
        let now = self.now().await?;
        let settled = now.plus_micros(-SETTLE_MICROS).unwrap_or(now).hour();
        let since = settled.plus_micros(-LEDGER_SAYS).unwrap_or(settled);
        let places: BTreeMap<String, i16> =
            self.meters().await?.into_iter().map(|meter| (meter.event_name, meter.places)).collect();
        let mut params = Params::default();
        let mut condition = "true".to_owned();
        if let Some(cursor) = &page.cursor {
            let [customer, name] = cursor.keys().map_err(bad_cursor)?;
            let (customer, name) = (params.bind(customer), params.bind(name));
            condition = format!("(l.stripe_customer_id, l.event_name) > ({customer}, {name})");
        }
        let (limit, oldest) = (params.bind(page.rows()), params.bind(dialect.time(since)));
        let sql = format!(
            "WITH l AS (SELECT l.* FROM stripe_lanes AS l WHERE {condition} \
                 ORDER BY l.stripe_customer_id, l.event_name LIMIT {limit}) \
             SELECT l.stripe_customer_id, l.event_name, l.blocked, l.checked_at, \
                 CAST(l.stripe_value AS text) AS stripe_value, CAST(l.pushed_value AS text) AS pushed_value, \
                 s.state, s.units, s.value, s.reading, s.is_old, s.read_back_at \
             FROM l LEFT JOIN ({sums}) AS s \
                 ON s.stripe_customer_id = l.stripe_customer_id AND s.event_name = l.event_name \
             ORDER BY l.stripe_customer_id, l.event_name",
            sums = sums_of_states(dialect, &oldest),
        );
        let mut lanes: Vec<LaneReport> = Vec::new();
        for row in source.query(&sql, params).await? {
            let lane = LaneKey {
                stripe_customer_id: read(&row, "stripe_customer_id")?,
                event_name: read(&row, "event_name")?,
            };
            let step = step(places.get(&lane.event_name).copied().unwrap_or(6));
            if lanes.last().is_none_or(|last| last.lane != lane) {
                lanes.push(lane_of(dialect, &row, lane, step)?);
            }
            if let (Some(last), Some(state)) = (lanes.last_mut(), read::<Option<String>>(&row, "state")?) {
                last.add(&state, wide(&row, "units")?, read::<i32>(&row, "is_old")? == 1);
                if state == "pushed" && read::<i32>(&row, "reading")? == READ_NOT_THERE {
                    last.lacks(wide(&row, "value")? * step);
                }
                let read_back = dialect.read_time_or_null(&row, "read_back_at")?;
                last.read_back_at = last.read_back_at.max(read_back);
            }
        }
        let used = self.used_by_lanes(&lanes, since, settled).await?;
        for lane in &mut lanes {
            lane.ledger.0 += used.get(&lane.lane).copied().unwrap_or_default();
            lane.unsealed = UnitsTotal(lane.ledger.0 - lane.in_rows());
            lane.stripe = lane.drift.map(|drift| UnitsTotal(lane.pushed.0 + drift.0));
        }
        let key =
            |lane: &LaneReport| Cursor::after([lane.lane.stripe_customer_id.clone(), lane.lane.event_name.clone()]);
        Ok(PageOf::cut(lanes, page.limit, key))
    }

    /// The usage in `[from, to)` of whoever goes to these lanes, each hour where its mapping says, net of corrections.
    async fn used_by_lanes(
        &self,
        lanes: &[LaneReport],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<BTreeMap<LaneKey, i128>, BillingError> {
        if lanes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let lanes = lane_rows(dialect, lanes.iter().map(|lane| &lane.lane), &mut params);
        let (from, to) = (params.bind(dialect.time(from)), params.bind(dialect.time(to)));
        let sql = format!(
            "WITH m AS (SELECT x.tenant_id, x.meter, x.stripe_customer_id, x.from_hour, \
                 LEAD(x.from_hour) OVER (PARTITION BY x.tenant_id, x.meter ORDER BY x.from_hour) AS until_hour \
                 FROM stripe_mappings AS x), \
             k AS (SELECT l.stripe_customer_id, l.event_name, s.route, m.tenant_id, m.from_hour, m.until_hour \
                 FROM ({lanes}) AS l JOIN stripe_meters AS s ON s.event_name = l.event_name \
                 JOIN m ON m.meter = s.meter AND m.stripe_customer_id = l.stripe_customer_id) \
             SELECT stripe_customer_id, event_name, {sums} FROM ( \
                 SELECT k.stripe_customer_id, k.event_name, {rolled} FROM k JOIN usage_rollups AS r \
                     ON r.tenant_id = k.tenant_id AND r.hour >= {from} AND r.hour < {to} AND r.hour >= k.from_hour \
                     AND (k.until_hour IS NULL OR r.hour < k.until_hour) AND (k.route = '' OR r.route = k.route) \
                 UNION ALL SELECT k.stripe_customer_id, k.event_name, {corrected} FROM k JOIN usage_corrections AS c \
                     ON c.tenant_id = k.tenant_id AND c.ts >= {from} AND c.ts < {to} AND c.ts >= k.from_hour \
                     AND (k.until_hour IS NULL OR c.ts < k.until_hour) AND (k.route = '' OR c.route = k.route) \
                     AND c.kind <> 'amount' \
             ) AS u GROUP BY stripe_customer_id, event_name",
            sums = wide_sums::sums(dialect),
            rolled = wide_sums::of_rollup(dialect, "r"),
            corrected = wide_sums::of_row(dialect, "c.units_micro"),
        );
        let rows = source.query(&sql, params).await?;
        let used = |row| {
            let lane =
                LaneKey { stripe_customer_id: read(row, "stripe_customer_id")?, event_name: read(row, "event_name")? };
            Ok((lane, read_wide(dialect, row, "units_micro")?))
        };
        rows.iter().map(used).collect()
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

/// The units of rows by lane and state, those of hours before a moment apart.
fn sums_of_states(dialect: Dialect, oldest: &str) -> String {
    let keys = "p.stripe_customer_id, p.event_name, p.state";
    let is_old = format!("CASE WHEN p.hour < {oldest} THEN 1 ELSE 0 END AS is_old");
    let joined = "FROM l JOIN stripe_pushes AS p \
         ON p.stripe_customer_id = l.stripe_customer_id AND p.event_name = l.event_name WHERE p.state <> 'abandoned'";
    // A comparison of totals had what was pushed before it; what was pushed since then was read where its minute or hour was.
    let reading = format!(
        "CASE WHEN p.confirmed_at IS NULL AND p.pushed_at >= l.checked_at AND p.read_back_at >= p.pushed_at \
         THEN {READ_NOT_THERE} ELSE 0 END AS reading"
    );
    match dialect {
        Dialect::Postgres => format!(
            "SELECT {keys}, SUM(p.units_micro)::text AS units, COALESCE(SUM(p.value::numeric), 0)::text AS value, \
                 {reading}, {is_old}, MAX(p.read_back_at) AS read_back_at {joined} GROUP BY {keys}, reading, is_old"
        ),
        // Wide numbers are texts there, and are added up row by row.
        Dialect::Sqlite => format!(
            "SELECT {keys}, p.units_micro AS units, COALESCE(p.value, '0') AS value, {reading}, {is_old}, \
                 p.read_back_at {joined}"
        ),
    }
}

fn lane_of(
    dialect: Dialect,
    row: &sea_orm::QueryResult,
    lane: LaneKey,
    step: i128,
) -> Result<LaneReport, BillingError> {
    let is_read = read::<Option<String>>(row, "stripe_value")?.is_some();
    let drift = if is_read { Some(wide(row, "stripe_value")? - wide(row, "pushed_value")?) } else { None };
    let drift = drift.map(|drift| UnitsTotal(drift * step));
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
        drift,
        blocked: read(row, "blocked")?,
        read_back_at: dialect.read_time_or_null(row, "checked_at")?,
    })
}

impl LaneReport {
    /// The units that its rows say.
    const fn in_rows(&self) -> i128 {
        self.pending.0 + self.held.0 + self.failed.0 + self.pushed.0
    }

    /// Stripe took this, and was found not to have it.
    fn lacks(&mut self, value_micro: i128) {
        if let Some(drift) = &mut self.drift {
            drift.0 -= value_micro;
        }
    }

    fn add(&mut self, state: &str, units_micro: i128, is_old: bool) {
        if is_old {
            self.ledger.0 += units_micro;
        }
        let of_state = match state {
            "held" => &mut self.held,
            "failed" => &mut self.failed,
            "pushed" => &mut self.pushed,
            // A word that only a newer program knows is of a row that is under way.
            _ => &mut self.pending,
        };
        of_state.0 += units_micro;
    }
}
