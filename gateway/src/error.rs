//! Every way a request can fail at the gateway, and the one place that says which status each is.

use std::time::Duration;

use goldleaves_domain::PathError;
use goldleaves_web::{TenantChoiceError, TokenError};
use http::{HeaderMap, StatusCode};

use crate::proxy::{ConnectError, UploadFailure};
use crate::record::VoidReason;

/// Why the gateway answers a request itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("the path can't be normalised without ambiguity")]
    Path(#[from] PathError),
    #[error("the request's target has no path")]
    Target,
    #[error("the gateway is no tunnel: CONNECT is not served")]
    Connect,
    #[error("the request's method is longer than any that is known")]
    Method,
    #[error("a request has exactly one Host")]
    Host,
    #[error("only the transfer coding chunked is known")]
    TransferCoding,
    #[error("the request's header is larger than {bytes_max} bytes")]
    HeaderTooLarge { bytes_max: usize },
    #[error("the request's body is larger than {bytes_max} bytes")]
    BodyTooLarge { bytes_max: u64 },
    #[error("too many requests are being served at once")]
    Overloaded,
    #[error("no such page here")]
    NotFound,
    #[error("only GET and HEAD are served here")]
    MethodNotAllowed,
    #[error("no valid token")]
    Token(#[from] TokenError),
    #[error("no such choice of a tenant")]
    TenantChoice(#[from] TenantChoiceError),
    #[error("the token names no tenant, or several: choose one with X-Organization-ID")]
    TenantMissing,
    #[error("the tenant's requests a second are used up")]
    RateLimited { retry_after: Duration },
    #[error("the call can't be recorded now")]
    Unrecorded,
    #[error("the call's record did not reach the disk")]
    NotDurable,
    #[error("the upstream can't be reached")]
    Unreachable(#[source] ConnectError),
    #[error("the upstream broke off before its answer")]
    UpstreamBroke(#[source] hyper::Error),
    #[error("the upstream's answer can't be passed on: {0}")]
    UpstreamAnswer(&'static str),
    #[error("the upstream gave no answer in time")]
    UpstreamSilent,
    #[error("the request's body did not arrive")]
    Upload(#[source] UploadFailure),
    #[error("an unexpected fault of the gateway")]
    Panic,
}

impl GatewayError {
    /// The status of the response.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) | Self::Target | Self::Host => StatusCode::BAD_REQUEST,
            Self::TenantChoice(TenantChoiceError::Ambiguous) => StatusCode::BAD_REQUEST,
            Self::Upload(UploadFailure::ClientLeft | UploadFailure::Malformed) => StatusCode::BAD_REQUEST,
            Self::Connect | Self::Method | Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::HeaderTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge { .. } | Self::Upload(UploadFailure::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Upload(UploadFailure::Idle) => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded | Self::Unrecorded | Self::NotDurable => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::TenantChoice(TenantChoiceError::Foreign) | Self::TenantMissing => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unreachable(ConnectError::TimedOut(_)) | Self::UpstreamSilent => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable(_) | Self::UpstreamBroke(_) | Self::UpstreamAnswer(_) => StatusCode::BAD_GATEWAY,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Why an announced call that failed like this leaves no event.
    pub(crate) const fn void_reason(&self) -> VoidReason {
        match self {
            Self::Unreachable(_) => VoidReason::UpstreamUnreachable,
            Self::UpstreamBroke(_) | Self::UpstreamSilent | Self::UpstreamAnswer(_) => VoidReason::UpstreamFailed,
            Self::NotDurable => VoidReason::NotDurable,
            _ => VoidReason::Refused,
        }
    }

    /// When it is worth coming back, in whole seconds.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after } => Some(retry_after.as_secs_f64().ceil().max(1.0) as u64),
            Self::Overloaded | Self::Unrecorded | Self::NotDurable => Some(1),
            _ => None,
        }
    }

    /// Whether it is the gateway's or the upstream's fault, and worth a warning.
    pub(crate) fn is_fault(&self) -> bool {
        self.status().is_server_error() && !matches!(self, Self::Connect | Self::Method | Self::TransferCoding)
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
