//! The routes, and what stands around them: the request's id, problem documents, one log line for what went wrong.

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post, put};
use goldleaves_trace::{Moment, OpenSpan, Opening, SpanKind, Tracer, web};
use goldleaves_web::{Identified, RequestIdLayer, RequestIdService, ServeOptions, Served, Stop};
use tokio::net::TcpListener;
use tower::Layer;

use crate::answer::{ApiError, Failure};
use crate::routes::{
    audit, corrections, docs, events, health, invoice, late, periods, rate_cards, report_usage, stripe, tenants, usage,
    webhook,
};
use crate::state::BillingApi;

/// The longest body of a call, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest body of a webhook.
const WEBHOOK_BYTES_MAX: usize = 256 * 1024;

impl BillingApi {
    /// Serves the API until stopped; `docs` says whether its documentation is served too.
    pub async fn serve(self, listener: TcpListener, docs: bool, stop: (ServeOptions, Stop)) -> Served {
        let (options, stop) = stop;
        goldleaves_web::serve(listener, self.service(docs), options, stop).await
    }

    /// The API as a service.
    pub fn service(self, docs: bool) -> RequestIdService<Router> {
        let mut router = Router::new()
            .route("/billing/health", only("GET, HEAD", get(health::health)))
            .route(
                "/billing/report-usage",
                only("GET, HEAD, POST", get(report_usage::get_by_query).post(report_usage::report_usage)),
            )
            .route("/billing/report-usage/{tenant_id}", only("GET, HEAD", get(report_usage::get)))
            .route("/billing/stripe/meters", only("GET, HEAD", get(stripe::meters)))
            .route("/billing/stripe/meters/{meter}", only("PUT", put(stripe::put_meter)))
            .route("/billing/stripe/mappings", only("GET, HEAD, PUT", get(stripe::mappings).put(stripe::put_mapping)))
            .route(
                "/billing/stripe/mappings/{tenant_id}",
                only("GET, HEAD, PUT", get(stripe::mappings).put(stripe::put_mapping)),
            )
            .route("/billing/stripe/mappings/{tenant_id}/{meter}", only("PUT", put(stripe::put_mapping)))
            .route("/billing/stripe/pushes/{tenant_id}/retry", only("POST", post(stripe::retry)))
            .route("/billing/stripe/drift", only("GET, HEAD", get(stripe::drift)))
            .route("/billing/stripe/lanes/adopt", only("POST", post(stripe::adopt)))
            .route(
                "/billing/stripe/webhook",
                only("POST", post(webhook::post)).layer(DefaultBodyLimit::max(WEBHOOK_BYTES_MAX)),
            )
            .route("/billing/tenants", only("GET, HEAD, PUT", get(tenants::list).put(tenants::put)))
            .route("/billing/tenants/{tenant_id}", only("PUT", put(tenants::put)))
            .route("/billing/corrections", only("GET, HEAD", get(corrections::list)))
            .route("/billing/corrections/{id}", only("GET, HEAD, PUT", get(corrections::list).put(corrections::put)))
            .route("/billing/rate-cards", only("GET, HEAD", get(rate_cards::list)))
            .route("/billing/rate-cards/preview", only("POST", post(rate_cards::preview)))
            .route("/billing/rate-cards/{id}", only("PUT", put(rate_cards::put)))
            .route("/billing/periods/{tenant_id}", only("GET, HEAD, PUT", get(periods::list).put(periods::put)))
            .route("/billing/periods/{tenant_id}/{number}", only("PUT", put(periods::put)))
            .route("/billing/invoice/{tenant_id}/{number}", only("GET, HEAD", get(invoice::get)))
            .route("/billing/usage-events/{tenant_id}/{id}", only("GET, HEAD", get(events::get)))
            .route("/billing/audit", only("GET, HEAD", get(audit::list)));
        for (path, handler) in [
            ("/billing/usage-summary", get(usage::summary)),
            ("/billing/usage-report", get(usage::report)),
            ("/billing/usage-events", get(events::get)),
            ("/billing/invoice", get(invoice::get)),
            ("/billing/late", get(late::list)),
            ("/billing/stripe/pushes", get(stripe::pushes)),
        ] {
            // A tenant whose name no path can hold is named in the query.
            router = router
                .route(path, only("GET, HEAD", handler.clone()))
                .route(&format!("{path}/{{tenant_id}}"), only("GET, HEAD", handler));
        }
        router = router.route("/billing/periods", only("GET, HEAD", get(periods::list)));
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
    let mut span = begin(api.tracer(), &request, (route.as_ref(), &identified));
    let mut response = next.run(request).await;
    let failure = response.extensions_mut().remove::<Failure>();
    api.metrics().answered(route.as_ref().map(MatchedPath::as_str), response.status());
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
    let mut span = tracer.open(Opening { parent, kind: SpanKind::Server, name, started: Moment::now() })?;
    web::say_request(&mut span, request.method(), request.version());
    span.set("goldleaves.request_id", identified.id.to_string());
    if let Some(route) = route {
        span.set("http.route", route.as_str().to_owned());
    }
    Some(span)
}
