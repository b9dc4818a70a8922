//! An API over a ledger of its own, and events as gateways send them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use goldleaves_auth::{TokenClaims, TokenOptions, TokenSigner, TokenVerifier, WallClock};
use goldleaves_billing::{AnswerLimits, Billing};
use goldleaves_billing_api::{BillingApi, BillingMetrics, Docs};
use goldleaves_domain::Timestamp;
use goldleaves_e2e::tables::Tables;
use goldleaves_ledger::{Incoming, Ledger, Recorded, StoreOptions, sqlite_url};
use goldleaves_pricing::TimeZone;
use goldleaves_runtime::Metrics;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_web::RequestIdService;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;

pub(crate) const SECRET: &str = "a secret for tests of thirty-two bytes";
/// The moment of the API's clock. The database has its own, which is later.
pub(crate) const NOW: &str = "2026-03-15T12:30:00Z";

/// The database that a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// An API over a ledger of its own, at a moment of its own.
pub(crate) struct Api {
    pub(crate) service: RequestIdService<Router>,
    pub(crate) ledger: Ledger,
    pub(crate) billing: Billing,
    pub(crate) metrics: Metrics,
    /// Says of every call which problems it can be answered with.
    contract: Arc<Contract>,
    url: String,
    _directory: Option<TempDir>,
}

/// The answer to a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) disposition: String,
    pub(crate) request_id: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    /// Status and code of a problem.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// The OpenAPI document, as what every problem document of every test is held against.
pub(crate) struct Contract(Value);

impl Contract {
    async fn of(service: RequestIdService<Router>) -> Self {
        let request = Request::get("/billing/openapi.json").body(Body::empty()).unwrap();
        let body = service.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        Self(serde_json::from_slice(&body).unwrap())
    }

    /// Checks that the call can be answered with this problem, where the document has the call.
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let paths = self.0["paths"].as_object().unwrap();
        let fits = |told: &str| {
            let (told, asked): (Vec<&str>, Vec<&str>) = (told.split('/').collect(), path.split('/').collect());
            told.len() == asked.len()
                && told.iter().zip(&asked).all(|(told, asked)| told == asked || told.starts_with('{'))
        };
        // One that is told of by name comes before one with a parameter in its place.
        let told = paths.iter().filter(|(told, verbs)| fits(told) && verbs[method].is_object());
        let Some((told, verbs)) = told.min_by_key(|(told, _)| told.matches('{').count()) else { return };
        let problem = answer.json();
        let codes = &verbs[method]["responses"][answer.status.to_string()]["description"];
        let codes = codes.as_str().unwrap_or_else(|| panic!("{method} {told} has no {}: {answer:?}", answer.status));
        let code = problem["code"].as_str().unwrap();
        assert!(
            codes.split(", ").any(|known| known == code),
            "{method} {told} {} has no {code}: {codes}",
            answer.status
        );
    }
}

pub(crate) fn clock() -> WallClock {
    let now: Timestamp = NOW.parse().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(now.unix_micros().unsigned_abs());
    WallClock::new(move || now)
}

