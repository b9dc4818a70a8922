//! `GET /billing/usage-summary/{tenant_id}` and `GET /billing/usage-report/{tenant_id}`.

use axum::extract::State;
use axum::response::Response;
use goldleaves_billing::{Dimension, RouteUsage, Summary, UnitsTotal};
use goldleaves_pricing::Group;
use http::StatusCode;

use crate::answer::ApiError;
use crate::ask::{Ask, range};
use crate::cell::{Cell, Item};
use crate::contract::usage as contract;
use crate::csv::{self, Form};
use crate::query::{Query, check_length};
use crate::state::BillingApi;

pub(crate) async fn summary(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &contract::SUMMARY_CALL)?;
    let (_, period) = range(&api, Some(&asked.tenant), &query).await?;
    let summary = api.billing().summary(&asked.tenant, &period).await?;
    Ok(summary_item(&summary).answer(StatusCode::OK))
}

pub(crate) async fn report(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &contract::REPORT_CALL)?;
    let by = dimensions(&query)?;
    let form = ask.form(&query)?;
    let (zone, period) = range(&api, Some(&asked.tenant), &query).await?;
    if !by.is_empty() {
        check_length(&period)?;
    }
    let report = api.billing().report(&asked.tenant, &period, &by, zone).await?;
    match form {
        Form::Json => {
            let routes = Cell::List(report.routes.iter().map(route_item).collect());
            let mut item = summary_item(&report.summary).with("route_breakdown", routes);
            if !by.is_empty() {
                let groups = report.groups.iter().map(|(keys, group)| group_item(&by, keys, group));
                item = item.with("groups", Cell::List(groups.collect()));
            }
            Ok(item.answer(StatusCode::OK))
        }
        Form::Csv if by.is_empty() => csv::answer(
            "usage-report",
            &contract::ROUTE.names(),
            report.routes.into_iter().map(|route| route_item(&route)),
        ),
        Form::Csv => {
            let mut columns: Vec<&str> = by.iter().map(|dimension| dimension.as_str()).collect();
            columns.extend(["events", "units", "cost_cents"]);
            let groups = report.groups.into_iter();
            csv::answer("usage-report", &columns, groups.map(move |(keys, group)| group_item(&by, &keys, &group)))
        }
    }
}

/// `group_by`: one dimension or two.
fn dimensions(query: &Query) -> Result<Vec<Dimension>, ApiError> {
    let Some(text) = query.get("group_by") else { return Ok(Vec::new()) };
    let mut by = Vec::new();
    for word in text.split(',') {
        let dimension = word.parse().map_err(|error| ApiError::Parameter(format!("group_by: {word:?} is {error}")))?;
        if by.contains(&dimension) {
            return Err(ApiError::Parameter(format!("group_by has {word} twice")));
        }
        by.push(dimension);
    }
    if by.len() > 2 {
        return Err(ApiError::Parameter("group_by takes one or two dimensions".to_owned()));
    }
    Ok(by)
}

pub(crate) fn summary_item(summary: &Summary) -> Item {
    let corrections = Item::new(
        &contract::CORRECTED,
        [Cell::number(summary.corrections.events), Cell::number(UnitsTotal(summary.corrections.units_micro))],
    );
    Item::new(
        &contract::SUMMARY,
        [
            Cell::text(&summary.tenant_id),
            Cell::text(summary.period.start()),
            Cell::text(summary.period.end()),
            Cell::number(summary.total_events),
            Cell::number(summary.total_units),
            Cell::number(summary.total_cost_cents),
            Cell::number(summary.unique_routes),
            Cell::number_or_null(summary.current_rate),
            Cell::number(summary.adjustments_cents),
            Cell::Object(corrections),
            Cell::text("period"),
        ],
    )
}

fn route_item(route: &RouteUsage) -> Item {
    Item::new(
        &contract::ROUTE,
        [
            Cell::text(&route.route),
            Cell::number(route.events),
            Cell::number(route.units),
            Cell::number(route.cost_cents),
        ],
    )
}

fn group_item(by: &[Dimension], keys: &[String], group: &Group) -> Item {
    let mut item = Item::of(&[], []);
    for (dimension, key) in by.iter().zip(keys) {
        let cell = if *dimension == Dimension::Rate { Cell::number(key) } else { Cell::text(key) };
        item = item.with(dimension.as_str(), cell);
    }
    item.with("events", Cell::number(group.used.events))
        .with("units", Cell::number(UnitsTotal(group.used.units_micro)))
        .with("cost_cents", Cell::number(group.cents))
}
