//! The whole request path, outermost layer first. A stranger can read it from top to bottom.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use goldleaves_auth::TokenVerifier;
use goldleaves_domain::PublicRoutes;
use goldleaves_trace::Tracer;
use goldleaves_web::WebBody;
use http::{HeaderValue, Request, Response};
use parking_lot::Mutex;
use tower::{Service, ServiceBuilder};

use crate::call::Arrived;
use crate::capture::CaptureLayer;
use crate::core::Core;
use crate::edge::Edge;
use crate::layers::{
    Auth, Buckets, ConcurrencyLimit, Cors, CorsRules, IdentityLayer, Limits, LimitsOptions, RateLimit, RequestIds,
    RescueLayer, Route, Trace, step,
};
use crate::open_calls::OpenCalls;
use crate::proxy::Proxy;
use crate::via::Via;

/// The parts that the layers are made of.
#[derive(Clone)]
pub(crate) struct StackParts {
    pub(crate) tracer: Tracer,
    /// `None` = what browsers may do is the upstream's to say.
    pub(crate) cors: Option<Arc<CorsRules>>,
    pub(crate) limits: LimitsOptions,
    pub(crate) via: Via,
    pub(crate) public: Arc<PublicRoutes>,
    pub(crate) edge: Arc<Edge>,
    pub(crate) verifier: TokenVerifier,
    /// True if a WebSocket may bring its token as a subprotocol.
    pub(crate) websocket_tokens: bool,
    pub(crate) buckets: Option<Arc<Buckets>>,
    pub(crate) calls: Arc<OpenCalls>,
}

/// Builds one core's stack.
pub(crate) fn stack(
    parts: StackParts,
    core: &Arc<Core>,
    proxy: Proxy,
) -> impl Service<Arrived, Response = Response<WebBody>, Error = Infallible, Future: Send> + Clone + Send + use<> {
    let metrics = || Arc::clone(&core.metrics);
    ServiceBuilder::new()
        // Outermost, so that every response carries the id, those of a panic too.
        .layer(step(RequestIds))
        // Before anything can be refused, so that a refusal belongs to the client's trace and has its log line.
        .layer(step(Trace(parts.tracer)))
        // Outside of everything that can fail, inside of what knows the request's id: errors become responses here.
        .layer(RescueLayer)
        // Outside of everything that refuses: browsers must be able to read refusals, and a preflight has no token.
        .layer(step(Cors { rules: parts.cors.clone(), metrics: metrics() }))
        // Before any work is done for a request, so that too much of it stays cheap.
        .layer(step(Limits::new(parts.limits, parts.via.clone(), metrics())))
        // The one path, before anybody decides by it; what the gateway answers itself needs no token.
        .layer(step(Route {
            public: parts.public,
            edge: parts.edge,
            cors_here: parts.cors.is_some(),
            counters: Arc::clone(&core.routes),
            metrics: metrics(),
        }))
        // Who calls, before anything is done in a tenant's name.
        .layer(step(Auth { verifier: parts.verifier, websocket_tokens: parts.websocket_tokens, metrics: metrics() }))
        // After the tenant is known and before its call is announced: what is refused here is never billed.
        .layer(step(RateLimit(parts.buckets)))
        // After the rate, which is cheaper to ask; before the call is announced, because an announced call takes room in the spool
        // for as long as it is open.
        .layer(step(ConcurrencyLimit(parts.calls)))
        // Around everything that the upstream sees, so that exactly what it served is settled, exactly once.
        .layer(CaptureLayer(Arc::clone(core)))
        // Last, so that no layer above can take a client's word for the gateway's.
        .layer(IdentityLayer(parts.via))
        // And out to the upstream.
        .service(proxy)
}

/// Where the requests of one connection enter. The stack is behind a lock of its core alone, which is written at a reload
/// only: a call takes the one that is there at its start.
#[derive(Debug)]
pub(crate) struct Entry<S> {
    stack: Arc<Mutex<S>>,
    peer: HeaderValue,
}

impl<S> Clone for Entry<S> {
    fn clone(&self) -> Self {
        Self { stack: Arc::clone(&self.stack), peer: self.peer.clone() }
    }
}

impl<S> Entry<S> {
    pub(crate) fn new(stack: Arc<Mutex<S>>, peer: SocketAddr) -> Self {
        // An address has nothing that a header could not hold.
        let peer = HeaderValue::try_from(peer.ip().to_canonical().to_string());
        Self { stack, peer: peer.unwrap_or(HeaderValue::from_static("0.0.0.0")) }
    }
}

impl<S: Service<Arrived>> Service<Request<WebBody>> for Entry<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Every service of the stack is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<WebBody>) -> Self::Future {
        self.stack.lock().call(Arrived { request: Box::new(request), peer: self.peer.clone() })
    }
}
