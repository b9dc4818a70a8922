//! The billing API as its callers see it: every route, role and refusal, over a real ledger on SQLite.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use goldleaves_billing_api::Docs;
use goldleaves_pricing::TimeZone;
use goldleaves_testkit::child::wait_for;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::stripe_desk::{CUSTOMER, Desk, METER, METER_ID};
use crate::webhooks;
use crate::world::{Api, Kind, Start, token};

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
        api.used("acme", route, units, time).await;
    }
    api.used("other", "/a", "7", "2026-03-10T00:00:00Z").await;
    let answer = api.get("/billing/usage-summary/acme", &token("acme", &[])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // 3.3 units are 82.5 cents: one line for the rate, rounded once, half to even.
    let wanted = concat!(
        r#"{"tenant_id":"acme","period_start":"2026-03-01T00:00:00.000000Z","period_end":"2026-04-01T00:00:00.000000Z","#,
        r#""total_events":3,"total_units":3.3,"total_cost_cents":82,"unique_routes":2,"current_rate_cents":25,"#,
        r#""adjustments_cents":0,"corrections":{"events":0,"units":0},"priced_as":"period"}"#
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
    api.used("victim", "/a", "1", "2026-03-10T00:00:00Z").await;
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
    api.used("acme", "/a", "2.5", "2026-03-10T10:15:00Z").await;
    api.used("acme", "/a", "1", "2026-03-15T12:10:00Z").await;
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
    api.used("acme", "/a", "4", "2026-03-10T10:45:00Z").await;
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
        ("GET", "/billing/usage-summaries", 404),
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
    // What was found out a moment ago is good for a second.
    let away = wait_for("the health to change", Duration::from_secs(30), async || {
        let answer = api.ask(Request::get("/billing/health").body(Body::empty()).unwrap()).await;
        Ok((answer.status != 200).then_some(answer))
    });
    let away = away.await.unwrap();
    assert_eq!((away.status, away.kind.as_str()), (503, "application/problem+json"));
    assert_eq!(away.json()["code"], "database_unavailable");
    assert_eq!(api.get("/billing/usage-summary/acme", &token("acme", &[])).await.status, 503);
}

#[tokio::test]
async fn documentation_can_be_turned_off() {
    for (docs, status) in [(Docs::Served, 200), (Docs::Hidden, 404)] {
        let api = Api::with(Start { kind: Kind::Sqlite, docs, zone: TimeZone::UTC }).await;
        for path in ["/billing/docs", "/billing/openapi.json"] {
            let answer = api.ask(Request::get(path).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, status, "{path}");
        }
    }
}

/// The document and the server say the same: each path and method is served, each answer has just the fields it names, each
/// call knows the parameters and members that the document has, and no others.
#[tokio::test]
async fn the_openapi_document_is_true() {
    let desk = Desk::on(Api::start().await).await;
    let (api, admin) = (&desk.api, token("acme", &["admin"]));
    let event = a_life(api, &admin).await;
    let row = desk.rows().await[0]["id"].as_str().unwrap().to_owned();
    let document = api.ask(Request::get("/billing/openapi.json").body(Body::empty()).unwrap()).await.json();
    let mut compared = 0;
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, call) in verbs.as_object().unwrap() {
            let operation = call["operationId"].as_str().unwrap();
            if operation == "retryStripePush" {
                api.execute("UPDATE stripe_pushes SET state = 'failed'").await;
            }
            let uri = example_uri(path, call, event, &row);
            let answer = match (verb.as_str(), operation) {
                ("get", _) => api.get(&uri, &admin).await,
                (_, "stripeWebhook") => webhooks::post_signed(&desk).await,
                (verb, _) => api.call(&verb.to_uppercase(), &uri, &admin, body(call, event).to_string()).await,
            };
            let promised = &call["responses"][answer.status.to_string()];
            assert!(answer.status < 300 && promised.is_object(), "{path} answers its own example with {answer:?}");
            if promised["content"].is_null() {
                assert_eq!(answer.text, "", "{path}");
            } else {
                check(&document, &promised["content"]["application/json"]["schema"], &answer.json(), path);
            }
            compared += 1;
            for status in call["responses"].as_object().unwrap().keys() {
                assert!(StatusCode::from_bytes(status.as_bytes()).is_ok(), "{path} {status}");
            }
            if !["health", "stripeWebhook"].contains(&operation) {
                nothing_else_is_known(api, &document, verb, &uri, call).await;
            }
        }
    }
    assert_eq!(compared, 29);
    let example = |name: &str| {
        let call = &document["paths"]["/billing/usage-summary/{tenant_id}"]["get"];
        let one = call["parameters"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        one["example"].as_str().unwrap().to_owned()
    };
    let (start, end) = (example("start_date"), example("end_date"));
    let asked = format!("/billing/usage-summary/acme?start_date={start}&end_date={end}&time_zone=UTC");
    let asked = api.get(&asked, &admin).await;
    assert_eq!(asked.json()["period_end"], format!("{end}T00:00:00.000000Z"));
    let problem = api.get("/billing/usage-summary/acme?end_date=x", &admin).await.json();
    check(&document, &json!({"$ref": "#/components/schemas/Problem"}), &problem, "a problem");
}