/// The way an API is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) kind: Kind,
    pub(crate) docs: Docs,
    pub(crate) zone: TimeZone,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::on(Kind::Sqlite).await
    }

    pub(crate) async fn on(kind: Kind) -> Self {
        Self::with(Start { kind, docs: Docs::Served, zone: TimeZone::UTC }).await
    }

    pub(crate) async fn with(start: Start) -> Self {
        let (url, directory) = match start.kind {
            Kind::Postgres => (Postgres::shared().await.unwrap().database().await.unwrap(), None),
            Kind::Sqlite => {
                let directory = tempfile::tempdir().unwrap();
                let url = sqlite_url(&directory.path().join("ledger.db"));
                goldleaves_migrations::up(&url, &|_| {}).await.unwrap();
                (url, Some(directory))
            }
        };
        let api = Self::over(url, start).await;
        api.ledger.set_rate("25".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
        Self { _directory: directory, ..api }
    }

    /// Another API over the same database, with connections of its own.
    pub(crate) async fn anew(&self) -> Self {
        self.anew_with(StoreOptions::default()).await
    }

    /// The same, used in another way.
    pub(crate) async fn anew_with(&self, options: StoreOptions) -> Self {
        let kind = if self.is_sqlite() { Kind::Sqlite } else { Kind::Postgres };
        Self::using(self.url.clone(), options, Start { kind, docs: Docs::Served, zone: TimeZone::UTC }).await
    }

    /// The same, with other limits of its answers.
    pub(crate) fn limited(self, limits: AnswerLimits) -> Self {
        let billing = self.billing.clone().limited(limits);
        let verifier = TokenVerifier::new(TokenOptions::new(SECRET), clock());
        let service = BillingApi::new(billing.clone(), verifier, clock(), BillingMetrics::register(&Metrics::new()))
            .service(Docs::Served);
        Self { service, billing, ..self }
    }

    /// Sets the API's clock.
    pub(crate) fn turn(&mut self, now: &str) {
        let now: Timestamp = now.parse().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(now.unix_micros().unsigned_abs());
        // Tokens are of the moment that all tests have.
        let verifier = TokenVerifier::new(TokenOptions::new(SECRET), clock());
        let metrics = BillingMetrics::register(&Metrics::new());
        let api = BillingApi::new(self.billing.clone(), verifier, WallClock::new(move || now), metrics);
        self.service = api.service(Docs::Served);
    }

    async fn over(url: String, start: Start) -> Self {
        Self::using(url, StoreOptions::default(), start).await
    }

    async fn using(url: String, options: StoreOptions, start: Start) -> Self {
        let ledger = Ledger::connect(&url, options).await.unwrap();
        let billing = Billing::new(ledger.store().clone(), start.zone);
        let metrics = Metrics::new();
        let verifier = TokenVerifier::new(TokenOptions::new(SECRET), clock());
        let api = BillingApi::new(billing.clone(), verifier, clock(), BillingMetrics::register(&metrics));
        let contract = Arc::new(Contract::of(api.clone().service(Docs::Served)).await);
        Self { service: api.service(start.docs), ledger, billing, metrics, contract, url, _directory: None }
    }

    /// Records one event of a tenant, and returns its id.
    pub(crate) async fn used(&self, tenant: &str, route: &str, units: &str, time: &str) -> Uuid {
        let event = Event { route: route.to_owned(), units: units.to_owned(), ..Event::at(tenant, time) };
        assert_eq!(self.record(std::slice::from_ref(&event)).await.inserted, 1);
        event.id
    }

    /// Records events as a worker does.
    pub(crate) async fn record(&self, events: &[Event]) -> Recorded {
        let batch: Vec<Incoming> = events.iter().map(Event::incoming).collect();
        for _ in 0..20 {
            match self.ledger.record(&batch).await {
                Ok(recorded) => return recorded,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
        }
        panic!("twenty transient errors in a row");
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let (method, uri) = (request.method().as_str().to_lowercase(), request.uri().clone());
        let response: Response<Body> = self.service.clone().oneshot(request).await.unwrap();
        let header = |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (status, kind, request_id) = (response.status().as_u16(), header("content-type"), header("x-request-id"));
        let disposition = header("content-disposition");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let answer = Answer { status, kind, disposition, request_id, text: String::from_utf8(text.to_vec()).unwrap() };
        // A path that leaves the tenant out is told of as the one that has it.
        let is_told = !uri.query().unwrap_or_default().contains("tenant_id");
        if answer.kind == "application/problem+json" && is_told {
            self.contract.check(&method, uri.path(), &answer);
        }
        answer
    }

    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        self.ask(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, token, Body::empty()).await
    }

    pub(crate) async fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.call("PUT", path, token, body.to_string()).await
    }

    pub(crate) async fn report_usage(&self, token: &str, body: impl Into<Body>) -> Answer {
        self.call("POST", "/billing/report-usage", token, body).await
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The one number that a statement gives.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        Tables::open(&self.url).await.unwrap().number(sql).await.unwrap()
    }

    /// Runs a statement as the owner of the tables does.
    pub(crate) async fn execute(&self, sql: &str) {
        let raw = sea_orm::Database::connect(&self.url).await.unwrap();
        sea_orm::ConnectionTrait::execute_unprepared(&raw, sql).await.unwrap();
    }
}

/// A call as a gateway reports it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) tenant: String,
    pub(crate) user: String,
    pub(crate) route: String,
    pub(crate) action: String,
    pub(crate) units: String,
    pub(crate) time: String,
    pub(crate) outcome: &'static str,
    /// The id that the client chose; with it, the call can repeat another.
    pub(crate) request: Option<String>,
}

impl Event {
    pub(crate) fn at(tenant: &str, time: &str) -> Self {
        Self {
            id: Uuid::now_v7(),
            tenant: tenant.to_owned(),
            user: "ada".to_owned(),
            route: "/a".to_owned(),
            action: "read".to_owned(),
            units: "1".to_owned(),
            time: time.to_owned(),
            outcome: "completed",
            request: None,
        }
    }

    pub(crate) fn incoming(&self) -> Incoming {
        let print = self.request.as_ref().map(|_| format!("v1:{}", "ab".repeat(32)));
        let event = json!({
            "specversion": "1.0", "id": self.id, "type": "goldleaves.usage.v1",
            "source": format!("gateway-{}", self.id), "subject": self.tenant, "time": self.time,
            "datacontenttype": "application/json",
            "data": {
                "request_id": self.request.clone().unwrap_or_else(|| self.id.to_string()),
                "client_request_id": self.request, "user_id": self.user, "route": self.route, "action": self.action,
                "units": self.units, "method": "GET", "status_code": 200, "response_size": "5",
                "processing_time": 0.01, "outcome": self.outcome, "fingerprint": print, "epoch": self.id, "seq": 1,
                "part": null,
            },
        });
        Incoming::parse(Bytes::from(event.to_string()))
    }
}

pub(crate) fn token(tenant: &str, roles: &[&str]) -> String {
    let claims = TokenClaims {
        user: "ada".parse().unwrap(),
        tenant: Some(tenant.parse().unwrap()),
        orgs: vec!["sister".parse().unwrap()],
        roles: roles.iter().map(|&role| role.to_owned()).collect(),
        lifetime: Duration::from_secs(60),
    };
    TokenSigner::new(&TokenOptions::new(SECRET), clock()).sign(&claims)
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::world::Api::on(crate::world::Kind::Sqlite).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::world::Api::on(crate::world::Kind::Postgres).await).await;
            })*
        }
    };
}
pub(crate) use on_both;
