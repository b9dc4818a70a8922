//! Bad input and foreign tenants: each refused by name, in the same words, with nothing written.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, on_both, token};

on_both!(bad_members_are_named_and_nothing_is_written, nobody_reaches_beyond_what_the_token_gives);

/// Every read of a tenant, with its parameters.
const READS: [(&str, &str); 7] = [
    ("usage-summary", "start_date,end_date,month,time_zone"),
    ("usage-report", "start_date,end_date,month,time_zone,group_by,format"),
    ("usage-events", "start_date,end_date,month,time_zone,limit,cursor,state,route,action,user_id,order,format"),
    ("invoice", "format"),
    ("late", "start_date,end_date,month,time_zone,limit,cursor"),
    ("corrections", "start_date,end_date,month,time_zone,limit,cursor,format"),
    ("periods", "limit,cursor"),
];

#[tokio::test]
async fn unknown_and_doubled_parameters_name_what_is_known() {
    let api = Api::start().await;
    let own = token("acme", &["admin"]);
    let mut paths: Vec<(String, &str)> = READS.iter().map(|(path, known)| (format!("{path}/acme"), *known)).collect();
    paths.push(("tenants".to_owned(), "start_date,end_date,month,time_zone,sort,format,limit,cursor"));
    paths.push(("audit".to_owned(), "start_date,end_date,month,time_zone,tenant_id,limit,cursor"));
    for (path, known) in paths {
        for query in ["start=2026-01-01", "startdate=2026-01-01", "Start_Date=2026-01-01", "x="] {
            let answer = api.get(&format!("/billing/{path}?{query}"), &own).await;
            assert_eq!(answer.refusal(), (400, "parameter_invalid".to_owned()), "{path}?{query}");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(known.split(',').all(|name| detail.contains(name)), "{path}?{query}: {detail}");
        }
        for name in known.split(',') {
            let answer = api.get(&format!("/billing/{path}?{name}=1&{name}=1"), &own).await;
            assert_eq!(answer.refusal(), (400, "parameter_invalid".to_owned()), "{path} {name}");
            assert!(answer.text.contains(name) && answer.text.contains("more than once"), "{path} {name}: {answer:?}");
            let answer = api.get(&format!("/billing/{path}?{name}=a%00b"), &own).await;
            assert_eq!(answer.status, 400, "{path} {name}: {answer:?}");
        }
    }
}

/// In the path and as a parameter: neither wins, whatever the call.
#[tokio::test]
async fn a_tenant_that_is_named_twice_is_refused() {
    let api = Api::start().await;
    let admin = token("acme", &["admin"]);
    let mut paths: Vec<String> = ["usage-summary", "usage-report", "late", "periods", "corrections", "report-usage"]
        .map(|path| format!("{path}/acme"))
        .into();
    paths.extend(
        ["stripe/mappings/acme", "stripe/pushes/acme", "invoice/acme/1", "usage-events/acme/x"].map(str::to_owned),
    );
    for path in paths {
        let answer = api.get(&format!("/billing/{path}?tenant_id=globex"), &admin).await;
        assert!(answer.status == 400 && answer.text.contains("tenant_id"), "{path}: {answer:?}");
    }
    for (path, body) in [
        ("tenants/acme", json!({"time_zone": "Asia/Kolkata", "reason": "r"})),
        ("periods/acme/1", json!({"reason": "r"})),
        ("stripe/mappings/acme/calls", json!({"stripe_customer_id": "cus_1", "reason": "r"})),
    ] {
        let answer = api.put(&format!("/billing/{path}?tenant_id=globex"), &admin, &body).await;
        assert!(answer.status == 400 && answer.text.contains("tenant_id"), "{path}: {answer:?}");
    }
    assert_eq!(api.number("SELECT COUNT(*) FROM billing_tenants").await, 0);
}

