//! The billing API as its callers see it: every route, role and refusal, over a real ledger on SQLite.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use goldleaves_billing_api::{BillingApi, BillingMetrics};
use goldleaves_domain::Timestamp;
use goldleaves_ledger::{Incoming, Ledger, StoreOptions, sqlite_url};
use goldleaves_runtime::Metrics;
use goldleaves_web::{Clock, RequestIdService, TokenClaims, TokenOptions, TokenSigner, TokenVerifier};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

const SECRET: &str = "a secret for tests of thirty-two bytes";
const NOW: &str = "2026-03-15T12:30:00Z";

/// An API over a ledger of its own, at a moment of its own.
struct Api {
    service: RequestIdService<Router>,
    ledger: Ledger,
    metrics: Metrics,
    _directory: TempDir,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    kind: String,
    request_id: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }
}

fn clock() -> Clock {
    let now: Timestamp = NOW.parse().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(now.unix_micros().unsigned_abs());
    Clock::new(move || now)
}

impl Api {
    async fn start() -> Self {
        Self::start_with_docs(true).await
    }

    async fn start_with_docs(docs: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = sqlite_url(&directory.path().join("ledger.db"));
        goldleaves_testkit::migrations::up(&url, &|_| {}).await.unwrap();
        let ledger = Ledger::connect(&url, StoreOptions::default()).await.unwrap();
        ledger.set_rate("25".parse().unwrap(), NOW.parse().unwrap()).await.unwrap();
        let metrics = Metrics::new();
        let verifier = TokenVerifier::new(TokenOptions::new(SECRET), clock());
        let api = BillingApi::new(ledger.clone(), verifier, clock(), BillingMetrics::register(&metrics));
        Self { service: api.service(docs), ledger, metrics, _directory: directory }
    }

    /// Records one event of a tenant.
    async fn used(&self, tenant: &str, (route, units, time): (&str, &str, &str)) {
        let id = uuid::Uuid::now_v7();
        let event = json!({
            "specversion": "1.0", "id": id, "type": "goldleaves.usage.v1",
            "source": format!("gateway-{id}"), "subject": tenant, "time": time, "datacontenttype": "application/json",
            "data": {
                "request_id": id, "client_request_id": null, "user_id": "ada", "route": route, "action": "read",
                "units": units, "method": "GET", "status_code": 200, "response_size": "5", "processing_time": 0.01,
                "outcome": "completed", "fingerprint": null, "epoch": id, "seq": 1, "part": null,
            },
        });
        let incoming = Incoming::parse(Bytes::from(event.to_string()));
        assert!(incoming.parsed.is_ok(), "{:?}", incoming.parsed);
        assert_eq!(self.ledger.record(&[incoming]).await.unwrap().inserted, 1);
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.service.clone().oneshot(request).await.unwrap();
        let header = |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (status, kind, request_id) = (response.status().as_u16(), header("content-type"), header("x-request-id"));
        let text = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, kind, request_id, text: String::from_utf8(text.to_vec()).unwrap() }
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap())
            .await
    }

    async fn report_usage(&self, token: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post("/billing/report-usage").header("authorization", format!("Bearer {token}"));
        self.ask(request.body(body.into()).unwrap()).await
    }
}

fn token(tenant: &str, roles: &[&str]) -> String {
    let claims = TokenClaims {
        user: "ada".parse().unwrap(),
        tenant: Some(tenant.parse().unwrap()),
        orgs: vec!["sister".parse().unwrap()],
        roles: roles.iter().map(|&role| role.to_owned()).collect(),
        lifetime: Duration::from_secs(60),
    };
    TokenSigner::new(&TokenOptions::new(SECRET), clock()).sign(&claims).unwrap()
}

