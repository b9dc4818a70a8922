//! The routes, and what stands around them: the request's id, problem documents, one log line for what went wrong.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::handler::Handler;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post, put};
use goldleaves_runtime::telemetry::TRACED;
use goldleaves_trace::{Moment, OpenSpan, Opening, SpanKind, Tracer, put_below, web};
use goldleaves_web::{Identified, RequestIdLayer, RequestIdService, ServeOptions, Served, Stop};
use tokio::net::TcpListener;
use tower::Layer;
use tracing::{Instrument as _, Span, info_span};

use crate::answer::{ApiError, Failure};
use crate::config::Docs;
use crate::contract::{self, Method, Operation};
use crate::members::BODY_BYTES_MAX;
use crate::routes::{
    audit, corrections, docs, events, health, invoice, late, periods, rate_cards, report_usage, stripe, tenants, usage,
    webhook,
};
use crate::state::BillingApi;

impl BillingApi {
    /// Serves the API until stopped.
    pub async fn serve(self, listener: TcpListener, docs: Docs, options: ServeOptions, stop: Stop) -> Served {
        goldleaves_web::serve(listener, self.service(docs), options, stop).await
    }

    /// The API as a service.
    pub fn service(self, docs: Docs) -> RequestIdService<Router> {
        let routes = routes();
        let document = (docs == Docs::Served).then(|| Bytes::from(contract::document(calls(&routes))));
        let mut router = Router::new();
        for route in routes {
            router = router.route(route.path, route.answering());
        }
        if let Some(document) = document {
            let openapi = get(move || docs::openapi(document.clone()));
            router = router
                .route("/billing/openapi.json", only("GET, HEAD", openapi))
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

/// A path, who answers there, and what the document says of it.
struct Route {
    path: &'static str,
    /// The path as the document has it.
    told_as: &'static str,
    calls: Vec<(Method, &'static Operation)>,
    router: MethodRouter<BillingApi>,
}

impl Route {
    fn at(path: &'static str) -> Self {
        Self { path, told_as: path, calls: Vec::new(), router: MethodRouter::new() }
    }

    /// With another path in the document: paths of the router share the names of their segments.
    fn told_as(self, path: &'static str) -> Self {
        Self { told_as: path, ..self }
    }

    fn get<H: Handler<T, BillingApi>, T: 'static>(self, handler: H, operation: &'static Operation) -> Self {
        self.with((Method::Get, operation), get(handler))
    }

    fn put<H: Handler<T, BillingApi>, T: 'static>(self, handler: H, operation: &'static Operation) -> Self {
        self.with((Method::Put, operation), put(handler))
    }

    fn post<H: Handler<T, BillingApi>, T: 'static>(self, handler: H, operation: &'static Operation) -> Self {
        self.with((Method::Post, operation), post(handler))
    }

    fn with(mut self, call: (Method, &'static Operation), router: MethodRouter<BillingApi>) -> Self {
        self.calls.push(call);
        Self { router: self.router.merge(router), ..self }
    }

    fn body_bytes_max(self, bytes: usize) -> Self {
        Self { router: self.router.layer(DefaultBodyLimit::max(bytes)), ..self }
    }

    fn answering(self) -> MethodRouter<BillingApi> {
        let has = |method| self.calls.iter().any(|(own, _)| *own == method);
        let allowed = match (has(Method::Get), has(Method::Put), has(Method::Post)) {
            (true, false, false) => "GET, HEAD",
            (true, true, _) => "GET, HEAD, PUT",
            (true, false, true) => "GET, HEAD, POST",
            (false, true, _) => "PUT",
            (false, false, _) => "POST",
        };
        only(allowed, self.router)
    }
}

fn calls(routes: &[Route]) -> impl Iterator<Item = (&str, Method, &'static Operation)> {
    routes.iter().flat_map(|route| route.calls.iter().map(|(method, call)| (route.told_as, *method, *call)))
}

/// Every route. A tenant whose name no path can hold is named in the query: the same without the tenant's segment, which
/// stands behind it and is not told of again.
fn routes() -> Vec<Route> {
    let mut routes = of_usage();
    routes.extend(of_bills());
    routes.extend(of_stripe());
    routes
}

fn of_usage() -> Vec<Route> {
    use crate::contract::{events as one_of, usage as call};
    vec![
        Route::at("/billing/health").get(health::health, &call::HEALTH_CALL),
        Route::at("/billing/usage-summary/{tenant_id}").get(usage::summary, &call::SUMMARY_CALL),
        Route::at("/billing/usage-summary").get(usage::summary, &call::SUMMARY_CALL),
        Route::at("/billing/usage-report/{tenant_id}").get(usage::report, &call::REPORT_CALL),
        Route::at("/billing/usage-report").get(usage::report, &call::REPORT_CALL),
        Route::at("/billing/usage-events/{tenant_id}").get(events::get, &one_of::LIST),
        Route::at("/billing/usage-events").get(events::get, &one_of::LIST),
        Route::at("/billing/usage-events/{tenant_id}/{id}").get(events::get, &one_of::ONE),
    ]
}

fn of_bills() -> Vec<Route> {
    use crate::contract::{audit as changes, bills as call, cards, corrections as correction, tenants as all};
    vec![
        Route::at("/billing/invoice/{tenant_id}").get(invoice::get, &call::OPEN_INVOICE),
        Route::at("/billing/invoice").get(invoice::get, &call::OPEN_INVOICE),
        Route::at("/billing/invoice/{tenant_id}/{number}").get(invoice::get, &call::ONE_INVOICE),
        Route::at("/billing/periods/{tenant_id}/{number}").put(periods::put, &call::CLOSE),
        Route::at("/billing/periods/{tenant_id}").get(periods::list, &call::PERIODS).put(periods::put, &call::CLOSE),
        Route::at("/billing/periods").get(periods::list, &call::PERIODS),
        Route::at("/billing/late/{tenant_id}").get(late::list, &call::LATE),
        Route::at("/billing/late").get(late::list, &call::LATE),
        Route::at("/billing/corrections").get(corrections::list, &correction::LIST),
        Route::at("/billing/corrections/{id}")
            .put(corrections::put, &correction::CORRECT)
            .get(corrections::list, &correction::LIST),
        Route::at("/billing/rate-cards").get(rate_cards::list, &cards::LIST),
        Route::at("/billing/rate-cards/preview").post(rate_cards::preview, &cards::PREVIEW_CALL),
        Route::at("/billing/rate-cards/{id}").put(rate_cards::put, &cards::ADD),
        Route::at("/billing/tenants/{tenant_id}").put(tenants::put, &all::SET_ZONE),
        Route::at("/billing/tenants").get(tenants::list, &all::LIST).put(tenants::put, &all::SET_ZONE),
        Route::at("/billing/audit").get(audit::list, &changes::LIST),
    ]
}

fn of_stripe() -> Vec<Route> {
    use crate::contract::{bills, stripe as call};
    vec![
        Route::at("/billing/report-usage/{tenant_id}").get(report_usage::get, &bills::USAGE_REPORTED),
        Route::at("/billing/report-usage")
            .post(report_usage::report_usage, &bills::REPORT_USAGE)
            .get(report_usage::get_by_query, &bills::USAGE_REPORTED),
        Route::at("/billing/stripe/meters").get(stripe::meters, &call::METERS),
        Route::at("/billing/stripe/meters/{meter}").put(stripe::put_meter, &call::SET_METER),
        Route::at("/billing/stripe/mappings/{tenant_id}/{meter}").put(stripe::put_mapping, &call::SET_MAPPING),
        Route::at("/billing/stripe/mappings/{tenant_id}")
            .get(stripe::mappings, &call::MAPPINGS)
            .put(stripe::put_mapping, &call::SET_MAPPING),
        Route::at("/billing/stripe/mappings")
            .get(stripe::mappings, &call::MAPPINGS)
            .put(stripe::put_mapping, &call::SET_MAPPING),
        Route::at("/billing/stripe/pushes/{tenant_id}").get(stripe::pushes, &call::PUSHES),
        Route::at("/billing/stripe/pushes").get(stripe::pushes, &call::PUSHES),
        Route::at("/billing/stripe/pushes/{tenant_id}/retry")
            .told_as("/billing/stripe/pushes/{id}/retry")
            .post(stripe::retry, &call::RETRY),
        Route::at("/billing/stripe/drift").get(stripe::drift, &call::DRIFT),
        Route::at("/billing/stripe/lanes/adopt").post(stripe::adopt, &call::ADOPT),
        Route::at("/billing/stripe/webhook").post(webhook::post, &call::HOOK).body_bytes_max(webhook::BODY_BYTES_MAX),
    ]
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
    let mut span = begin(api.tracer(), &request, route.as_ref(), &identified);
    let mut response = next.run(request).instrument(handling(span.as_ref())).await;
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

/// The span of the work that a call causes, when the call's own is exported: statements of the database lie below it.
fn handling(call: Option<&OpenSpan>) -> Span {
    let Some(call) = call else { return Span::none() };
    let span = info_span!(target: TRACED, parent: None, "handle");
    put_below(&span, call.context());
    span
}

/// The span of a call, below the client's, when it is exported. It never says which tenant was asked for.
fn begin(tracer: &Tracer, request: &Request, route: Option<&MatchedPath>, identified: &Identified) -> Option<OpenSpan> {
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
