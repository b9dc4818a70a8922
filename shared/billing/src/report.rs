//! Summary and report of a range: what was used, what it costs, and by what it is told.

use std::collections::BTreeMap;

use goldleaves_domain::{Period, TenantId};
use goldleaves_pricing::{Bill, Cents, Group, LocalDay, Pricing, Rate, TimeZone, Used};

use crate::billing::clock;
use crate::cards::{self, Card};
use crate::source::Source;
use crate::usage::{Dimension, GROUPS_MAX, Question, UnitsTotal, UsagePart};
use crate::{Billing, BillingError, RefusalCode};

/// The longest range that is told by user, and the most events in it.
const USER_DAYS_MAX: i64 = 31;
const USER_EVENTS_MAX: i64 = 1_000_000;

/// A tenant's usage of a range, net of corrections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The tenant whose usage it is.
    pub tenant_id: TenantId,
    /// When.
    pub period: Period,
    /// Billed events.
    pub total_events: i64,
    /// Their units.
    pub total_units: UnitsTotal,
    /// The sum of the invoice lines, adjustments included.
    pub total_cost_cents: Cents,
    /// The number of routes that were used.
    pub unique_routes: u64,
    /// The default card's rate in force now; `None` where it has more than one.
    pub current_rate: Option<Rate>,
    /// Corrections by an amount.
    pub adjustments_cents: Cents,
    /// The sum of the corrections of events; it is in the totals.
    pub corrections: Used,
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

/// The parts by which a report is told, in the order of their keys.
pub type Groups = BTreeMap<Vec<String>, Group>;

/// A summary, what each route adds to it, and the groups that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The sums.
    pub summary: Summary,
    /// Ordered by route.
    pub routes: Vec<RouteUsage>,
    /// By the dimensions asked for; empty where none were.
    pub groups: Groups,
}

impl Billing {
    /// Returns what the tenant used in the range, `[start, end)`. Never stale: what is recorded is in it.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn summary(&self, tenant: &TenantId, range: &Period) -> Result<Summary, BillingError> {
        Ok(self.report(tenant, range, &[], TimeZone::UTC).await?.summary)
    }

    /// The summary, each route's part of it, and the groups by these dimensions; days are those of the zone.
    ///
    /// # Errors
    /// More groups than an answer holds, or a database that is away or refuses.
    pub async fn report(
        &self,
        tenant: &TenantId,
        range: &Period,
        by: &[Dimension],
        zone: TimeZone,
    ) -> Result<Report, BillingError> {
        let source = self.source();
        let days = local_days(by, zone, range)?;
        if by.contains(&Dimension::User) {
            self.check_user_range(tenant, range).await?;
        }
        let mut dimensions = vec![Dimension::Route];
        dimensions.extend(by.iter().filter(|dimension| **dimension != Dimension::Route));
        let question = Question { tenant: tenant.as_str(), range: *range, by: &dimensions, days: &days };
        let usage = question.ask(source).await?;
        let cards = cards::of_versions(source, usage.parts.iter().map(|part| part.version)).await?;
        let bill = bill(usage.parts, &cards)?;
        let current = cards::default_at(source, clock()?).await?;
        let routes: Vec<RouteUsage> = bill
            .groups(|keys| keys.first().cloned().unwrap_or_default())
            .into_iter()
            .map(|(route, group)| RouteUsage::of(route, group))
            .collect();
        let places: Vec<usize> =
            by.iter().filter_map(|dimension| dimensions.iter().position(|other| other == dimension)).collect();
        let groups = if by.is_empty() {
            Groups::new()
        } else {
            bill.groups(|keys| places.iter().filter_map(|place| keys.get(*place).cloned()).collect::<Vec<_>>())
        };
        if groups.len() > GROUPS_MAX {
            let detail = format!(
                "there are {} groups, more than the {GROUPS_MAX} of an answer; ask for a shorter range or fewer dimensions",
                groups.len()
            );
            return BillingError::refused(RefusalCode::TooManyGroups, detail);
        }
        let used = bill.used();
        let summary = Summary {
            tenant_id: tenant.clone(),
            period: *range,
            total_events: used.events,
            total_units: UnitsTotal(used.units_micro),
            total_cost_cents: Cents(bill.total().0 + usage.adjustments_cents),
            unique_routes: routes.len() as u64,
            current_rate: match *current.pricing {
                Pricing::PerUnit(rate) => Some(rate),
                _ => None,
            },
            adjustments_cents: Cents(usage.adjustments_cents),
            corrections: usage.corrected,
        };
        Ok(Report { summary, routes, groups })
    }

    /// Users are told from the events, so that their number is bounded.
    async fn check_user_range(&self, tenant: &TenantId, range: &Period) -> Result<(), BillingError> {
        let length = range.end().unix_micros() - range.start().unix_micros();
        if length > USER_DAYS_MAX * goldleaves_domain::Timestamp::DAY_MICROS {
            let detail = format!("group_by=user takes at most {USER_DAYS_MAX} days");
            return BillingError::refused(RefusalCode::Invalid, detail);
        }
        let question = Question { tenant: tenant.as_str(), range: *range, by: &[], days: &[] };
        let events: i64 = question.ask(self.source()).await?.parts.iter().map(|part| part.used.events).sum();
        if events > USER_EVENTS_MAX {
            let detail = format!("group_by=user takes at most {USER_EVENTS_MAX} events, and there are {events}");
            return BillingError::refused(RefusalCode::TooManyRows, detail);
        }
        Ok(())
    }
}

impl RouteUsage {
    fn of(route: String, group: Group) -> Self {
        Self { route, events: group.used.events, units: UnitsTotal(group.used.units_micro), cost_cents: group.cents }
    }
}

fn local_days(by: &[Dimension], zone: TimeZone, range: &Period) -> Result<Vec<LocalDay>, BillingError> {
    if !by.contains(&Dimension::Day) {
        return Ok(Vec::new());
    }
    let outside = |error| crate::Refusal::new(RefusalCode::Invalid, format!("the range is {error}"));
    Ok(zone.days(range).map_err(outside)?)
}

/// The bill of these parts.
pub(crate) fn bill(parts: Vec<UsagePart>, cards: &BTreeMap<i64, Card>) -> Result<Bill<Vec<String>>, BillingError> {
    let mut bill = Bill::default();
    for part in parts {
        let card = cards.get(&part.version).ok_or(BillingError::MissingCard { version: part.version })?;
        bill.add(part.version, &card.pricing, part.keys, part.used);
    }
    Ok(bill)
}

/// The bill of a range by these dimensions, with its cards and its adjustments in cents.
pub(crate) async fn read_bill(
    source: Source<'_>,
    question: &Question<'_>,
) -> Result<(Bill<Vec<String>>, BTreeMap<i64, Card>, i128), BillingError> {
    let usage = question.ask(source).await?;
    let cards = cards::of_versions(source, usage.parts.iter().map(|part| part.version)).await?;
    Ok((bill(usage.parts, &cards)?, cards, usage.adjustments_cents))
}
