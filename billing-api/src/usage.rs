//! `GET /billing/usage-summary/{tenant_id}` and `GET /billing/usage-report/{tenant_id}`.

use axum::Json;
use axum::extract::State;
use goldleaves_ledger::{LedgerError, RouteUsage, UsageReport, UsageSummary};
use goldleaves_pricing::Pricing;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::{ApiError, Moment, exact};
use crate::caller::{Caller, TenantName};
use crate::query::PeriodQuery;
use crate::service::BillingApi;

/// What a tenant used and what it costs.
#[derive(Serialize)]
pub(crate) struct SummaryView {
    tenant_id: String,
    period_start: Moment,
    period_end: Moment,
    total_events: i64,
    total_units: Box<RawValue>,
    total_cost_cents: Box<RawValue>,
    unique_routes: u64,
    /// Null where the price is no single rate.
    current_rate_cents: Option<Box<RawValue>>,
}

/// The summary with a line for each route.
#[derive(Serialize)]
pub(crate) struct ReportView {
    #[serde(flatten)]
    summary: SummaryView,
    route_breakdown: Vec<RouteView>,
}

#[derive(Serialize)]
struct RouteView {
    route: String,
    events: i64,
    units: Box<RawValue>,
    cost_cents: Box<RawValue>,
}

pub(crate) async fn summary(
    State(api): State<BillingApi>,
    caller: Caller,
    TenantName(name): TenantName,
    query: PeriodQuery,
) -> Result<Json<SummaryView>, ApiError> {
    let tenant = caller.tenant_to_read(&name)?;
    let summary = api.ledger().usage_summary(&tenant, &query.period(api.now()?)?).await?;
    Ok(Json(SummaryView::of(&summary)?))
}

pub(crate) async fn report(
    State(api): State<BillingApi>,
    caller: Caller,
    TenantName(name): TenantName,
    query: PeriodQuery,
) -> Result<Json<ReportView>, ApiError> {
    let tenant = caller.tenant_to_read(&name)?;
    let report = api.ledger().usage_report(&tenant, &query.period(api.now()?)?).await?;
    Ok(Json(ReportView::of(&report)?))
}

impl SummaryView {
    fn of(summary: &UsageSummary) -> Result<Self, ApiError> {
        let pricing = summary.current_pricing.as_ref().ok_or(LedgerError::NoRate)?;
        let current_rate = match pricing {
            Pricing::PerUnit(rate) => Some(exact(rate)?),
            _ => None,
        };
        Ok(Self {
            tenant_id: summary.tenant_id.to_string(),
            period_start: Moment(summary.period.start()),
            period_end: Moment(summary.period.end()),
            total_events: summary.total_events,
            total_units: exact(summary.total_units)?,
            total_cost_cents: exact(summary.total_cost_cents)?,
            unique_routes: summary.unique_routes,
            current_rate_cents: current_rate,
        })
    }
}

impl ReportView {
    fn of(report: &UsageReport) -> Result<Self, ApiError> {
        let routes = report.routes.iter().map(RouteView::of).collect::<Result<_, _>>()?;
        Ok(Self { summary: SummaryView::of(&report.summary)?, route_breakdown: routes })
    }
}

impl RouteView {
    fn of(route: &RouteUsage) -> Result<Self, ApiError> {
        Ok(Self {
            route: route.route.clone(),
            events: route.events,
            units: exact(route.units)?,
            cost_cents: exact(route.cost_cents)?,
        })
    }
}
