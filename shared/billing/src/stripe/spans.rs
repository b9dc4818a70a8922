//! Sealing of many hours: neighbours with little usage share a transaction, an hour with much of it has several.
//!
//! Which rows an hour has is decided elsewhere; here is only how many hours are looked at together, so that a look at weeks
//! costs what their usage costs, and nothing for hours without any.

use std::collections::BTreeMap;

use goldleaves_domain::Timestamp;
use goldleaves_store::{Params, Transaction, read, read_wide};

use super::books::Books;
use super::meters::{self, StoredMeter};
use super::seal::{PAIRS_AT_ONCE, Pair, Sealed, hour_of};
use crate::source::wide as wide_sums;
use crate::{BillingError, locks};

/// An hour that has usage or corrections, and how many rows of the ledger say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BusyHour {
    hour: Timestamp,
    rows: i64,
}

/// Hours that are sealed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: Timestamp,
    last: Timestamp,
    rows: i64,
}

/// Puts neighbours together as long as they have no more rows than `most`.
fn spans(busy: &[BusyHour], most: i64) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for BusyHour { hour, rows } in busy.iter().copied() {
        match spans.last_mut() {
            Some(span) if span.rows + rows <= most => (span.last, span.rows) = (hour, span.rows + rows),
            _ => spans.push(Span { first: hour, last: hour, rows }),
        }
    }
    spans
}

fn hour_after(hour: Timestamp) -> Timestamp {
    hour.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(hour)
}

impl Books {
    /// Makes the missing rows of the hours in `[from, until)`, of all tenants and meters.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn seal_hours(&self, from: Timestamp, until: Timestamp) -> Result<Sealed, BillingError> {
        let meters = self.meters().await?;
        let mut sealed = Sealed::default();
        if meters.is_empty() {
            return Ok(sealed);
        }
        for span in spans(&self.busy_hours(from, until).await?, PAIRS_AT_ONCE) {
            if span.first == span.last {
                sealed.add(self.seal_hour(span.first).await?);
                continue;
            }
            for meter in &meters {
                sealed.add(self.seal_span(&meter.meter, span).await?);
            }
        }
        Ok(sealed)
    }

    async fn seal_span(&self, meter: &str, span: Span) -> Result<Sealed, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                locks::reports(transaction).await?;
                let Some(meter) = meters::meter(transaction, meter).await? else { return Ok(Sealed::default()) };
                let used = used_between(transaction, &meter, span.first, hour_after(span.last)).await?;
                self.make(transaction, &meter, used).await
            })
            .await
    }

    /// The hours of a range that have anything, in their order. They are counted day by day: of many tenants a day is as much as
    /// a statement should read.
    async fn busy_hours(&self, from: Timestamp, until: Timestamp) -> Result<Vec<BusyHour>, BillingError> {
        let (mut busy, mut day) = (Vec::new(), from);
        while day < until {
            let end = day.plus_micros(Timestamp::DAY_MICROS).unwrap_or(until).min(until);
            busy.extend(self.busy_hours_of_day(day, end).await?);
            day = end;
        }
        Ok(busy)
    }

    async fn busy_hours_of_day(&self, from: Timestamp, to: Timestamp) -> Result<Vec<BusyHour>, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let (from, to) = (params.bind(dialect.time(from)), params.bind(dialect.time(to)));
        let sql = format!(
            "SELECT hour, COUNT(*) AS count FROM ( \
                 SELECT r.hour FROM usage_rollups AS r WHERE r.hour >= {from} AND r.hour < {to} \
                 UNION ALL SELECT {hour_of} AS hour FROM usage_corrections AS c \
                     WHERE c.ts >= {from} AND c.ts < {to} AND c.kind <> 'amount' \
             ) AS u GROUP BY hour ORDER BY hour",
            hour_of = hour_of(dialect, "c.ts"),
        );
        let rows = source.query(&sql, params).await?;
        rows.iter()
            .map(|row| Ok(BusyHour { hour: dialect.read_time(row, "hour")?, rows: read(row, "count")? }))
            .collect()
    }
}

/// The usage of all tenants in some hours, net of corrections.
async fn used_between(
    transaction: &Transaction,
    meter: &StoredMeter,
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<Pair, i128>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (from, to) = (params.bind(dialect.time(from)), params.bind(dialect.time(to)));
    let route = |alias: &str, params: &mut Params| match meter.route.as_str() {
        "" => String::new(),
        route => format!(" AND {alias}.route = {}", params.bind(route)),
    };
    let (of_rollup, of_correction) = (route("r", &mut params), route("c", &mut params));
    let sql = format!(
        "SELECT tenant_id, hour, {sums} FROM ( \
             SELECT r.tenant_id, r.hour, {rolled} FROM usage_rollups AS r \
                 WHERE r.hour >= {from} AND r.hour < {to} {of_rollup} \
             UNION ALL SELECT c.tenant_id, {hour_of} AS hour, {corrected} FROM usage_corrections AS c \
                 WHERE c.ts >= {from} AND c.ts < {to} AND c.kind <> 'amount' {of_correction} \
         ) AS u GROUP BY tenant_id, hour",
        sums = wide_sums::sums(dialect),
        rolled = wide_sums::of_rollup(dialect, "r"),
        corrected = wide_sums::of_row(dialect, "c.units_micro"),
        hour_of = hour_of(dialect, "c.ts"),
    );
    let rows = transaction.query(&sql, params).await?;
    let pair = |row| {
        let key = (read(row, "tenant_id")?, dialect.read_time(row, "hour")?);
        Ok((key, read_wide(dialect, row, "units_micro")?))
    };
    rows.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_transaction_as_long_as_they_are_few() {
        let hour = |number: i64| Timestamp::from_unix_micros(number * Timestamp::HOUR_MICROS).unwrap();
        let busy =
            |hours: &[(i64, i64)]| hours.iter().map(|(at, rows)| BusyHour { hour: hour(*at), rows: *rows }).collect();
        let busy: Vec<BusyHour> = busy(&[(1, 2), (2, 3), (7, 5), (8, 1), (9, 20), (10, 4)]);
        let together: Vec<_> = spans(&busy, 10).iter().map(|span| (span.first, span.last, span.rows)).collect();
        let wanted = [(1, 7, 10), (8, 8, 1), (9, 9, 20), (10, 10, 4)];
        assert_eq!(together, wanted.map(|(first, last, rows)| (hour(first), hour(last), rows)));
        assert!(spans(&[], 10).is_empty());
    }
}
