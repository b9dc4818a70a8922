//! Errors as problem+json, and numbers as JSON that loses nothing.

use std::fmt::Display;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use goldleaves_domain::{Timestamp, TimestampError};
use goldleaves_ledger::LedgerError;
use goldleaves_runtime::process;
use goldleaves_web::{Problem, ProblemCode, TokenError};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

/// Why a call is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// 401.
    #[error("the token is not valid")]
    Token(#[from] TokenError),
    /// 403, the same words whether the tenant exists or not.
    #[error("the token gives no access to this tenant's usage")]
    ForeignTenant,
    /// 403.
    #[error("reporting usage needs the role admin or billing:write")]
    MayNotReport,
    /// 400: of the query or the path.
    #[error("{0}")]
    Parameter(String),
    /// 400: of what the body says.
    #[error("{0}")]
    BodyInvalid(String),
    /// 413, 415 and the like: what the body is, not what it says.
    #[error("{1}")]
    Body(StatusCode, String),
    /// 404.
    #[error("there is nothing here; /billing/docs lists what is")]
    NotFound,
    /// 405, with what is allowed.
    #[error("only {0} is answered here")]
    Method(&'static str),
    /// 500: the clock is outside the years that can be written.
    #[error("the clock is wrong")]
    Clock(#[from] TimestampError),
    /// 503 when the database is away, else 500.
    #[error("the ledger did not answer")]
    Ledger(#[from] LedgerError),
}

impl ApiError {
    fn problem(&self) -> Problem {
        let problem = |status, code| Problem::new(status, code, self.to_string());
        match self {
            Self::Token(error) => Problem::unauthorized(*error),
            Self::ForeignTenant => problem(StatusCode::FORBIDDEN, ProblemCode::TenantForbidden),
            Self::MayNotReport => problem(StatusCode::FORBIDDEN, ProblemCode::RoleMissing),
            Self::Parameter(_) => problem(StatusCode::BAD_REQUEST, ProblemCode::ParameterInvalid),
            Self::BodyInvalid(_) => problem(StatusCode::BAD_REQUEST, ProblemCode::BodyInvalid),
            Self::Body(status, _) => problem(*status, body_code(*status)),
            Self::NotFound => problem(StatusCode::NOT_FOUND, ProblemCode::NotFound),
            Self::Method(allowed) => problem(StatusCode::METHOD_NOT_ALLOWED, ProblemCode::MethodNotAllowed)
                .header(http::header::ALLOW, HeaderValue::from_static(allowed)),
            Self::Ledger(error) if error.is_transient() => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ProblemCode::DatabaseUnavailable,
                "the database is away; try again later",
            )
            .header(http::header::RETRY_AFTER, HeaderValue::from_static("5")),
            Self::Clock(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, ProblemCode::InternalError),
            Self::Ledger(error @ LedgerError::MissingCard { .. }) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemCode::InternalError, error.to_string())
            }
            Self::Ledger(_) => Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ProblemCode::InternalError,
                "the ledger could not answer",
            ),
        }
    }
}

/// The code of a body that could not be read.
fn body_code(status: StatusCode) -> ProblemCode {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => ProblemCode::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemCode::MediaTypeUnsupported,
        status if status.is_server_error() => ProblemCode::InternalError,
        _ => ProblemCode::BodyInvalid,
    }
}

/// Left in the response for the layer that knows the request's id, which makes the document and the log line.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) cause: Option<String>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let cause = match &self {
            Self::Ledger(error) => Some(process::chain(error)),
            _ => None,
        };
        let failure = Failure { problem: self.problem(), cause };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = failure.problem.status();
        response.extensions_mut().insert(failure);
        response
    }
}

/// A number of any size as a JSON number, written as `Display` writes it.
pub(crate) fn exact(number: impl Display) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(number.to_string()).map_err(|error| {
        ApiError::Body(StatusCode::INTERNAL_SERVER_ERROR, format!("a number could not be written: {error}"))
    })
}

/// A moment as RFC 3339 in UTC with `Z`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
