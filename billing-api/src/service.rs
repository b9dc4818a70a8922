//! The routes, and what stands around them: the request's id, problem documents, one log line for what went wrong.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use goldleaves_domain::{Timestamp, TimestampError};
use goldleaves_ledger::Ledger;
use goldleaves_trace::{Moment, OpenSpan, Opening, SpanKind, Tracer, next_span, web};
use goldleaves_web::{Clock, Identified, RequestIdLayer, RequestIdService, ServeOptions, Served, Stop, TokenVerifier};
use tokio::net::TcpListener;
use tower::Layer;

use crate::answer::{ApiError, Failure};
use crate::metrics::BillingMetrics;
use crate::{docs, health, report_usage, usage};

/// The longest body of a call, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct BillingApi {
    inner: Arc<Inner>,
    tracer: Tracer,
}

struct Inner {
    ledger: Ledger,
    verifier: TokenVerifier,
    clock: Clock,
    metrics: BillingMetrics,
}

impl BillingApi {
    /// Answers from this ledger whom this verifier lets in.
    pub fn new(ledger: Ledger, verifier: TokenVerifier, clock: Clock, metrics: BillingMetrics) -> Self {
        Self { inner: Arc::new(Inner { ledger, verifier, clock, metrics }), tracer: Tracer::off() }
    }

    /// With spans of what it answers.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Serves the API until stopped; `docs` says whether its documentation is served too.
    pub async fn serve(self, listener: TcpListener, docs: bool, stop: (ServeOptions, Stop)) -> Served {
        let (options, stop) = stop;
        goldleaves_web::serve(listener, self.service(docs), options, stop).await
    }

    /// The API as a service.
    pub fn service(self, docs: bool) -> RequestIdService<Router> {
        let mut router = Router::new()
            .route("/billing/health", only("GET, HEAD", get(health::health)))
            .route("/billing/usage-summary/{tenant_id}", only("GET, HEAD", get(usage::summary)))
            .route("/billing/usage-report/{tenant_id}", only("GET, HEAD", get(usage::report)))
            .route("/billing/report-usage", only("POST", post(report_usage::report_usage)));
        if docs {
            router = router
                .route("/billing/openapi.json", only("GET, HEAD", get(docs::openapi)))
                .route("/billing/docs", only("GET, HEAD", get(docs::page)));
        }
        let router = router
            .fallback(async || ApiError::NotFound)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn_with_state(self.clone(), finish))
            .with_state(self);
        RequestIdLayer.layer(router)
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    pub(crate) fn verifier(&self) -> &TokenVerifier {
        &self.inner.verifier
    }

    pub(crate) fn now(&self) -> Result<Timestamp, TimestampError> {
        self.inner.clock.timestamp()
    }
}

impl fmt::Debug for BillingApi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BillingApi").finish_non_exhaustive()
    }
}

/// A route that names what it answers when asked by another method.
fn only(allowed: &'static str, route: MethodRouter<BillingApi>) -> MethodRouter<BillingApi> {
    route.fallback(async move || ApiError::Method(allowed))
}

/// Exports and counts the answer and, where a handler left a failure, writes the problem document and the log line.
async fn finish(State(api): State<BillingApi>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let identified =
        request.extensions().get::<Identified>().cloned().unwrap_or_else(|| Identified::of(request.headers()));
    let mut span = begin(&api.tracer, &request, (route.as_ref(), &identified));
    let mut response = next.run(request).await;
    let failure = response.extensions_mut().remove::<Failure>();
    api.inner.metrics.answered(route.as_ref().map(MatchedPath::as_str), response.status());
    if let Some(mut span) = span.take() {
        let status = failure.as_ref().map_or(response.status(), |failure| failure.problem.status());
        web::say_status(&mut span, status);
        span.end();
    }
    let Some(Failure { problem, cause }) = failure else { return response };
    let (status, request_id) = (problem.status().as_u16(), &identified.id);
    match cause {
        Some(cause) => tracing::error!(%request_id, status, cause, "a call failed: {}", problem.detail()),
        None => tracing::debug!(%request_id, status, "a call was refused: {}", problem.detail()),
    }
    problem.response(request_id).map(Body::new)
}

/// The span of a call, below the client's, when it is exported. It never says which tenant was asked for.
fn begin(
    tracer: &Tracer,
    request: &Request,
    (route, identified): (Option<&MatchedPath>, &Identified),
) -> Option<OpenSpan> {
    let parent = web::parent(request.headers());
    let method = web::method_word(request.method());
    let name = match route {
        Some(route) => format!("{method} {}", route.as_str()).into(),
        None => method.into(),
    };
    let (context, started) = (next_span(parent), Moment::now());
    let mut span = tracer.open(Opening { context, parent, kind: SpanKind::Server, name, started })?;
    web::say_request(&mut span, request.method(), request.version());
    span.set("goldleaves.request_id", identified.id.to_string());
    if let Some(route) = route {
        span.set("http.route", route.as_str().to_owned());
    }
    Some(span)
}
