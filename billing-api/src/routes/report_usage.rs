//! `POST /billing/report-usage`: makes the rows that are pushed to Stripe; `GET /billing/report-usage/{tenant_id}` says the same
//! and makes none.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use goldleaves_billing::{METER, ReportOf, UsagePush};
use goldleaves_domain::TenantId;
use http::{StatusCode, Uri};

use crate::answer::ApiError;
use crate::ask::{Ask, zone};
use crate::caller::Right;
use crate::cell::{Cell, Item};
use crate::contract::bills as contract;
use crate::members::Members;
use crate::query::range;
use crate::routes::stripe::{NAME_BYTES_MAX, text};
use crate::state::BillingApi;

pub(crate) async fn report_usage(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::Write)?;
    ask.query(&contract::REPORT_USAGE)?;
    let members = Members::read(body, &contract::REPORTED)?;
    let tenant: TenantId = members.parsed("tenant_id")?;
    let (start, end) = (members.optional_text("start_date")?, members.optional_text("end_date")?);
    let zone = api.billing().time_zone(&tenant).await?;
    let now = api.now()?;
    let period = range(zone, start, end, now).map_err(|error| match error {
        ApiError::Parameter(detail) => ApiError::BodyInvalid(detail),
        other => other,
    })?;
    let meter = match members.optional_text("meter")? {
        Some(_) => text(&members, "meter", NAME_BYTES_MAX)?,
        None => METER.to_owned(),
    };
    let push = api.books().report_usage(&ReportOf { tenant: &tenant, meter: &meter, period: &period }, now).await?;
    if let Some(desk) = api.stripe() {
        desk.pusher.wake();
    }
    Ok(push_item(&push).answer(StatusCode::ACCEPTED))
}

/// Works like [`get`], for a tenant whose name no path can hold. Without one there is only the POST here.
pub(crate) async fn get_by_query(
    api: State<BillingApi>,
    uri: Uri,
    ask: Result<Ask, ApiError>,
) -> Result<Response, ApiError> {
    let query = uri.query().unwrap_or_default();
    if !form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "tenant_id") {
        return Err(ApiError::Method("POST"));
    }
    get(api, ask?).await
}

pub(crate) async fn get(State(api): State<BillingApi>, ask: Ask) -> Result<Response, ApiError> {
    let asked = ask.tenant_to_read()?;
    let query = ask.query_of(&asked, &contract::USAGE_REPORTED)?;
    let now = api.now()?;
    let period = query.range(zone(&api, Some(&asked.tenant), &query).await?, now)?;
    let meter = query.get("meter").unwrap_or(METER);
    let push = api.books().report(&ReportOf { tenant: &asked.tenant, meter, period: &period }, now).await?;
    Ok(push_item(&push).answer(StatusCode::OK))
}

fn push_item(push: &UsagePush) -> Item {
    Item::new(
        &contract::REPORT,
        [
            Cell::text(push.report_id),
            Cell::text(&push.tenant_id),
            Cell::text(push.period.start()),
            Cell::text(push.period.end()),
            Cell::number(push.reported),
            Cell::number(push.pushed),
            Cell::text(push.state.as_str()),
        ],
    )
}
