//! The ops endpoints: metrics and health, on an address of their own.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::classic;
use crate::{ConnectionLimit, ServeOptions, Served, Stop, WebBody, serve};

/// The state of a part of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckState {
    /// It works.
    Up,
    /// It does not, in words that hold no secret.
    Down(Cow<'static, str>),
}

/// A named question about a part of the process. It is asked within a request, so it must answer from what is known.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    ask: Arc<dyn Fn() -> CheckState + Send + Sync>,
}

/// The sources of the ops endpoints. Clones share it.
#[derive(Clone)]
pub struct Ops {
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    live: Vec<Check>,
    ready: Vec<Check>,
    pages: Vec<OpsPage>,
}

/// A page of JSON, made when it is asked for.
#[derive(Clone)]
struct OpsPage {
    path: &'static str,
    json: Arc<dyn Fn() -> String + Send + Sync>,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    checks: Vec<CheckAnswer>,
}

#[derive(Serialize)]
struct CheckAnswer {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'static, str>>,
}

impl CheckState {
    /// Up while `is_up`, else down for this reason.
    pub fn when(is_up: bool, otherwise: impl Into<Cow<'static, str>>) -> Self {
        if is_up { Self::Up } else { Self::Down(otherwise.into()) }
    }

    /// Down for this trouble, or up without one.
    pub fn without(trouble: Option<impl Into<Cow<'static, str>>>) -> Self {
        trouble.map_or(Self::Up, |why| Self::Down(why.into()))
    }
}

impl Check {
    /// A question by this name.
    pub fn new(name: &'static str, ask: impl Fn() -> CheckState + Send + Sync + 'static) -> Self {
        Self { name, ask: Arc::new(ask) }
    }
}

impl Ops {
    /// Answers `/metrics` with OpenMetrics text, or in the classic format for whoever prefers it; alive and ready without conditions so far.
    pub fn new(metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { metrics: Arc::new(metrics), live: Vec::new(), ready: Vec::new(), pages: Vec::new() }
    }

    /// Adds a condition of `/health/live`: when it fails, only a new start helps.
    #[must_use]
    pub fn live(mut self, check: Check) -> Self {
        self.live.push(check);
        self
    }

    /// Adds a condition of `/health/ready`: when it fails, requests should go elsewhere for now.
    #[must_use]
    pub fn ready(mut self, check: Check) -> Self {
        self.ready.push(check);
        self
    }

    /// Adds a page of JSON.
    #[must_use]
    pub fn page(mut self, path: &'static str, json: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.pages.push(OpsPage { path, json: Arc::new(json) });
        self
    }

    /// Returns whether `/health/ready` says yes, for a metric that says the same.
    pub fn readiness(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let checks = self.ready.clone();
        move || checks.iter().all(|check| (check.ask)() == CheckState::Up)
    }

    /// The answer to one request.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<WebBody> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => metrics((self.metrics)(), request.headers()),
            "/health/live" => health(&self.live, "live", "dead"),
            "/health/ready" => health(&self.ready, "ready", "not ready"),
            path => match self.pages.iter().find(|page| page.path == path) {
                Some(page) => text(StatusCode::OK, "application/json", (page.json)()),
                None => text(StatusCode::NOT_FOUND, "text/plain", self.known_pages()),
            },
        }
    }
}

impl Ops {
    fn known_pages(&self) -> String {
        let pages = ["/metrics", "/health/live", "/health/ready"].into_iter();
        pages.chain(self.pages.iter().map(|page| page.path)).collect::<Vec<_>>().join(", ") + "\n"
    }
}

impl fmt::Debug for Ops {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |checks: &[Check]| checks.iter().map(|check| check.name).collect::<Vec<_>>();
        out.debug_struct("Ops").field("live", &names(&self.live)).field("ready", &names(&self.ready)).finish()
    }
}

/// Serves the ops endpoints until stopped. Boxed, so that the server is compiled here and not once more in every program.
pub fn serve_ops(listener: TcpListener, ops: Ops, stop: Stop) -> Pin<Box<dyn Future<Output = Served> + Send>> {
    let service = tower::service_fn(move |request: Request<WebBody>| {
        let response = ops.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let options = ServeOptions { connections: ConnectionLimit::new(64), ..ServeOptions::default() };
    Box::pin(serve(listener, service, options, stop))
}

fn health(checks: &[Check], good: &'static str, bad: &'static str) -> Response<WebBody> {
    let checks: Vec<CheckAnswer> = checks
        .iter()
        .map(|check| match (check.ask)() {
            CheckState::Up => CheckAnswer { name: check.name, ok: true, detail: None },
            CheckState::Down(why) => CheckAnswer { name: check.name, ok: false, detail: Some(why) },
        })
        .collect();
    let all = checks.iter().all(|check| check.ok);
    let (status, word) = if all { (StatusCode::OK, good) } else { (StatusCode::SERVICE_UNAVAILABLE, bad) };
    // Texts and booleans always serialise.
    let body = serde_json::to_string(&Health { status: word, checks }).unwrap_or_default();
    text(status, "application/json", body)
}

fn metrics(openmetrics: String, asked: &HeaderMap) -> Response<WebBody> {
    let mut response = if classic::is_wanted(asked) {
        text(StatusCode::OK, classic::CLASSIC, classic::classic(&openmetrics))
    } else {
        text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics)
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<WebBody> {
    let mut response = Response::new(WebBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
