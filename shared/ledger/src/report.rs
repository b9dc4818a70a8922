//! What a tenant used in a period, and what it costs.
//!
//! Whole hours come from the rollups, the ragged edges from the events, in one statement and so in one snapshot. A line is
//! (route, action, rate): rounded once; everything above is a sum of lines.

use std::collections::BTreeMap;
use std::fmt;

use goldleaves_domain::{Cents, Period, Rate, TenantId, Timestamp, line_cost};
use goldleaves_store::{Dialect, Params, read, read_wide};

use crate::rates::read_rate;
use crate::{Ledger, LedgerError};

/// A sum of units in millionths, which may be negative where it is a difference. Shown as an exact decimal: `3`, `-0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnitsTotal(pub i128);

impl fmt::Display for UnitsTotal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ONE: u128 = 1_000_000;
        let (whole, fraction) = (self.0.unsigned_abs() / ONE, self.0.unsigned_abs() % ONE);
        if self.0 < 0 {
            out.write_str("-")?;
        }
        if fraction == 0 {
            return write!(out, "{whole}");
        }
        write!(out, "{whole}.{}", format!("{fraction:06}").trim_end_matches('0'))
    }
}

/// A tenant's usage of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSummary {
    /// Whose.
    pub tenant_id: TenantId,
    /// When.
    pub period: Period,
    /// Billed events.
    pub total_events: i64,
    /// Their units.
    pub total_units: UnitsTotal,
    /// The sum of the invoice lines.
    pub total_cost_cents: Cents,
    /// How many routes were used.
    pub unique_routes: u64,
    /// The default rate in force now; `None` before the first was set.
    pub current_rate: Option<Rate>,
}

/// One route's part of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteUsage {
    /// The matched pattern.
    pub route: String,
    /// Billed events.
    pub events: i64,
    /// Their units.
    pub units: UnitsTotal,
    /// The sum of the route's invoice lines.
    pub cost_cents: Cents,
}

/// A summary, and what each route adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// The sums.
    pub summary: UsageSummary,
    /// Ordered by route.
    pub routes: Vec<RouteUsage>,
}

impl Ledger {
    /// What the tenant used in the period, `[start, end)`. Never stale: what is recorded is in it.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn usage_summary(&self, tenant: &TenantId, period: &Period) -> Result<UsageSummary, LedgerError> {
        Ok(self.usage_report(tenant, period).await?.summary)
    }

    /// The summary and each route's part of it.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn usage_report(&self, tenant: &TenantId, period: &Period) -> Result<UsageReport, LedgerError> {
        let lines = self.invoice_lines(tenant, period).await?;
        let current_rate = self.current_rate().await?;
        let mut routes: BTreeMap<&str, RouteUsage> = BTreeMap::new();
        for line in &lines {
            let route = routes.entry(&line.route).or_insert_with(|| RouteUsage {
                route: line.route.clone(),
                events: 0,
                units: UnitsTotal::default(),
                cost_cents: Cents::default(),
            });
            route.events += line.events;
            route.units.0 += line.units_micro;
            route.cost_cents.0 += line_cost(line.units_micro, line.rate).0;
        }
        let routes: Vec<RouteUsage> = routes.into_values().collect();
        let summary = UsageSummary {
            tenant_id: tenant.clone(),
            period: *period,
            total_events: routes.iter().map(|route| route.events).sum(),
            total_units: UnitsTotal(routes.iter().map(|route| route.units.0).sum()),
            total_cost_cents: routes.iter().map(|route| route.cost_cents).sum(),
            unique_routes: routes.len() as u64,
            current_rate,
        };
        Ok(UsageReport { summary, routes })
    }

    async fn invoice_lines(&self, tenant: &TenantId, period: &Period) -> Result<Vec<Line>, LedgerError> {
        let dialect = self.dialect();
        let mut params = Params::default();
        let sql = select_lines(dialect, tenant, (period, &mut params));
        let rows = self.read(&sql, params).await?;
        rows.iter()
            .map(|row| {
                Ok(Line {
                    route: read(row, "route")?,
                    rate: read_rate(row, "rate_micro_cents")?,
                    events: read(row, "events")?,
                    units_micro: read_wide(dialect, row, "units_micro")?,
                })
            })
            .collect()
    }
}

/// An invoice line; its action is only what keeps it apart.
#[derive(Debug)]
struct Line {
    route: String,
    rate: Rate,
    events: i64,
    units_micro: i128,
}

fn select_lines(dialect: Dialect, tenant: &TenantId, (period, params): (&Period, &mut Params)) -> String {
    let tenant = params.bind(tenant.as_str());
    let (raw_units, rolled_units, sums) = match dialect {
        Dialect::Postgres => {
            ("units_micro::numeric AS units", "units_micro AS units", "SUM(units)::text AS units_micro".to_owned())
        }
        Dialect::Sqlite => (
            "units_micro / 1000000000 AS high, units_micro % 1000000000 AS low",
            "units_micro_high AS high, units_micro_low AS low",
            "SUM(high) AS units_micro_high, SUM(low) AS units_micro_low".to_owned(),
        ),
    };
    let mut parts = Vec::new();
    let mut between = |(source, time): (&str, &str), from: Timestamp, to: Timestamp| {
        if from < to {
            let (from, to) = (params.bind(dialect.time(from)), params.bind(dialect.time(to)));
            parts.push(format!("{source} WHERE tenant_id = {tenant} AND {time} >= {from} AND {time} < {to}"));
        }
    };
    let events = format!("SELECT route, action, rate_version, 1 AS events, {raw_units} FROM usage_events");
    let rollups = format!("SELECT route, action, rate_version, events, {rolled_units} FROM usage_rollups");
    let (first, last) = whole_hours(period);
    if first < last {
        between((&events, "ts"), period.start(), first);
        between((&rollups, "hour"), first, last);
        between((&events, "ts"), last, period.end());
    } else {
        between((&events, "ts"), period.start(), period.end());
    }
    let count = if dialect == Dialect::Postgres { "SUM(events)::bigint" } else { "SUM(events)" };
    format!(
        "SELECT u.*, c.rate_micro_cents FROM ( \
             SELECT route, action, rate_version, {count} AS events, {sums} FROM ({parts}) AS p \
             GROUP BY route, action, rate_version HAVING SUM(events) <> 0 \
         ) AS u JOIN rate_cards AS c ON c.version = u.rate_version",
        parts = parts.join(" UNION ALL ")
    )
}

/// The first and the last full hour mark in the period; nothing lies between them when the first is not before the last.
fn whole_hours(period: &Period) -> (Timestamp, Timestamp) {
    let (start, end) = (period.start(), period.end());
    let first = if start.hour() == start { Some(start) } else { start.hour().plus_micros(Timestamp::HOUR_MICROS) };
    (first.unwrap_or(end), end.hour())
}
