//! `GET /billing/health`: whether the database answers. No token.

use axum::Json;
use axum::extract::State;
use goldleaves_ledger::{LedgerError, StoreError};
use serde::Serialize;

use crate::answer::{ApiError, Moment};
use crate::service::BillingApi;

#[derive(Serialize)]
pub(crate) struct HealthView {
    status: &'static str,
    service: &'static str,
    timestamp: Moment,
    version: &'static str,
}

pub(crate) async fn health(State(api): State<BillingApi>) -> Result<Json<HealthView>, ApiError> {
    api.ledger().store().ping().await.map_err(away)?;
    Ok(Json(HealthView {
        status: "healthy",
        service: "billing",
        timestamp: Moment(api.now()?),
        version: env!("CARGO_PKG_VERSION"),
    }))
}

/// Here any failure means that the service is not healthy, whatever else it is.
fn away(error: StoreError) -> ApiError {
    LedgerError::from(if error.is_transient() { error } else { StoreError::TimedOut }).into()
}
