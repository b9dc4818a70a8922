//! `GET /billing/health`: whether the database answers. No token.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::answer::{ApiError, Moment};
use crate::state::BillingApi;

#[derive(Serialize)]
pub(crate) struct HealthView {
    status: &'static str,
    service: &'static str,
    timestamp: Moment,
    version: &'static str,
}

pub(crate) async fn health(State(api): State<BillingApi>) -> Result<Json<HealthView>, ApiError> {
    api.pulse().check().await.map_err(ApiError::Away)?;
    Ok(Json(HealthView {
        status: "healthy",
        service: "billing",
        timestamp: Moment(api.now()?),
        version: env!("CARGO_PKG_VERSION"),
    }))
}
