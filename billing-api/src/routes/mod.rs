//! The handlers, a file per resource.

pub(crate) mod audit;
pub(crate) mod corrections;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod invoice;
pub(crate) mod late;
pub(crate) mod periods;
pub(crate) mod rate_cards;
pub(crate) mod report_usage;
pub(crate) mod stripe;
pub(crate) mod tenants;
pub(crate) mod usage;
pub(crate) mod webhook;

use http::StatusCode;

use crate::answer::ApiError;

/// 201 for what a call made, 200 for what was there.
pub(crate) const fn status_of(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

/// A period's number.
pub(crate) fn number(text: &str) -> Result<i64, ApiError> {
    let number = text.parse::<i64>().ok().filter(|number| *number > 0 && !text.starts_with('+'));
    number.ok_or_else(|| ApiError::Parameter(format!("{text:?} is no period's number: they count from 1")))
}