/// The call of the examples, about what there is in this ledger.
fn example_uri(path: &str, call: &Value, event: uuid::Uuid, row: &str) -> String {
    let operation = call["operationId"].as_str().unwrap();
    let mut uri = path.to_owned();
    for one in call["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "path") {
        let name = one["name"].as_str().unwrap();
        let example = one["example"].as_str().unwrap_or_else(|| panic!("{operation}: {name} has no example"));
        let value = match (name, operation) {
            ("id", "correct" | "addRateCard") => uuid::Uuid::now_v7().to_string(),
            ("id", "retryStripePush") => row.to_owned(),
            ("id", _) => event.to_string(),
            ("meter", _) => METER.to_owned(),
            _ => example.to_owned(),
        };
        uri = uri.replace(&format!("{{{name}}}"), &value);
    }
    match operation {
        "corrections" => format!("{uri}?tenant_id=acme&month=2026-03"),
        "audit" => format!("{uri}?start_date=2026-01-01&end_date=2027-01-01"),
        "usageReport" => format!("{uri}?month=2026-03&group_by=route,rate"),
        _ => uri,
    }
}

/// The example of a call, about what there is in this ledger.
fn body(call: &Value, event: uuid::Uuid) -> Value {
    let content = &call["requestBody"]["content"]["application/json"];
    let mut body = content["example"].clone();
    assert!(body.is_object(), "{} has no example", call["operationId"]);
    let here = [
        ("event_id", json!(event)),
        ("stripe_customer_id", json!(CUSTOMER)),
        ("stripe_meter_id", json!(METER_ID)),
        ("event_name", json!(METER)),
        ("from_hour", json!("2026-03-10T10:00:00Z")),
    ];
    for (member, value) in here {
        if let Some(given) = body.get_mut(member) {
            *given = value;
        }
    }
    body
}

