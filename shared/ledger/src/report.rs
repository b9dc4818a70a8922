//! The usage of a tenant in a period, and its cost.
//!
//! Whole hours come from the rollups, the ragged edges from the events, in one statement and so in one snapshot. A line is
//! a rate version, rounded once; routes share the cents of each line (`goldleaves_pricing::Bill`).

use std::fmt;

use goldleaves_cards::read_pricing;
use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_pricing::{Bill, Cents, Group, Pricing, Used};
use goldleaves_store::{Dialect, Params, read, read_wide};

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
    /// The price of the default card in force now; `None` before there is one.
    pub current_pricing: Option<Pricing>,
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
    /// The route's share of the invoice lines.
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
    /// Returns what the tenant used in the period, `[start, end)`. Never stale: what is recorded is in it.
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
        let bill = self.bill(tenant, period).await?;
        let current_pricing = self.default_card().await?.map(|card| card.pricing);
        let routes: Vec<RouteUsage> = bill.groups(String::as_str).into_iter().map(RouteUsage::of).collect();
        let used = bill.used();
        let summary = UsageSummary {
            tenant_id: tenant.clone(),
            period: *period,
            total_events: used.events,
            total_units: UnitsTotal(used.units_micro),
            total_cost_cents: bill.total(),
            unique_routes: routes.len() as u64,
            current_pricing,
        };
        Ok(UsageReport { summary, routes })
    }

    /// The lines of the period, told by route.
    async fn bill(&self, tenant: &TenantId, period: &Period) -> Result<Bill<String>, LedgerError> {
        let dialect = self.dialect();
        let mut params = Params::default();
        let sql = select_lines(dialect, tenant, period, &mut params);
        let mut bill = Bill::default();
        for row in self.read(&sql, params).await? {
            let version: i64 = read(&row, "rate_version")?;
            let has_card: Option<i64> = read(&row, "card_version")?;
            has_card.ok_or(LedgerError::MissingCard { version })?;
            let pricing = read_pricing(&row)?;
            let used = Used { events: read(&row, "events")?, units_micro: read_wide(dialect, &row, "units_micro")? };
            bill.add(version, &pricing, read(&row, "route")?, used);
        }
        Ok(bill)
    }
}

impl RouteUsage {
    fn of((route, group): (&str, Group)) -> Self {
        Self {
            route: route.to_owned(),
            events: group.used.events,
            units: UnitsTotal(group.used.units_micro),
            cost_cents: group.cents,
        }
    }
}

fn select_lines(dialect: Dialect, tenant: &TenantId, period: &Period, params: &mut Params) -> String {
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
    let events = format!("SELECT route, rate_version, 1 AS events, {raw_units} FROM usage_events");
    let rollups = format!("SELECT route, rate_version, events, {rolled_units} FROM usage_rollups");
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
        "SELECT u.*, c.version AS card_version, c.rate_micro_cents, c.pricing FROM ( \
             SELECT route, rate_version, {count} AS events, {sums} FROM ({parts}) AS p \
             GROUP BY route, rate_version HAVING SUM(events) <> 0 \
         ) AS u LEFT JOIN rate_cards AS c ON c.version = u.rate_version",
        parts = parts.join(" UNION ALL ")
    )
}

/// The first and the last full hour mark in the period; nothing lies between them when the first is not before the last.
fn whole_hours(period: &Period) -> (Timestamp, Timestamp) {
    let (start, end) = (period.start(), period.end());
    let first = if start.hour() == start { Some(start) } else { start.hour().plus_micros(Timestamp::HOUR_MICROS) };
    (first.unwrap_or(end), end.hour())
}
