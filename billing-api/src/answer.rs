//! Errors as problem+json: each with its status, its code and words for people.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use goldleaves_auth::TokenError;
use goldleaves_billing::{BillingError, Refusal, RefusalCode};
use goldleaves_domain::TimestampError;
use goldleaves_runtime::process;
use goldleaves_web::{Problem, ProblemCode};
use http::{HeaderValue, StatusCode};

/// The reason a call is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// 401.
    #[error("the token is not valid")]
    Token(#[from] TokenError),
    /// 403, the same words whether the tenant exists or not.
    #[error("the token gives no access to this tenant's usage")]
    ForeignTenant,
    /// 403, with what it takes.
    #[error("this needs {0}")]
    Forbidden(&'static str),
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
    /// 404: a period that has not begun, with the one that is open.
    #[error("there is no period {number} yet: the open one is number {open}")]
    NoPeriod {
        /// The number that was asked for.
        number: i64,
        /// The number of the open one.
        open: i64,
    },
    /// 405, with what is allowed.
    #[error("only {0} is answered here")]
    Method(&'static str),
    /// 429: the caller's tenant has its part of the database already, and many calls that wait.
    #[error("only {at_once} calls of a tenant are answered at once, and many wait already; try again in a moment")]
    Busy {
        /// The number that is answered at once.
        at_once: usize,
    },
    /// 503, with why the database does not answer.
    #[error("the database is away; try again later")]
    Away(String),
    /// 406.
    #[error("the answer can be application/json or text/csv")]
    NotAcceptable,
    /// 422.
    #[error("{0}")]
    MeterUnfit(String),
    /// 503, with what the log says of it.
    #[error("Stripe does not answer, or refuses; try again later")]
    Stripe(String),
    /// 503: this program calls nobody.
    #[error("STRIPE_API_KEY is not set: nothing is pushed, and nothing is read of Stripe")]
    NotPushing,
    /// 503: an answer of Stripe's, which its words or ours say.
    #[error("{0}")]
    StripeSays(String),
    /// 400, without a word of why.
    #[error("this is no webhook of Stripe")]
    Signature,
    /// 500: the clock is outside the years that can be written.
    #[error("the clock is wrong")]
    Clock(#[from] TimestampError),
    /// An error of billing: 503 when the database is away or too slow, else what it says of itself, else 500.
    #[error("billing did not answer")]
    Billing(#[from] BillingError),
}

impl ApiError {
    fn problem(&self) -> Problem {
        let problem = |status, code| Problem::new(status, code, self.to_string());
        match self {
            Self::Token(error) => Problem::unauthorized(*error),
            Self::ForeignTenant => problem(StatusCode::FORBIDDEN, ProblemCode::TenantForbidden),
            Self::Forbidden(_) => problem(StatusCode::FORBIDDEN, ProblemCode::RoleMissing),
            Self::Parameter(_) => problem(StatusCode::BAD_REQUEST, ProblemCode::ParameterInvalid),
            Self::BodyInvalid(_) => problem(StatusCode::BAD_REQUEST, ProblemCode::BodyInvalid),
            Self::Body(status, _) => problem(*status, body_code(*status)),
            Self::NotFound | Self::NoPeriod { .. } => problem(StatusCode::NOT_FOUND, ProblemCode::NotFound),
            Self::Method(allowed) => problem(StatusCode::METHOD_NOT_ALLOWED, ProblemCode::MethodNotAllowed)
                .header(http::header::ALLOW, HeaderValue::from_static(allowed)),
            Self::NotAcceptable => problem(StatusCode::NOT_ACCEPTABLE, ProblemCode::NotAcceptable),
            Self::Busy { .. } => problem(StatusCode::TOO_MANY_REQUESTS, ProblemCode::ConcurrencyLimited)
                .header(http::header::RETRY_AFTER, HeaderValue::from_static("1")),
            Self::Away(_) => problem(StatusCode::SERVICE_UNAVAILABLE, ProblemCode::DatabaseUnavailable)
                .header(http::header::RETRY_AFTER, HeaderValue::from_static("5")),
            Self::MeterUnfit(_) => problem(StatusCode::UNPROCESSABLE_ENTITY, ProblemCode::MeterUnfit),
            Self::Stripe(_) | Self::NotPushing | Self::StripeSays(_) => {
                problem(StatusCode::SERVICE_UNAVAILABLE, ProblemCode::StripeUnavailable)
                    .header(http::header::RETRY_AFTER, HeaderValue::from_static("60"))
            }
            Self::Signature => problem(StatusCode::BAD_REQUEST, ProblemCode::SignatureInvalid),
            Self::Clock(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, ProblemCode::InternalError),
            Self::Billing(error) => of_billing(error),
        }
    }

    /// Returns the cause for the log, where that is more than the caller is told.
    fn cause(&self) -> Option<String> {
        match self {
            Self::Billing(BillingError::Refused(_)) => None,
            Self::Billing(error) => Some(process::chain(error)),
            Self::Away(cause) | Self::Stripe(cause) => Some(cause.clone()),
            _ => None,
        }
    }
}

fn of_billing(error: &BillingError) -> Problem {
    let later = |code, detail: &'static str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            .header(http::header::RETRY_AFTER, HeaderValue::from_static("5"))
    };
    match error {
        BillingError::Refused(refusal) => of_refusal(refusal),
        BillingError::MissingCard { .. } => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemCode::RateCardMissing, error.to_string())
        }
        BillingError::TooSlow => {
            later(ProblemCode::TooSlow, "the database took longer than 10 s; ask for a shorter range")
        }
        error if error.is_transient() => {
            later(ProblemCode::DatabaseUnavailable, "the database is away; try again later")
        }
        _ => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemCode::InternalError, "the database could not answer")
        }
    }
}