/// A refusal of what is unknown names all that is known: just what the document has. Nothing is taken twice, or with a character
/// that is none of a text.
async fn nothing_else_is_known(api: &Api, document: &Value, verb: &str, uri: &str, call: &Value) {
    let admin = token("acme", &["admin"]);
    let known = |answer: &crate::world::Answer| {
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        let names = detail.split_once("known parameters: ").or_else(|| detail.split_once("known members: "));
        let names = names.unwrap_or_else(|| panic!("{verb} {uri}: {detail}")).1;
        names.split(", ").filter(|name| *name != "none").map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let parameters = call["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "query");
    let named: BTreeSet<String> = parameters.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    let sign = if uri.contains('?') { '&' } else { '?' };
    for name in &named {
        // A tenant that must be named is looked at before anything else.
        let bare = uri.split('?').next().unwrap();
        let must = call["operationId"] == "corrections" && name != "tenant_id";
        let bare = if must { format!("{bare}?tenant_id=acme&") } else { format!("{bare}?") };
        for (query, words) in [(format!("{name}=acme&{name}=acme"), "more than once"), (format!("{name}=a%00b"), "")] {
            let answer = api.call(&verb.to_uppercase(), &format!("{bare}{query}"), &admin, "{}").await;
            assert_eq!(answer.refusal(), (400, "parameter_invalid".to_owned()), "{verb} {bare}{query}");
            assert!(
                answer.text.contains(name.as_str()) && answer.text.contains(words),
                "{verb} {bare}{query}: {answer:?}"
            );
        }
    }
    let unknown = api.call(&verb.to_uppercase(), &format!("{uri}{sign}nonsense=1"), &admin, "{}").await;
    assert_eq!(known(&unknown), named, "{verb} {uri}");
    if let Some(schema) = call["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str() {
        let schema = document.pointer(schema.trim_start_matches('#')).unwrap();
        let named: BTreeSet<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let unknown = api.call(&verb.to_uppercase(), uri, &admin, r#"{"nonsense":1}"#).await;
        assert_eq!(known(&unknown), named, "{verb} {uri}");
    }
}

/// A bit of everything, so that no answer is empty. Returns an event that is billed.
async fn a_life(api: &Api, admin: &str) -> uuid::Uuid {
    let event = api.used("acme", "/a", "2.5", "2026-03-10T10:15:00Z").await;
    let other = api.used("acme", "/a", "1", "2026-03-10T10:16:00Z").await;
    let void = json!({"kind": "void", "tenant_id": "acme", "event_id": other, "reason": "a test call"});
    let amount = json!({"kind": "amount", "tenant_id": "acme", "cents": 5, "ts": "2026-03-10", "reason": "a fee"});
    let adjust = json!({"kind": "adjust", "tenant_id": "acme", "event_id": event, "units": "1", "reason": "measured"});
    for body in [&void, &amount, &adjust] {
        let answer = api.put(&format!("/billing/corrections/{}", uuid::Uuid::now_v7()), admin, body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let closed = api.put("/billing/periods/acme/1", admin, &json!({"reason": "the month is over"})).await;
    assert_eq!(closed.status, 201, "{closed:?}");
    api.used("acme", "/a", "1", "2026-03-10T10:17:00Z").await;
    for (path, body) in [("meters/", stripe_meter()), ("mappings/acme/", stripe_mapping())] {
        let answer = api.put(&format!("/billing/stripe/{path}{METER}"), admin, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!(api.report_usage(admin, r#"{"tenant_id":"acme"}"#).await.status, 202);
    event
}

fn stripe_meter() -> Value {
    json!({"event_name": METER, "stripe_meter_id": METER_ID, "places": 6, "reason": "set-up"})
}

fn stripe_mapping() -> Value {
    json!({"stripe_customer_id": CUSTOMER, "from_hour": "2026-03-10T10:00:00Z", "reason": "set-up"})
}

/// Checks a value against a schema, as far as this document uses schemas.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is missing"));
        return check(document, schema, value, at);
    }
    if let Some(kinds) = schema["anyOf"].as_array() {
        let kind = kinds.iter().find(|kind| (kind["type"] == "null") == value.is_null());
        return check(document, kind.unwrap_or_else(|| panic!("{at}: {value}")), value, at);
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value}");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        other => vec![other.as_str().unwrap_or_else(|| panic!("{at} has no type in {schema}"))],
    };
    if value.is_null() {
        assert!(types.contains(&"null"), "{at} is null");
        return;
    }
    match types[0] {
        "object" if schema["properties"].is_null() => assert!(value.is_object(), "{at}: {value}"),
        "object" => {
            let (fields, given) = (schema["properties"].as_object().unwrap(), value.as_object().unwrap());
            let required = schema["required"].as_array().unwrap();
            for name in required.iter().filter_map(Value::as_str) {
                assert!(given.contains_key(name), "{at} lacks {name}");
            }
            for (name, value) in given {
                let schema = fields.get(name).unwrap_or_else(|| panic!("{at} has {name}, which the document lacks"));
                check(document, schema, value, &format!("{at}.{name}"));
            }
        }
        "array" => {
            let items = value.as_array().unwrap();
            assert!(!items.is_empty(), "{at} compares nothing");
            items.iter().for_each(|item| check(document, &schema["items"], item, at));
        }
        "string" => assert!(value.is_string(), "{at}: {value}"),
        "integer" => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
        "number" => assert!(value.is_number(), "{at}: {value}"),
        other => panic!("{at}: {other} is not tried"),
    }
}
