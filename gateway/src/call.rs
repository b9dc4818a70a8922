//! A request on its way in. Each layer finds something out, and its type says what is known: a layer in the wrong
//! place does not compile.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use goldleaves_domain::{NormalPath, RequestId, RoutePattern, TenantId, Timestamp, UserId};
use goldleaves_trace::OpenSpan;
use goldleaves_web::WebBody;
use http::{HeaderValue, Request};

use crate::capture::Meter;
use crate::edge::{Heading, Way};
use crate::layers::OpenCall;
use crate::proxy::UploadWatch;
use crate::spans::CallTrace;

/// A request as hyper parsed it.
pub(crate) struct Arrived {
    pub(crate) request: Request<WebBody>,
    /// The socket's other end, written out once a connection.
    pub(crate) peer: HeaderValue,
}

/// The facts that hold for the whole call.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The address of the socket's other end, ready to be sent.
    pub(crate) peer: HeaderValue,
    /// When the head arrived, for durations and for the ledger.
    pub(crate) arrived: Instant,
    pub(crate) arrived_at: Timestamp,
    pub(crate) request_id: RequestId,
    /// The same, ready to be sent.
    pub(crate) request_id_header: HeaderValue,
    pub(crate) client_chose_id: bool,
}

/// With its id.
pub(crate) struct Identified {
    pub(crate) request: Request<WebBody>,
    pub(crate) facts: Facts,
}

/// With its place in a trace.
pub(crate) struct Traced {
    pub(crate) request: Request<WebBody>,
    pub(crate) facts: Facts,
    pub(crate) trace: CallTrace,
    /// Its place among the tenant's open calls, once the tenant is known.
    pub(crate) place: Option<OpenCall>,
}

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The domain service.
    Upstream,
    /// The billing API.
    Billing,
}

/// Writes the name that errors use.
impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Upstream => "the upstream",
            Self::Billing => "billing-api",
        })
    }
}

/// Says whether a call needs a token, and what it is billed as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Public: no token is required.
    Open,
    /// A valid token, no bill.
    Unbilled,
    /// A valid token with a tenant; billed as this route.
    Billable(RoutePattern),
}

/// With its one path and what that means.
pub(crate) struct Routed {
    pub(crate) traced: Traced,
    pub(crate) path: NormalPath,
    pub(crate) heading: Heading,
    pub(crate) admission: Admission,
}

/// The caller's names as the upstream is told them.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) user: HeaderValue,
    pub(crate) tenant: Option<HeaderValue>,
}

/// The caller, as the verified token says.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) told: Told,
    /// When the token stops to be valid, if that is ever.
    pub(crate) expires: Option<Instant>,
}

/// The caller whose tenant pays.
#[derive(Debug, Clone)]
pub(crate) struct BilledCaller {
    pub(crate) user: UserId,
    pub(crate) tenant: TenantId,
    pub(crate) told: Told,
    /// The same as [`Caller::expires`].
    pub(crate) expires: Option<Instant>,
}

impl From<BilledCaller> for Caller {
    fn from(caller: BilledCaller) -> Self {
        Self { tenant: Some(caller.tenant), told: caller.told, expires: caller.expires }
    }
}

/// Let in.
pub(crate) enum Admitted {
    /// Without being asked.
    Open { traced: Traced, path: NormalPath, heading: Heading },
    /// With a token.
    Unbilled { traced: Traced, path: NormalPath, heading: Heading, caller: Caller },
    /// With a token and a tenant.
    Billable { traced: Traced, path: NormalPath, heading: Heading, caller: BilledCaller, route: RoutePattern },
}

/// Metered, if it is to be, and ready to become a request to the upstream.
pub(crate) struct Captured {
    pub(crate) traced: Traced,
    pub(crate) path: NormalPath,
    pub(crate) caller: Option<Caller>,
    pub(crate) heading: Heading,
    pub(crate) meter: Option<Meter>,
    /// Sees the request's body, when there is one.
    pub(crate) watch: Option<UploadWatch>,
}

/// A request as the upstream shall see it, but for what belongs to one connection.
pub(crate) struct Outbound {
    pub(crate) request: Request<WebBody>,
    pub(crate) facts: Facts,
    pub(crate) way: Arc<Way>,
    /// When the caller's token stops to be valid.
    pub(crate) expires: Option<Instant>,
    pub(crate) meter: Option<Meter>,
    pub(crate) watch: Option<UploadWatch>,
    /// The span of the call to the upstream, when it is exported.
    pub(crate) span: Option<OpenSpan>,
    /// Given back when the answer has ended.
    pub(crate) place: Option<OpenCall>,
}