fn of_refusal(refusal: &Refusal) -> Problem {
    let (status, code) = match refusal.code {
        RefusalCode::AlreadyExists => (StatusCode::CONFLICT, ProblemCode::AlreadyExists),
        RefusalCode::NoSuchEvent => (StatusCode::NOT_FOUND, ProblemCode::NoSuchEvent),
        RefusalCode::UsageExists => (StatusCode::CONFLICT, ProblemCode::UsageExists),
        RefusalCode::BodyInvalid => (StatusCode::BAD_REQUEST, ProblemCode::BodyInvalid),
        RefusalCode::NotBilled => (StatusCode::CONFLICT, ProblemCode::NotBilled),
        RefusalCode::AlreadyVoid => (StatusCode::CONFLICT, ProblemCode::AlreadyVoid),
        RefusalCode::TooEarly => (StatusCode::CONFLICT, ProblemCode::TooEarly),
        RefusalCode::OutOfOrder => (StatusCode::CONFLICT, ProblemCode::OutOfOrder),
        RefusalCode::Archived => (StatusCode::CONFLICT, ProblemCode::Archived),
        RefusalCode::TooManyGroups => (StatusCode::BAD_REQUEST, ProblemCode::TooManyGroups),
        RefusalCode::TooManyRows => (StatusCode::BAD_REQUEST, ProblemCode::TooManyRows),
        RefusalCode::LaneFull => (StatusCode::UNPROCESSABLE_ENTITY, ProblemCode::MeterUnfit),
        RefusalCode::Invalid => (StatusCode::BAD_REQUEST, ProblemCode::ParameterInvalid),
        RefusalCode::NotFound => (StatusCode::NOT_FOUND, ProblemCode::NotFound),
    };
    Problem::new(status, code, refusal.detail.clone())
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
        let failure = Failure { problem: self.problem(), cause: self.cause() };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = failure.problem.status();
        response.extensions_mut().insert(failure);
        response
    }
}