#[tokio::test]
async fn what_is_wrong_with_a_path_or_a_body_is_named() {
    let api = Api::start().await;
    let admin = token("acme", &["admin"]);
    let missing = api.get("/billing/invoice/acme/99", &admin).await;
    assert!(missing.status == 404 && missing.text.contains("period 99"), "{missing:?}");
    for name in ["ac%00me", "%zz", "acme%", "acme%4"] {
        let answer = api.get(&format!("/billing/usage-summary/{name}"), &admin).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
    }
    let long = api.put("/billing/tenants/acme", &admin, &json!({"reason": "x".repeat(70_000)})).await;
    assert!(long.status == 413 && long.text.contains("65536"), "{long:?}");
    let blank = json!({"pricing": {"model": "per_unit", "cents_per_unit": "3"}, "reason": "  ",
        "effective_from": "2100-01-01T00:00:00Z"});
    let answer = api.put(&format!("/billing/rate-cards/{}", Uuid::now_v7()), &admin, &blank).await;
    assert!(answer.status == 400 && answer.text.contains("reason"), "{answer:?}");
}

#[tokio::test]
async fn lists_are_of_at_most_400_days() {
    let api = Api::start().await;
    let admin = token("acme", &["admin"]);
    let years = "start_date=2024-01-01&end_date=2026-01-01";
    for path in ["usage-summary/acme", "usage-report/acme"] {
        assert_eq!(api.get(&format!("/billing/{path}?{years}"), &admin).await.status, 200, "{path}");
    }
    for path in [
        "usage-report/acme?group_by=day",
        "usage-events/acme?",
        "late/acme?",
        "corrections/acme?",
        "tenants?",
        "audit?",
    ] {
        let answer = api.get(&format!("/billing/{path}&{years}"), &admin).await;
        assert!(answer.status == 400 && answer.text.contains("400 days"), "{path}: {answer:?}");
    }
}

/// A call with a body, which is good as it is.
struct Sent {
    call: (&'static str, String),
    body: Value,
    /// Members that may be missing.
    optional: &'static str,
    /// Members that may be empty.
    blank: &'static str,
}

/// One call of each kind that has a body.
fn bodies(event: Uuid) -> Vec<Sent> {
    let mut all = of_bills(event);
    all.extend(of_stripe());
    all
}

fn put(path: &str) -> (&'static str, String) {
    ("PUT", format!("/billing/{path}"))
}

fn post(path: &str) -> (&'static str, String) {
    ("POST", format!("/billing/{path}"))
}

fn sent(call: &(&'static str, String), body: Value, optional: &'static str, blank: &'static str) -> Sent {
    Sent { call: call.clone(), body, optional, blank }
}

fn of_bills(event: Uuid) -> Vec<Sent> {
    let correction = put(&format!("corrections/{}", Uuid::now_v7()));
    let pricing = json!({"model": "per_unit", "cents_per_unit": "3"});
    vec![
        sent(&correction, json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "r"}), "", ""),
        sent(
            &correction,
            json!({"kind": "adjust", "tenant_id": "acme", "event_id": event, "units": "-1", "reason": "r"}),
            "",
            "",
        ),
        sent(
            &correction,
            json!({"kind": "amount", "tenant_id": "acme", "cents": 5, "ts": "2026-03-01", "reason": "r"}),
            "ts",
            "",
        ),
        sent(&put("tenants/acme"), json!({"time_zone": "UTC", "reason": "r"}), "", ""),
        sent(
            &put("periods/acme/1"),
            json!({"ends_at": "2026-04-01", "starts_at": "2026-03-01", "reason": "r"}),
            "starts_at ends_at",
            "",
        ),
        sent(
            &put(&format!("rate-cards/{}", Uuid::now_v7())),
            json!({"tenant_id": "acme", "route": "/a", "action": "read", "pricing": pricing,
                "effective_from": "2100-01-01T00:00:00Z", "reason": "r"}),
            "tenant_id route action",
            "",
        ),
        sent(
            &post("rate-cards/preview"),
            json!({"tenant_id": "acme", "route": "/a", "action": "read", "pricing": pricing, "start_date": "2026-03-01",
                "end_date": "2026-04-01", "reason": "r"}),
            "tenant_id route action start_date end_date reason",
            "",
        ),
        sent(
            &post("report-usage"),
            json!({"tenant_id": "acme", "start_date": "2026-03-01", "end_date": "2026-04-01", "meter": "calls"}),
            "start_date end_date meter",
            "",
        ),
    ]
}