#[tokio::test]
async fn a_summary_is_exact_and_half_open() {
    let api = Api::start().await;
    for (route, units, time) in [
        ("/a", "0.1", "2026-03-01T00:00:00Z"),
        ("/a", "0.2", "2026-03-10T10:15:00.000001Z"),
        ("/b", "3", "2026-03-31T23:59:59.999999Z"),
        ("/b", "100", "2026-04-01T00:00:00Z"),
        ("/b", "100", "2026-02-28T23:59:59.999999Z"),
    ] {
        api.used("acme", (route, units, time)).await;
    }
    api.used("other", ("/a", "7", "2026-03-10T00:00:00Z")).await;
    let answer = api.get("/billing/usage-summary/acme", &token("acme", &[])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // 3.3 units at 25 cents are 82.5 cents: one line per rate version, rounded half to even.
    let wanted = concat!(
        r#"{"tenant_id":"acme","period_start":"2026-03-01T00:00:00.000000Z","period_end":"2026-04-01T00:00:00.000000Z","#,
        r#""total_events":3,"total_units":3.3,"total_cost_cents":82,"unique_routes":2,"current_rate_cents":25}"#
    );
    assert_eq!(answer.text, wanted);
    let report =
        api.get("/billing/usage-report/acme?start_date=2026-03-01&end_date=2026-03-11", &token("acme", &[])).await;
    assert_eq!(report.json()["route_breakdown"], json!([{"route": "/a", "events": 2, "units": 0.3, "cost_cents": 8}]));
    let nothing =
        api.get("/billing/usage-summary/acme?start_date=2020-01-01&end_date=2020-01-02", &token("acme", &[])).await;
    let nothing = nothing.json();
    assert_eq!(
        (&nothing["total_events"], &nothing["total_units"], &nothing["unique_routes"]),
        (&json!(0), &json!(0), &json!(0))
    );
}

#[tokio::test]
async fn bad_periods_are_named() {
    let api = Api::start().await;
    for (query, word) in [
        ("start_date=soon", "start_date"),
        ("end_date=2026-13-01", "end_date"),
        ("start_date=", "start_date"),
        ("start_date=2026-03-02&end_date=2026-03-01", "after"),
        ("start_date=2026-03-02&end_date=2026-03-02", "after"),
        ("start_date=2027-01-01", "after"),
        ("start_date=2026-03-01&start_date=2026-03-01", "more than once"),
    ] {
        let answer = api.get(&format!("/billing/usage-report/acme?{query}"), &token("acme", &[])).await;
        assert_eq!((answer.status, answer.kind.as_str()), (400, "application/problem+json"), "{query}");
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(word), "{query}: {problem}");
        assert_eq!(problem["code"], "parameter_invalid", "{query}");
        assert_eq!(problem["request_id"], answer.request_id);
    }
}

