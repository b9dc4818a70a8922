//! `POST /billing/report-usage`: makes the rows that are pushed to Stripe.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use goldleaves_billing::UsagePush;
use goldleaves_domain::TenantId;
use http::StatusCode;

use crate::answer::ApiError;
use crate::ask::Ask;
use crate::caller::Right;
use crate::cell::{Cell, Item};
use crate::members::Members;
use crate::query::range;
use crate::state::BillingApi;

const PUSH: [&str; 7] =
    ["report_id", "tenant_id", "period_start", "period_end", "reported_quantity", "pushed_quantity", "state"];

pub(crate) async fn report_usage(
    State(api): State<BillingApi>,
    ask: Ask,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask.caller.check(Right::Write)?;
    ask.query(&[])?;
    let members = Members::read(body, &["tenant_id", "start_date", "end_date"])?;
    let tenant: TenantId = members.parsed("tenant_id")?;
    let dates = (members.optional_text("start_date")?, members.optional_text("end_date")?);
    let zone = api.billing().time_zone(&tenant).await?;
    let now = api.now()?;
    let period = range(zone, dates, now).map_err(|error| match error {
        ApiError::Parameter(detail) => ApiError::BodyInvalid(detail),
        other => other,
    })?;
    let push = api.billing().report_usage(&tenant, &period, now).await?;
    Ok(push_item(&push).answer(StatusCode::ACCEPTED))
}

fn push_item(push: &UsagePush) -> Item {
    Item::new(
        &PUSH,
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
