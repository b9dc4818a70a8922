//! Makes the one path that is matched, metered and forwarded, says what it means, and answers what is the gateway's
//! own. Counts every request that came this far.

use std::sync::Arc;
use std::time::Instant;

use goldleaves_domain::{LocalRoute, NormalPath, PublicRoutes, RouteClass};
use goldleaves_web::WebBody;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::limits::{SERVED_METHODS, announced_length};
use super::{After, Answer, Inward, Step, is_preflight};
use crate::call::{Admission, Routed, Traced};
use crate::edge::Edge;
use crate::error::{Failure, GatewayError};
use crate::metrics::{CoreMetrics, RequestClass};
use crate::route_metrics::{RouteCounters, Row};

/// The layer.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) public: Arc<PublicRoutes>,
    pub(crate) edge: Arc<Edge>,
    /// True if the gateway answers browsers' preflights; if not, they are the upstream's, as all of CORS is.
    pub(crate) cors_here: bool,
    pub(crate) counters: Arc<RouteCounters>,
    pub(crate) metrics: Arc<CoreMetrics>,
}

/// Counts the answer.
pub(crate) struct Counted {
    class: RequestClass,
    row: Row,
    arrived: Instant,
    counters: Arc<RouteCounters>,
    metrics: Arc<CoreMetrics>,
}

impl Step<Traced> for Route {
    type Out = Routed;
    type After = Counted;
    type Error = Failure;

    fn inward(&self, call: Traced) -> Inward<Routed, Counted, Failure> {
        let target = call.request.uri().path_and_query().map(|target| target.path());
        if target == Some("*") && *call.request.method() == Method::OPTIONS {
            call.trace.matched(RequestClass::Local, None);
            return self.answered(Ok(options()));
        }
        let path = target.ok_or(GatewayError::Target).and_then(|path| Ok(NormalPath::normalise(path)?));
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                self.metrics.request(RequestClass::Refused, error.status());
                call.trace.matched(RequestClass::Refused, None);
                return Inward::Refused(error.into());
            }
        };
        let class = RouteClass::billed_by(&path, || self.edge.billed_as(&path, call.request.method()));
        let class = class.opened_by(&path, &self.public);
        if let RouteClass::Local(local) = class {
            call.trace.matched(RequestClass::Local, None);
            return self.answer(local, call.request.method());
        }
        let is_preflight = !self.cors_here && is_preflight(&call.request);
        let method = if is_preflight { preflown(&call.request) } else { call.request.method().clone() };
        let (heading, is_opened) = match self.edge.head_for(&path, &method, &class) {
            Ok(found) => found,
            Err(error) => {
                self.metrics.request(RequestClass::Refused, error.status());
                call.trace.matched(RequestClass::Refused, None);
                return Inward::Refused(error.into());
            }
        };
        let (class, admission) = match class {
            RouteClass::Billing => (RequestClass::Billing, Admission::Open),
            RouteClass::Unbilled | RouteClass::Billable(_) if is_preflight => {
                (RequestClass::Preflight, Admission::Open)
            }
            RouteClass::Unbilled | RouteClass::Billable(_) if is_opened => (RequestClass::Open, Admission::Open),
            RouteClass::Unbilled => (RequestClass::Unbilled, Admission::Unbilled),
            RouteClass::Billable(route) => (RequestClass::Billable, Admission::Billable(route)),
            RouteClass::Open | RouteClass::Local(_) => (RequestClass::Open, Admission::Open),
        };
        let bytes_max = heading.way.limits.body_bytes_max;
        if announced_length(call.request.headers()).is_some_and(|length| length > bytes_max) {
            let error = GatewayError::BodyTooLarge { bytes_max };
            self.metrics.request(RequestClass::Refused, error.status());
            call.trace.matched(RequestClass::Refused, None);
            return Inward::Refused(error.into());
        }
        let route = if let Admission::Billable(route) = &admission { Some(route) } else { None };
        call.trace.matched(class, route);
        let counted = Counted {
            class,
            row: self.counters.row(class, route),
            arrived: call.facts.arrived,
            counters: Arc::clone(&self.counters),
            metrics: Arc::clone(&self.metrics),
        };
        Inward::On(Routed { traced: call, path, heading, admission }, counted)
    }
}

impl Route {
    fn answer(&self, local: LocalRoute, method: &Method) -> Inward<Routed, Counted, Failure> {
        let answered = match (local, method) {
            (LocalRoute::Metrics, _) => Err(GatewayError::NotFound),
            (LocalRoute::Health, &Method::GET | &Method::HEAD) => Ok(health()),
            (LocalRoute::Health, _) => Err(GatewayError::MethodNotAllowed { allowed: "GET, HEAD".into() }),
        };
        self.answered(answered)
    }

    fn answered(&self, answered: Result<Response<WebBody>, GatewayError>) -> Inward<Routed, Counted, Failure> {
        let status = answered.as_ref().map_or_else(GatewayError::status, Response::status);
        self.metrics.request(RequestClass::Local, status);
        match answered {
            Ok(response) => Inward::Answered(response),
            Err(error) => Inward::Refused(error.into()),
        }
    }
}

impl After<Failure> for Counted {
    fn outward(self, answer: Answer<Failure>) -> Answer<Failure> {
        let status = match &answer {
            Ok(response) => response.status(),
            Err(failure) => failure.error.status(),
        };
        self.metrics.request(self.class, status);
        self.counters.answered(self.row, status, self.arrived.elapsed());
        answer
    }
}

/// The method that a preflight asks for: its answer is for whoever serves that.
fn preflown(request: &Request<WebBody>) -> Method {
    let wanted = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD);
    wanted.and_then(|method| Method::from_bytes(method.as_bytes()).ok()).unwrap_or(Method::OPTIONS)
}

/// The answer about the gateway as a whole and none of what stands behind it (RFC 9110, 9.3.7).
fn options() -> Response<WebBody> {
    let mut response = Response::new(WebBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(SERVED_METHODS));
    response
}

fn health() -> Response<WebBody> {
    let body = serde_json::json!({
        "status": "healthy",
        "service": "gateway",
        "timestamp": goldleaves_record::now().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut response = Response::new(WebBody::full(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