#[tokio::test]
async fn a_tenant_sees_only_itself() {
    let api = Api::start().await;
    api.used("victim", ("/a", "1", "2026-03-10T00:00:00Z")).await;
    let plain = token("acme", &[]);
    for path in ["usage-summary/victim", "usage-report/victim", "usage-summary/nobody", "usage-summary/a%00b"] {
        let answer = api.get(&format!("/billing/{path}?start_date=nonsense"), &plain).await;
        assert_eq!(answer.status, 403, "{path}: the tenant is looked at before anything else");
        assert_eq!(answer.json()["detail"], "the token gives no access to this tenant's usage", "{path}");
        assert_eq!(answer.json()["code"], "tenant_forbidden", "{path}");
    }
    for role in ["admin", "billing:read", "billing:write"] {
        let answer = api.get("/billing/usage-summary/victim", &token("acme", &[role])).await;
        assert_eq!((answer.status, &answer.json()["total_events"]), (200, &json!(1)), "{role}");
    }
    assert_eq!(api.get("/billing/usage-summary/sister", &plain).await.status, 200, "a tenant the user may act for");
    // A header never says who one is.
    let request = Request::get("/billing/usage-summary/victim")
        .header("authorization", format!("Bearer {plain}"))
        .header("x-organization-id", "victim")
        .header("x-tenant-id", "victim");
    assert_eq!(api.ask(request.body(Body::empty()).unwrap()).await.status, 403);
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_shown() {
    let api = Api::start().await;
    for value in ["", "Bearer", "Bearer x.y.z", "Basic YTpi"] {
        for path in ["/billing/usage-summary/acme", "/billing/usage-report/acme"] {
            let request = Request::get(path).header("authorization", value).body(Body::empty()).unwrap();
            let answer = api.ask(request).await;
            assert_eq!((answer.status, answer.kind.as_str()), (401, "application/problem+json"), "{value:?}");
        }
    }
    let request = Request::post("/billing/report-usage").body(Body::from(r#"{"tenant_id":"acme"}"#)).unwrap();
    assert_eq!(api.ask(request).await.status, 401);
}

#[tokio::test]
async fn reporting_twice_makes_the_same_rows_and_later_usage_a_revision() {
    let api = Api::start().await;
    api.used("acme", ("/a", "2.5", "2026-03-10T10:15:00Z")).await;
    api.used("acme", ("/a", "1", "2026-03-15T12:10:00Z")).await;
    let writer = token("ops", &["billing:write"]);
    let body = r#"{"tenant_id":"acme","start_date":"2026-03-01"}"#;
    let first = api.report_usage(&writer, body).await;
    assert_eq!(first.status, 202, "{first:?}");
    let push = first.json();
    assert_eq!(
        (&push["reported_quantity"], &push["pushed_quantity"]),
        (&json!(2.5), &json!(0)),
        "the last hour is not over"
    );
    assert_eq!(push["state"], "unmapped");
    assert_eq!(api.report_usage(&writer, body).await.text, first.text);
    api.used("acme", ("/a", "4", "2026-03-10T10:45:00Z")).await;
    let later = api.report_usage(&writer, body).await.json();
    assert_eq!((&later["reported_quantity"], &later["report_id"]), (&json!(6.5), &push["report_id"]));
}

#[tokio::test]
async fn reporting_needs_a_role_also_for_the_own_tenant() {
    let api = Api::start().await;
    for (roles, status) in [(&[][..], 403), (&["billing:read"], 403), (&["billing:write"], 202), (&["admin"], 202)] {
        let answer = api.report_usage(&token("acme", roles), r#"{"tenant_id":"acme"}"#).await;
        assert_eq!(answer.status, status, "{roles:?}");
    }
    let admin = token("acme", &["admin"]);
    for body in [
        "",
        "{}",
        "[]",
        r#"["acme",null,null]"#,
        r#" ["acme","2026-03-01","2026-03-02"]"#,
        r#"{"tenant_id":7}"#,
        r#"{"tenant_id":""}"#,
        r#"{"tenant_id":"acme","start":"2026-03-01"}"#,
        r#"{"tenant_id":"acme","start_date":"soon"}"#,
        r#"{"tenant_id":"acme","start_date":"2026-03-02","end_date":"2026-03-01"}"#,
        r#"{"tenant_id":"acme","tenant_id":"other"}"#,
    ] {
        let answer = api.report_usage(&admin, body).await;
        assert_eq!((answer.status, answer.kind.as_str()), (400, "application/problem+json"), "{body}");
    }
    assert_eq!(api.report_usage(&admin, "x".repeat(100_000)).await.status, 413);
}

#[tokio::test]
async fn other_methods_and_paths_are_problems_too() {
    let api = Api::start().await;
    for (method, path, status) in [
        ("POST", "/billing/usage-summary/acme", 405),
        ("GET", "/billing/report-usage", 405),
        ("DELETE", "/billing/health", 405),
        ("GET", "/billing", 404),
        ("GET", "/billing/usage-summary", 404),
        ("GET", "/metrics", 404),
    ] {
        let answer = api.ask(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, answer.kind.as_str()), (status, "application/problem+json"), "{method} {path}");
    }
    let text = api.metrics.text();
    assert!(text.contains(r#"goldleaves_billing_requests_total{route="none",status="404"} 3"#), "{text}");
}

#[tokio::test]
async fn health_tells_whether_the_database_answers() {
    let api = Api::start().await;
    let healthy = api.ask(Request::get("/billing/health").body(Body::empty()).unwrap()).await;
    assert_eq!(healthy.status, 200);
    let health = healthy.json();
    assert_eq!((&health["status"], &health["service"]), (&json!("healthy"), &json!("billing")));
    assert_eq!(health["timestamp"], "2026-03-15T12:30:00.000000Z");
    api.ledger.store().close().await;
    let away = api.ask(Request::get("/billing/health").body(Body::empty()).unwrap()).await;
    assert_eq!((away.status, away.kind.as_str()), (503, "application/problem+json"));
    assert_eq!(api.get("/billing/usage-summary/acme", &token("acme", &[])).await.status, 503);
}

#[tokio::test]
async fn documentation_can_be_turned_off() {
    for (docs, status) in [(true, 200), (false, 404)] {
        let api = Api::start_with_docs(docs).await;
        for path in ["/billing/docs", "/billing/openapi.json"] {
            let answer = api.ask(Request::get(path).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, status, "{path}");
        }
    }
}

/// The document and the server say the same: each path and method is served, each answer has just the fields it names.
#[tokio::test]
async fn the_openapi_document_is_true() {
    let api = Api::start().await;
    api.used("acme", ("/a", "2.5", "2026-03-10T10:15:00Z")).await;
    let document = api.ask(Request::get("/billing/openapi.json").body(Body::empty()).unwrap()).await.json();
    let admin = token("acme", &["admin"]);
    let mut compared = 0;
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, call) in verbs.as_object().unwrap() {
            let uri = path.replace("{tenant_id}", "acme");
            let answer = match verb.as_str() {
                "get" => api.get(&uri, &admin).await,
                "post" => api.report_usage(&admin, r#"{"tenant_id":"acme"}"#).await,
                other => panic!("{other} is not tried"),
            };
            let promised = &call["responses"][answer.status.to_string()];
            let schema = &promised["content"]["application/json"]["schema"];
            check(&document, (schema, &answer.json()), path);
            compared += 1;
            for status in call["responses"].as_object().unwrap().keys() {
                assert!(StatusCode::from_bytes(status.as_bytes()).is_ok(), "{path} {status}");
            }
        }
    }
    assert_eq!(compared, 4);
    let example = |parameter| document["components"]["parameters"][parameter]["example"].as_str().unwrap();
    let (start, end) = (example("StartDate"), example("EndDate"));
    let asked = api.get(&format!("/billing/usage-summary/acme?start_date={start}&end_date={end}"), &admin).await;
    assert_eq!(asked.json()["period_end"], format!("{end}T00:00:00.000000Z"));
    let problem = api.get("/billing/usage-summary/acme?end_date=x", &admin).await.json();
    check(&document, (&json!({"$ref": "#/components/schemas/Problem"}), &problem), "a problem");
}

/// Whether a value is what a schema says, as far as this document uses schemas.
fn check(document: &Value, (schema, value): (&Value, &Value), at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is missing"));
        return check(document, (schema, value), at);
    }
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{at}");
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value}");
    }
    match schema["type"].as_str().unwrap_or_else(|| panic!("{at} has no type in {schema}")) {
        "object" => {
            let (fields, given) = (schema["properties"].as_object().unwrap(), value.as_object().unwrap());
            let required = schema["required"].as_array().unwrap();
            for name in required.iter().filter_map(Value::as_str) {
                assert!(given.contains_key(name), "{at} lacks {name}");
            }
            for (name, value) in given {
                let schema = fields.get(name).unwrap_or_else(|| panic!("{at} has {name}, which the document lacks"));
                check(document, (schema, value), &format!("{at}.{name}"));
            }
        }
        "array" => {
            let items = value.as_array().unwrap();
            assert!(!items.is_empty(), "{at} compares nothing");
            items.iter().for_each(|item| check(document, (&schema["items"], item), at));
        }
        "string" => assert!(value.is_string(), "{at}: {value}"),
        "integer" => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
        "number" => assert!(value.is_number(), "{at}: {value}"),
        other => panic!("{at}: {other} is not tried"),
    }
}