fn of_stripe() -> Vec<Sent> {
    vec![
        sent(
            &put("stripe/meters/calls"),
            json!({"event_name": "calls", "stripe_meter_id": "mtr_1", "route": "/a", "places": 6, "reason": "r"}),
            "route",
            "route",
        ),
        sent(
            &put("stripe/mappings/acme/calls"),
            json!({"stripe_customer_id": "cus_1", "from_hour": "2026-03-01T00:00:00Z", "reason": "r"}),
            "from_hour",
            "",
        ),
        sent(&post(&format!("stripe/pushes/{}/retry", Uuid::now_v7())), json!({"reason": "r"}), "", ""),
        sent(
            &post("stripe/lanes/adopt"),
            json!({"stripe_customer_id": "cus_1", "event_name": "calls", "reason": "r"}),
            "",
            "",
        ),
    ]
}

async fn bad_members_are_named_and_nothing_is_written(api: Api) {
    let event = api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let admin = token("ops", &["admin"]);
    for Sent { call: (method, path), body, optional, blank } in bodies(event) {
        let send = async |path: &str, body: String| api.call(method, path, &admin, body).await;
        for member in body.as_object().unwrap().keys() {
            let long = if member == "pricing" { json!({"model": "x".repeat(501)}) } else { json!("x".repeat(501)) };
            let mut wrong: Vec<Value> =
                vec![json!({"a": 1}), json!([1]), json!(true), json!(1.5), json!("a\u{0}b"), long];
            if !blank.contains(member.as_str()) {
                wrong.push(json!(""));
            }
            let mut bodies: Vec<Value> = wrong.into_iter().map(|value| with(&body, member, value)).collect();
            if !optional.contains(member.as_str()) {
                let mut without = body.clone();
                without.as_object_mut().unwrap().remove(member);
                bodies.push(without);
            }
            for body in bodies {
                let answer = send(&path, body.to_string()).await;
                assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
                assert!(answer.json()["detail"].as_str().unwrap().contains(member.as_str()), "{member}: {answer:?}");
            }
        }
        let answer = send(&path, with(&body, "unknown", json!(1)).to_string()).await;
        assert!(answer.status == 400 && answer.text.contains("unknown"), "{answer:?}");
        let answer = send(&format!("{path}?dry_run=1"), body.to_string()).await;
        assert!(answer.status == 400 && answer.text.contains("dry_run"), "{answer:?}");
        let (name, value) = body.as_object().unwrap().iter().next().unwrap();
        let twice = body.to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1);
        let answer = send(&path, twice).await;
        assert!(
            answer.status == 400 && answer.text.contains(name) && answer.text.contains("more than once"),
            "{answer:?}"
        );
        assert_eq!(send(&path, "x".repeat(70_000)).await.status, 413, "{path}");
    }
    let void = json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "r"});
    assert_eq!(api.put("/billing/corrections/7", &admin, &void).await.status, 400, "an id is a UUID");
    let audit = api.get("/billing/audit?start_date=2026-01-01&end_date=2027-01-01", &admin).await.json();
    assert_eq!(audit["items"], json!([]), "nothing was written");
    for (table, rows) in [
        ("rate_cards", 1),
        ("stripe_pushes", 0),
        ("stripe_meters", 0),
        ("stripe_mappings", 0),
        ("usage_corrections", 0),
        ("billing_tenants", 0),
    ] {
        assert_eq!(api.number(&format!("SELECT COUNT(*) FROM {table}")).await, rows, "{table}: nothing was written");
    }
    let bill = api.get("/billing/usage-summary/acme?month=2026-03", &admin).await.json();
    assert_eq!((&bill["total_cost_cents"], &bill["corrections"]["events"]), (&json!(50), &json!(0)));
}

