//! The period a query asks for: each name at most once, readable, or a clear 400.

use axum::extract::FromRequestParts;
use goldleaves_domain::{Period, Timestamp};
use http::request::Parts;

use crate::answer::ApiError;
use crate::service::BillingApi;

/// `?start_date&end_date`, as they came.
#[derive(Debug, Default)]
pub(crate) struct PeriodQuery {
    start: Option<String>,
    end: Option<String>,
}

impl PeriodQuery {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match name.as_ref() {
                "start_date" => &mut parsed.start,
                "end_date" => &mut parsed.end,
                _ => continue,
            };
            if slot.replace(value.into_owned()).is_some() {
                return Err(ApiError::Parameter(format!("{name} is given more than once")));
            }
        }
        Ok(parsed)
    }

    /// The period, with what is missing taken from `now`'s month.
    pub(crate) fn period(&self, now: Timestamp) -> Result<Period, ApiError> {
        period(self.start.as_deref(), self.end.as_deref(), now)
    }
}

/// The period between two texts.
pub(crate) fn period(start: Option<&str>, end: Option<&str>, now: Timestamp) -> Result<Period, ApiError> {
    Period::parse(start, end, now).map_err(|error| ApiError::Parameter(error.to_string()))
}

impl FromRequestParts<BillingApi> for PeriodQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &BillingApi) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_once() {
        let parsed =
            PeriodQuery::parse("start_date=2026-01-01&other=1&end_date=2026-02-01T00%3A00%3A00%2B01%3A00").unwrap();
        assert_eq!(parsed.start.as_deref(), Some("2026-01-01"));
        assert_eq!(parsed.end.as_deref(), Some("2026-02-01T00:00:00+01:00"));
        for twice in ["start_date=2026-01-01&start_date=2026-01-01", "end_date=&end_date="] {
            assert!(matches!(PeriodQuery::parse(twice), Err(ApiError::Parameter(_))), "{twice}");
        }
    }

    #[test]
    fn unreadable_dates_are_named() {
        let now = "2026-05-05".parse().unwrap();
        for (start, end, word) in [
            (Some("yesterday"), None, "start_date"),
            (None, Some(""), "end_date"),
            (Some("2026-06-01"), Some("2026-06-01"), "after"),
        ] {
            let Err(ApiError::Parameter(text)) = period(start, end, now) else { panic!("{start:?} {end:?}") };
            assert!(text.contains(word), "{text}");
        }
    }
}
