//! A request on its way in. Each layer finds something out, and its type says what is known: a layer in the wrong
//! place does not compile. What all layers hand on is in boxes: it would be copied a dozen times otherwise.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use goldleaves_domain::{NormalPath, RoutePattern, TenantId, UserId};
use goldleaves_trace::OpenSpan;
use goldleaves_web::WebBody;
use http::{HeaderValue, Request};

use crate::edge::{Heading, Way};
use crate::error::GatewayError;
use crate::facts::Facts;
use crate::open_calls::OpenCall;
use crate::spans::CallTrace;
use crate::transport::UploadWatch;

/// A request as hyper parsed it.
pub(crate) struct Arrived {
    pub(crate) request: Box<Request<WebBody>>,
    /// The socket's other end, written out once a connection.
    pub(crate) peer: HeaderValue,
}

/// With its id.
pub(crate) struct Identified {
    pub(crate) request: Box<Request<WebBody>>,
    pub(crate) facts: Box<Facts>,
}

/// With its place in a trace.
pub(crate) struct Traced {
    pub(crate) request: Box<Request<WebBody>>,
    pub(crate) facts: Box<Facts>,
    pub(crate) trace: CallTrace,
    /// Its place among the tenant's open calls, once the tenant is known.
    pub(crate) place: Option<OpenCall>,
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

/// The guard of a metered call, as the proxy sees it: it must be told when the upstream is about to hear of the call, and
/// when it never will.
pub(crate) trait HandOver: Send + 'static {
    /// Looks whether the call can be announced, before anything is done for it.
    ///
    /// # Errors
    /// When the spool would not take the INTENT and calls may not go unrecorded.
    fn check(&mut self) -> Result<(), GatewayError>;

    /// Announces the call: the upstream connection is there, the request is sent next. Once, however often it is
    /// sent.
    ///
    /// # Errors
    /// When the spool does not take the INTENT and calls may not go unrecorded.
    fn hand_over(&mut self) -> impl Future<Output = Result<(), GatewayError>> + Send;

    /// The gateway answers the call itself, with this error.
    fn failed(&mut self, error: &GatewayError);
}

/// Metered, if it is to be, and ready to become a request to the upstream.
pub(crate) struct Captured<M> {
    pub(crate) traced: Traced,
    pub(crate) path: NormalPath,
    pub(crate) caller: Option<Caller>,
    pub(crate) heading: Heading,
    pub(crate) meter: Option<M>,
    /// Sees the request's body, when there is one.
    pub(crate) watch: Option<UploadWatch>,
}

/// A request as the upstream shall see it, but for what belongs to one connection.
pub(crate) struct Outbound<M> {
    pub(crate) request: Box<Request<WebBody>>,
    pub(crate) facts: Box<Facts>,
    pub(crate) way: Arc<Way>,
    /// When the caller's token stops to be valid.
    pub(crate) expires: Option<Instant>,
    pub(crate) meter: Option<M>,
    pub(crate) watch: Option<UploadWatch>,
    /// The span of the call to the upstream, when it is exported.
    pub(crate) span: Option<OpenSpan>,
    /// Given back when the answer has ended.
    pub(crate) place: Option<OpenCall>,
}
