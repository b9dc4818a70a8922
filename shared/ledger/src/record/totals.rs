//! The last that a transaction writes of a batch: rollups and receipts, from what really changed.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Rows, Transaction, WIDE_LOW, read};

use crate::LedgerError;
use crate::batch::{Arrival, EventRow};
use crate::priced::Priced;
use crate::record::receipts::{self, Receipts};

/// The key of a rollup's sums, but for the shard. Ordered bytewise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RollupKey {
    pub(super) tenant_id: String,
    pub(super) hour: Timestamp,
    pub(super) route: String,
    pub(super) action: String,
    pub(super) rate_version: i64,
}

/// The sums that a transaction adds to the rollups and receipts.
#[derive(Debug)]
pub(super) struct Totals {
    shard: i64,
    /// Events and millionths of units.
    sums: BTreeMap<RollupKey, (i64, i128)>,
    /// Hours that changed by what is no event.
    hours: BTreeSet<(String, Timestamp)>,
    /// The versions that repeats were priced by.
    of_repeats: BTreeSet<i64>,
    receipts: Receipts,
}

impl Totals {
    pub(super) fn new(shard: i64) -> Self {
        let (sums, hours, of_repeats) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { shard, sums, hours, of_repeats, receipts: Receipts::default() }
    }

    pub(super) fn billed(&mut self, row: &EventRow<'_>, priced: Priced) {
        let key = RollupKey {
            tenant_id: row.event.tenant_id.as_str().to_owned(),
            hour: row.event.ts.hour(),
            route: row.event.route.as_str().to_owned(),
            action: row.event.action.as_str().to_owned(),
            rate_version: priced.rate_version,
        };
        self.add(key, 1, row.units_micro().into());
    }

    pub(super) fn add(&mut self, key: RollupKey, events: i64, units_micro: i128) {
        let sum = self.sums.entry(key).or_default();
        sum.0 += events;
        sum.1 += units_micro;
    }

    /// A repeat is priced as well: it may be billed one day.
    pub(super) fn repeated(&mut self, priced: Priced) {
        self.of_repeats.insert(priced.rate_version);
    }

    /// The versions that something was priced by.
    pub(super) fn versions(&self) -> BTreeSet<i64> {
        self.sums.keys().map(|key| key.rate_version).chain(self.of_repeats.iter().copied()).collect()
    }

    /// A tenant's hour changed, though no rollup did.
    pub(super) fn changed(&mut self, tenant_id: &str, hour: Timestamp) {
        self.hours.insert((tenant_id.to_owned(), hour));
    }

    pub(super) fn arrived(&mut self, arrivals: &[Arrival]) {
        arrivals.iter().for_each(|arrival| self.receipts.add(arrival));
    }

    /// Writes everything and returns how many hours it marked as changed after their end.
    pub(super) async fn write(mut self, transaction: &Transaction) -> Result<u64, LedgerError> {
        self.sums.retain(|_, sum| *sum != (0, 0));
        self.hours.extend(self.sums.keys().map(|key| (key.tenant_id.clone(), key.hour)));
        if self.hours.is_empty() && self.receipts.is_empty() {
            return Ok(0);
        }
        match transaction.dialect() {
            Dialect::Sqlite => {
                let mut marked = 0;
                if !self.sums.is_empty() {
                    let mut params = Params::default();
                    let sql = format!("{} RETURNING events", upsert_sums(Dialect::Sqlite, &self, &mut params));
                    transaction.execute(&sql, params).await?;
                }
                if !self.hours.is_empty() {
                    let mut params = Params::default();
                    let sql = mark_late(Dialect::Sqlite, &self.hours, &mut params);
                    marked = transaction.execute(&sql, params).await?.rows_affected();
                }
                receipts::merge(transaction, &self.receipts, None).await?;
                Ok(marked)
            }
            Dialect::Postgres => self.write_at_once(transaction).await,
        }
    }

