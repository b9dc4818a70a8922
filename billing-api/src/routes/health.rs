//! `GET /billing/health`: whether the database answers. No token.

use axum::Json;
use axum::extract::State;
use goldleaves_billing::BillingError;
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
    // Here any failure means that the service is not healthy, whatever else it is.
    api.billing()
        .store()
        .ping()
        .await
        .map_err(|error| if error.is_transient() { BillingError::Store(error) } else { BillingError::TooSlow })?;
    Ok(Json(HealthView {
        status: "healthy",
        service: "billing",
        timestamp: Moment(api.now()?),
        version: env!("CARGO_PKG_VERSION"),
    }))
}
