//! Every way a request can fail at the gateway, and the one place that says which status and code each is.

use std::borrow::Cow;
use std::time::Duration;

use goldleaves_auth::TokenError;
use goldleaves_domain::{PathError, TenantId};
use goldleaves_record::VoidReason;
use goldleaves_web::ProblemCode;
use http::{HeaderMap, Response, StatusCode};

use crate::destination::Destination;
use crate::transport::{ConnectError, UploadFailure};

/// The reason the gateway answers a request itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("the path can't be normalised without ambiguity")]
    Path(#[from] PathError),
    #[error("the request's target has no path")]
    Target,
    #[error("the request's target has another scheme than http and https")]
    Scheme,
    #[error("the path can't be rewritten without ambiguity")]
    Rewritten,
    #[error("no route leads there")]
    NoRoute,
    #[error("the gateway is no tunnel: CONNECT is not served")]
    Connect,
    #[error("the request's method is longer than any that is known")]
    Method,
    #[error("a request has exactly one Host: a name or an address, and a port or none")]
    Host,
    #[error("only the transfer coding chunked is known")]
    TransferCoding,
    #[error("the request's header is larger than {bytes_max} bytes")]
    HeaderTooLarge { bytes_max: usize },
    #[error("a header field's value begins or ends with a blank, which HTTP/2 does not allow")]
    HeaderBlanks,
    #[error("the request has more than {fields_max} header fields")]
    HeaderFields { fields_max: usize },
    #[error("Expect knows only 100-continue")]
    Expectation,
    #[error("HTTP/2 is spoken with prior knowledge, not by Upgrade: h2c")]
    UpgradeRefused,
    #[error("the upstream of this route speaks HTTP/2 and switches to no other protocol")]
    UpgradeUnsupported,
    #[error("the request came back to the gateway that sent it: the upstream is the gateway itself")]
    Loop,
    #[error("the request's body is larger than {bytes_max} bytes")]
    BodyTooLarge { bytes_max: u64 },
    #[error("too many requests are being served at once")]
    Overloaded,
    #[error("no such page here")]
    NotFound,
    #[error("only {allowed} are served here")]
    MethodNotAllowed { allowed: Cow<'static, str> },
    #[error("no valid token")]
    Token(#[from] TokenError),
    #[error("X-Organization-ID and X-Tenant-ID must be given once and be equal")]
    TenantChosenTwice { choices: Vec<TenantId> },
    #[error("the token gives no access to this organization")]
    TenantForbidden,
    #[error("the token names no tenant, and this route is billed to one")]
    TenantMissing,
    #[error("the token names several tenants: choose one of them with X-Organization-ID")]
    TenantNotChosen { choices: Vec<TenantId> },
    #[error("too many requests: the rate limit of this tenant, or of this address without one, is exceeded")]
    RateLimited { retry_after: Duration },
    #[error("this tenant, or this address without one, has as many calls open as it may have")]
    ConcurrencyLimited,
    #[error("the call can't be recorded now")]
    Unrecorded,
    #[error("the call's record did not reach the disk")]
    NotDurable,
    #[error("{whom} {error}")]
    Upstream {
        whom: Destination,
        #[source]
        error: UpstreamError,
    },
    #[error("the request's body did not arrive")]
    Upload(#[source] UploadFailure),
    #[error("an unexpected fault of the gateway")]
    Panic,
}

/// The fault on the far side, to be read after the name of that side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("can't be reached")]
    Unreachable(#[source] ConnectError),
    #[error("can't be reached at any of its addresses")]
    NoneReached(#[source] ConnectError),
    #[error("has no address now")]
    NoAddress,
    #[error("has all the calls that it may have at once (requests_max)")]
    RequestsMax,
    #[error("has all the connections that it may have (UPSTREAM_CONNECTIONS_MAX)")]
    Busy,
    #[error("broke off before its answer")]
    Broke(#[source] hyper::Error),
    #[error("gave an answer that can't be passed on: {0}")]
    Answer(&'static str),
    #[error("gave no answer in time")]
    Silent,
}

impl UpstreamError {
    /// The error with whose it is.
    pub(crate) const fn of(self, whom: Destination) -> GatewayError {
        GatewayError::Upstream { whom, error: self }
    }

    /// Returns whether the upstream may have seen the call.
    const fn was_sent(&self) -> bool {
        matches!(self, Self::Broke(_) | Self::Answer(_) | Self::Silent)
    }

    const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy | Self::RequestsMax)
    }

    const fn is_late(&self) -> bool {
        matches!(self, Self::Unreachable(ConnectError::TimedOut(_)) | Self::Silent)
    }

    const fn code(&self, whom: Destination) -> ProblemCode {
        match (whom, self) {
            (_, busy) if busy.is_busy() => ProblemCode::UpstreamBusy,
            (_, Self::NoneReached(_) | Self::NoAddress) => ProblemCode::NoUpstream,
            (Destination::Upstream, late) if late.is_late() => ProblemCode::UpstreamTimeout,
            (Destination::Upstream, Self::Unreachable(_)) => ProblemCode::UpstreamUnreachable,
            (Destination::Upstream, Self::Answer(_)) => ProblemCode::UpstreamAnswerInvalid,
            (Destination::Upstream, _) => ProblemCode::UpstreamFailed,
            (Destination::Billing, late) if late.is_late() => ProblemCode::BillingTimeout,
            (Destination::Billing, Self::Unreachable(_)) => ProblemCode::BillingUnreachable,
            (Destination::Billing, Self::Answer(_)) => ProblemCode::BillingAnswerInvalid,
            (Destination::Billing, _) => ProblemCode::BillingFailed,
        }
    }
}

impl GatewayError {
    /// The status of the response.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) | Self::Target | Self::Scheme | Self::Rewritten | Self::Host | Self::UpgradeRefused => {
                StatusCode::BAD_REQUEST
            }
            Self::TenantChosenTwice { .. } | Self::HeaderBlanks => StatusCode::BAD_REQUEST,
            Self::Upload(UploadFailure::ClientLeft | UploadFailure::Malformed) => StatusCode::BAD_REQUEST,
            Self::Connect | Self::Method | Self::TransferCoding | Self::UpgradeUnsupported => {
                StatusCode::NOT_IMPLEMENTED
            }
            Self::HeaderTooLarge { .. } | Self::HeaderFields { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::BodyTooLarge { .. } | Self::Upload(UploadFailure::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Upload(UploadFailure::Idle) => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded | Self::Unrecorded | Self::NotDurable => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::TenantForbidden | Self::TenantMissing | Self::TenantNotChosen { .. } => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } | Self::ConcurrencyLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Upstream { error, .. } if error.is_busy() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream { error, .. } if error.is_late() => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream { .. } => StatusCode::BAD_GATEWAY,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for programs.
    pub(crate) const fn code(&self) -> ProblemCode {
        match self {
            Self::Path(_) | Self::Target | Self::Scheme | Self::Rewritten => ProblemCode::PathInvalid,
            Self::NoRoute => ProblemCode::NoRoute,
            Self::Host => ProblemCode::HostInvalid,
            Self::TenantChosenTwice { .. } | Self::TenantNotChosen { .. } => ProblemCode::TenantAmbiguous,
            Self::Upload(UploadFailure::ClientLeft | UploadFailure::Malformed) => ProblemCode::BodyInvalid,
            Self::Connect | Self::Method => ProblemCode::MethodUnknown,
            Self::TransferCoding => ProblemCode::TransferCodingUnknown,
            Self::HeaderTooLarge { .. } => ProblemCode::HeaderTooLarge,
            Self::HeaderFields { .. } => ProblemCode::HeaderFieldsTooMany,
            Self::HeaderBlanks => ProblemCode::HeaderInvalid,
            Self::Expectation => ProblemCode::ExpectationFailed,
            Self::UpgradeRefused | Self::UpgradeUnsupported => ProblemCode::UpgradeRefused,
            Self::Loop => ProblemCode::LoopDetected,
            Self::BodyTooLarge { .. } | Self::Upload(UploadFailure::TooLarge) => ProblemCode::BodyTooLarge,
            Self::Upload(UploadFailure::Idle) => ProblemCode::BodyTimeout,
            Self::Overloaded => ProblemCode::Overloaded,
            Self::Unrecorded | Self::NotDurable => ProblemCode::CallUnrecorded,
            Self::NotFound => ProblemCode::NotFound,
            Self::MethodNotAllowed { .. } => ProblemCode::MethodNotAllowed,
            Self::Token(error) => ProblemCode::of_token(*error),
            Self::TenantForbidden => ProblemCode::TenantForbidden,
            Self::TenantMissing => ProblemCode::TenantMissing,
            Self::RateLimited { .. } => ProblemCode::RateLimited,
            Self::ConcurrencyLimited => ProblemCode::ConcurrencyLimited,
            Self::Upstream { whom, error } => error.code(*whom),
            Self::Panic => ProblemCode::InternalError,
        }
    }

    /// Returns the reason an announced call that failed like this leaves no event.
    pub(crate) const fn void_reason(&self) -> VoidReason {
        match self {
            Self::Upstream { error, .. } if !error.was_sent() => VoidReason::UpstreamUnreachable,
            Self::Upstream { .. } => VoidReason::UpstreamFailed,
            Self::NotDurable => VoidReason::NotDurable,
            _ => VoidReason::Refused,
        }
    }

    /// When it is worth coming back, in whole seconds.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after } => Some(retry_after.as_secs_f64().ceil().max(1.0) as u64),
            Self::Overloaded | Self::ConcurrencyLimited | Self::Unrecorded | Self::NotDurable => Some(1),
            Self::Upstream { error, .. } if error.is_busy() => Some(1),
            _ => None,
        }
    }

    /// Returns whether it is the gateway's or the upstream's fault, and worth a warning.
    pub(crate) fn is_fault(&self) -> bool {
        let expected = match self {
            Self::Connect | Self::Method | Self::TransferCoding | Self::UpgradeUnsupported => true,
            // As many as clients care to make: the metric has their number.
            Self::Upstream { error, .. } => error.is_busy(),
            _ => false,
        };
        self.status().is_server_error() && !expected
    }
}

/// An error on its way out, with the headers that layers outside of the one that failed add to its response.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: GatewayError,
    pub(crate) headers: HeaderMap,
}

impl<E: Into<GatewayError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), headers: HeaderMap::new() }
    }
}

/// The answer's status for everybody but the client: logs and traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HttpStatus(pub(crate) StatusCode);

impl HttpStatus {
    /// The status that a response stands for.
    pub(crate) fn of<B>(response: &Response<B>) -> StatusCode {
        response.extensions().get::<Self>().map_or(response.status(), |status| status.0)
    }
}
