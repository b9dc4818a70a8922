//! `POST /billing/report-usage`: makes the rows that are pushed to Stripe.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use goldleaves_ledger::UsagePush;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{ApiError, Moment, exact};
use crate::caller::Caller;
use crate::query::period;
use crate::service::BillingApi;

/// The call's body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportUsage {
    tenant_id: String,
    start_date: Option<String>,
    end_date: Option<String>,
}

impl ReportUsage {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        // Left alone, serde takes an array for an object, by position.
        let read = if body.trim_ascii_start().starts_with(b"[") {
            Err("it is an array".to_owned())
        } else {
            serde_json::from_slice(body).map_err(|error| error.to_string())
        };
        read.map_err(|error| {
            ApiError::BodyInvalid(format!(
                "the body must be JSON such as {{\"tenant_id\": \"acme\", \"start_date\": \"2026-01-01\"}}: {error}"
            ))
        })
    }
}

/// What was reported.
#[derive(Serialize)]
pub(crate) struct PushView {
    report_id: String,
    tenant_id: String,
    period_start: Moment,
    period_end: Moment,
    reported_quantity: Box<RawValue>,
    pushed_quantity: Box<RawValue>,
    state: &'static str,
}

pub(crate) async fn report_usage(
    State(api): State<BillingApi>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<PushView>), ApiError> {
    caller.check_may_report()?;
    let body = body.map_err(|rejection| ApiError::Body(rejection.status(), rejection.body_text()))?;
    let wanted = ReportUsage::read(&body)?;
    let tenant =
        wanted.tenant_id.parse().map_err(|error| ApiError::BodyInvalid(format!("tenant_id is wrong: {error}")))?;
    let now = api.now()?;
    let period = period(wanted.start_date.as_deref(), wanted.end_date.as_deref(), now)?;
    let push = api.ledger().report_usage(&tenant, &period, now).await?;
    Ok((StatusCode::ACCEPTED, Json(PushView::of(&push)?)))
}

impl PushView {
    fn of(push: &UsagePush) -> Result<Self, ApiError> {
        Ok(Self {
            report_id: push.report_id.to_string(),
            tenant_id: push.tenant_id.to_string(),
            period_start: Moment(push.period.start()),
            period_end: Moment(push.period.end()),
            reported_quantity: exact(push.reported)?,
            pushed_quantity: exact(push.pushed)?,
            state: push.state.as_str(),
        })
    }
}