/// A call that has a body and is not tried above is one that was forgotten.
#[tokio::test]
async fn every_body_is_tried() {
    let api = Api::start().await;
    let tried = bodies(Uuid::now_v7());
    let request = http::Request::get("/billing/openapi.json").body(axum::body::Body::empty()).unwrap();
    let document = api.ask(request).await.json();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, call) in verbs.as_object().unwrap() {
            // What is wrong with a call of Stripe's is not said, whatever it is.
            if call["requestBody"].is_null() || path == "/billing/stripe/webhook" {
                continue;
            }
            let (before, behind) = (path.split("/{").next().unwrap(), path.rsplit('}').next().unwrap());
            let is_of = |sent: &&Sent| {
                let (method, uri) = &sent.call;
                method.eq_ignore_ascii_case(verb) && uri.starts_with(before) && uri.ends_with(behind)
            };
            let members: BTreeSet<&String> =
                tried.iter().filter(is_of).flat_map(|sent| sent.body.as_object().unwrap().keys()).collect();
            let schema = call["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
            let known = document.pointer(schema.trim_start_matches('#')).unwrap()["properties"].as_object().unwrap();
            assert_eq!(members, known.keys().collect(), "{verb} {path}");
        }
    }
}

fn with(body: &Value, member: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[member] = value;
    body
}

async fn nobody_reaches_beyond_what_the_token_gives(api: Api) {
    let event = api.used("victim", "/a", "2", "2026-03-03T10:00:00Z").await;
    let plain = token("acme", &[]);
    for name in ["victim", "VICTIM", "Victim", "nobody", "victim%20", "%76ictim", "victim%00", "victim%2Fx", "a%0Ab"] {
        for (path, _) in READS {
            for uri in [format!("/billing/{path}/{name}"), format!("/billing/{path}?tenant_id={name}")] {
                let answer = api.get(&uri, &plain).await;
                assert_eq!(answer.refusal(), (403, "tenant_forbidden".to_owned()), "{uri}");
                assert_eq!(answer.json()["detail"], "the token gives no access to this tenant's usage", "{uri}");
            }
        }
        for uri in [
            format!("usage-events/{name}/{event}"),
            format!("usage-events/{event}?tenant_id={name}"),
            format!("invoice/{name}/1"),
        ] {
            assert_eq!(api.get(&format!("/billing/{uri}"), &plain).await.status, 403, "{uri}");
        }
    }
    // An event of another tenant is not there, however it is asked for.
    for path in [format!("usage-events/acme/{event}"), format!("usage-events/acme/{event}?by=event")] {
        assert_eq!(api.get(&format!("/billing/{path}"), &plain).await.refusal(), (404, "no_such_event".to_owned()));
    }
    let body = json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "r"});
    let writes = [
        (format!("/billing/corrections/{}", Uuid::now_v7()), body, "billing:write"),
        ("/billing/periods/acme/1".to_owned(), json!({"reason": "r"}), "billing:write"),
        ("/billing/tenants/acme".to_owned(), json!({"time_zone": "UTC", "reason": "r"}), "admin"),
    ];
    for (path, body, role) in &writes {
        for roles in [&[][..], &["billing:read"], &["billing:write"]] {
            if roles.contains(role) {
                continue;
            }
            for body in [body.to_string(), "nonsense".to_owned()] {
                let answer = api.call("PUT", &format!("{path}?x=1"), &token("acme", roles), body).await;
                assert_eq!(
                    answer.refusal(),
                    (403, "role_missing".to_owned()),
                    "{path} {roles:?}: before anything else"
                );
            }
        }
    }
    for path in ["/billing/tenants", "/billing/audit"] {
        assert_eq!(api.get(path, &plain).await.refusal(), (403, "role_missing".to_owned()), "{path}");
    }
}