    /// One statement; the receipts wait for the late hours and those for the rollups, so that all transactions lock them in
    /// the same order.
    async fn write_at_once(self, transaction: &Transaction) -> Result<u64, LedgerError> {
        let dialect = transaction.dialect();
        let mut params = Params::default();
        let sums = upsert_sums(dialect, &self, &mut params);
        let late = mark_late(dialect, &self.hours, &mut params);
        let received = receipts::insert_disjoint(&self.receipts, &mut params);
        let sql = format!(
            "WITH rolled AS ({sums} RETURNING 1), counted AS (SELECT COUNT(*) AS rows FROM rolled), \
             late AS ({late} RETURNING 1), summed AS (SELECT COUNT(*) AS rows FROM late), \
             received AS ({received}) \
             SELECT epoch, block, NULL::bigint AS marked FROM received \
             UNION ALL SELECT NULL, NULL, rows FROM summed WHERE rows > 0",
        );
        let (mut done, mut marked) = (BTreeSet::new(), 0);
        for row in transaction.query(&sql, params).await? {
            if let Some(epoch) = dialect.read_uuid_or_null(&row, "epoch")? {
                done.insert((epoch, read::<i64>(&row, "block")?));
            } else {
                marked = read::<i64>(&row, "marked")?.unsigned_abs();
            }
        }
        receipts::merge(transaction, &self.receipts, Some(&done)).await?;
        Ok(marked)
    }
}

/// Marks hours that ended more than two minutes ago, by the database's clock: whoever sealed or billed them has to look
/// again. Hours are sealed five minutes after their end and no transaction lives for three, so that nothing falls between.
fn mark_late(dialect: Dialect, hours: &BTreeSet<(String, Timestamp)>, params: &mut Params) -> String {
    let source = Rows::new(dialect)
        .column("tenant_id", hours.iter().map(|(tenant_id, _)| tenant_id.as_str()))
        .column("hour", hours.iter().map(|(_, hour)| *hour))
        .query(params);
    let (from, ended) = match dialect {
        Dialect::Postgres => ("counted CROSS JOIN ", "now() - interval '62 minutes'"),
        Dialect::Sqlite => ("", "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-62 minutes')"),
    };
    format!(
        "INSERT INTO usage_late_hours AS h (tenant_id, hour, changes, changed_at) \
         SELECT r.tenant_id, r.hour, 1, {now} FROM {from}({source}) AS r WHERE r.hour < {ended} ORDER BY r.n \
         ON CONFLICT (tenant_id, hour) DO UPDATE SET changes = h.changes + 1, changed_at = EXCLUDED.changed_at",
        now = dialect.now()
    )
}

fn upsert_sums(dialect: Dialect, totals: &Totals, params: &mut Params) -> String {
    let keys = || totals.sums.keys();
    let sums = || totals.sums.values();
    let rows = Rows::new(dialect)
        .column("tenant_id", keys().map(|key| key.tenant_id.as_str()))
        .column("hour", keys().map(|key| key.hour))
        .column("route", keys().map(|key| key.route.as_str()))
        .column("action", keys().map(|key| key.action.as_str()))
        .column("rate_version", keys().map(|key| key.rate_version))
        .column("events", sums().map(|sum| sum.0));
    let (rows, columns, cells) = match dialect {
        Dialect::Postgres => {
            let rows = rows.column("units_micro", sums().map(|sum| sum.1.to_string()));
            (rows, vec!["units_micro"], "r.units_micro::numeric")
        }
        Dialect::Sqlite => {
            let rows = rows
                .column("high", sums().map(|sum| i64::try_from(sum.1.div_euclid(WIDE_LOW)).unwrap_or(i64::MAX)))
                .column("low", sums().map(|sum| i64::try_from(sum.1.rem_euclid(WIDE_LOW)).unwrap_or(i64::MAX)));
            (rows, vec!["units_micro_high", "units_micro_low"], "r.high, r.low")
        }
    };
    let source = rows.query(params);
    let shard = params.bind(totals.shard);
    let shard = if dialect == Dialect::Postgres { format!("{shard}::smallint") } else { shard };
    let added: Vec<String> =
        columns.iter().map(|column| format!("{column} = t.{column} + EXCLUDED.{column}")).collect();
    format!(
        "INSERT INTO usage_rollups AS t (tenant_id, hour, route, action, rate_version, shard, events, {columns}) \
         SELECT r.tenant_id, r.hour, r.route, r.action, r.rate_version, {shard}, r.events, {cells} \
         FROM ({source}) AS r WHERE true ORDER BY r.n \
         ON CONFLICT (tenant_id, hour, route, action, rate_version, shard) \
         DO UPDATE SET events = t.events + EXCLUDED.events, {added}",
        columns = columns.join(", "),
        added = added.join(", ")
    )
}
