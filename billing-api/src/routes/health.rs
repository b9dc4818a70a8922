//! `GET /billing/health`: whether the database answers. No token.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use crate::answer::ApiError;
use crate::cell::{Cell, Item};
use crate::contract::usage::HEALTH;
use crate::state::BillingApi;

pub(crate) async fn health(State(api): State<BillingApi>) -> Result<Response, ApiError> {
    api.pulse().check().await.map_err(ApiError::Away)?;
    let now = Cell::text(api.now()?);
    let cells = [Cell::text("healthy"), Cell::text("billing"), now, Cell::text(env!("CARGO_PKG_VERSION"))];
    Ok(Item::new(&HEALTH, cells).answer(StatusCode::OK))
}
