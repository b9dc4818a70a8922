//! Foreign tenants: every endpoint, every spelling of a name and every role. Who may not see a tenant is told the same of it
//! as of one that there is not; who may see all sees no tenant under the spelling of another.

use std::fmt::Display;

use goldleaves_testkit::postgres::Postgres;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answer, Api, Event, Kind, on_both, token};

on_both!(nobody_without_a_role_learns_whether_a_tenant_is_there, a_name_is_another_one_in_another_spelling);

/// Spellings of `victim` that a URL can hold; the second one is the name itself.
const IN_URLS: [&str; 12] = [
    "victim",
    "%76%69ctim",
    "VICTIM",
    "Victim",
    "vIcTiM",
    "victim%20",
    "%20victim",
    "victim.",
    "victim%2F",
    "v%C4%B1ctim",
    "victim%00",
    "victims",
];
/// Roles that give nothing, however like others they look.
const POWERLESS: [&[&str]; 6] =
    [&[], &["user"], &["Admin", "ADMIN"], &["billing"], &["billing:Read", "BILLING:WRITE"], &["admin ", "billing:*"]];

/// A call, with `{t}` for the tenant in its path and its body.
#[derive(Debug)]
struct Call {
    method: &'static str,
    path: String,
    body: String,
}

impl Call {
    fn get(path: impl Display) -> Self {
        Self { method: "GET", path: format!("/billing/{path}"), body: String::new() }
    }

    fn put(path: impl Display, body: &Value) -> Self {
        Self { method: "PUT", path: format!("/billing/{path}"), body: body.to_string() }
    }

    fn post(path: impl Display, body: &Value) -> Self {
        Self { method: "POST", path: format!("/billing/{path}"), body: body.to_string() }
    }
}

fn reads(event: Uuid) -> Vec<Call> {
    let paths = [
        "usage-summary/{t}".to_owned(),
        "usage-summary?tenant_id={t}".to_owned(),
        "usage-report/{t}".to_owned(),
        "usage-report/{t}?format=csv".to_owned(),
        "usage-report?tenant_id={t}&group_by=action".to_owned(),
        "usage-events/{t}".to_owned(),
        "usage-events/{t}?state=all&format=csv".to_owned(),
        "usage-events?tenant_id={t}".to_owned(),
        format!("usage-events/{{t}}/{event}"),
        format!("usage-events/{event}?tenant_id={{t}}"),
        format!("usage-events/{{t}}/{event}?by=request"),
        "invoice/{t}".to_owned(),
        "invoice?tenant_id={t}".to_owned(),
        "invoice/{t}/1".to_owned(),
        "invoice/1?tenant_id={t}".to_owned(),
        "periods/{t}".to_owned(),
        "periods?tenant_id={t}".to_owned(),
        "late/{t}".to_owned(),
        "late?tenant_id={t}".to_owned(),
        "corrections/{t}".to_owned(),
        "corrections?tenant_id={t}".to_owned(),
        "rate-cards?tenant_id={t}".to_owned(),
        "report-usage/{t}".to_owned(),
        "report-usage?tenant_id={t}".to_owned(),
    ];
    paths.into_iter().map(Call::get).collect()
}

/// The least role that a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Read,
    Write,
    Admin,
}

/// Calls that a token without a role may not make, whoever is asked about.
fn of_roles(event: Uuid) -> Vec<(Needs, Call)> {
    use Needs::{Admin, Read, Write};
    let id = Uuid::now_v7();
    let pricing = json!({"model": "per_unit", "cents_per_unit": "3"});
    let void = json!({"kind": "void", "tenant_id": "{t}", "event_id": event, "reason": "r"});
    let amount = json!({"kind": "amount", "tenant_id": "{t}", "cents": 1, "reason": "r"});
    let card = json!({"tenant_id": "{t}", "pricing": pricing, "effective_from": "2100-01-01T00:00:00Z", "reason": "r"});
    let zone = json!({"time_zone": "UTC", "reason": "r"});
    let mapping = json!({"stripe_customer_id": null, "reason": "r"});
    let meter = json!({"event_name": "x", "stripe_meter_id": "y", "places": 6, "reason": "r"});
    let lane = json!({"stripe_customer_id": "cus_1", "event_name": "x", "reason": "r"});
    vec![
        (Write, Call::put(format!("corrections/{id}"), &void)),
        (Write, Call::put(format!("corrections/{id}"), &amount)),
        (Write, Call::put("periods/{t}/1", &json!({"ends_at": "2026-04-01T00:00:00Z", "reason": "r"}))),
        (Write, Call::put("periods/1?tenant_id={t}", &json!({"reason": "r"}))),
        (Write, Call::post("report-usage", &json!({"tenant_id": "{t}"}))),
        (Admin, Call::put("tenants/{t}", &zone)),
        (Admin, Call::put("tenants?tenant_id={t}", &zone)),
        (Admin, Call::put(format!("rate-cards/{id}"), &card)),
        (Admin, Call::get("audit?tenant_id={t}")),
        (Admin, Call::put("stripe/mappings/{t}/units", &mapping)),
        (Admin, Call::put("stripe/mappings/units?tenant_id={t}", &mapping)),
        (Admin, Call::put("stripe/meters/units", &meter)),
        (Admin, Call::post(format!("stripe/pushes/{event}/retry"), &json!({"reason": "r"}))),
        (Admin, Call::post("stripe/lanes/adopt", &lane)),
        (Read, Call::get("tenants")),
        (Read, Call::post("rate-cards/preview", &json!({"tenant_id": "{t}", "pricing": pricing}))),
        (Read, Call::get("stripe/mappings/{t}")),
        (Read, Call::get("stripe/mappings?tenant_id={t}")),
        (Read, Call::get("stripe/pushes/{t}")),
        (Read, Call::get("stripe/pushes?tenant_id={t}")),
        (Read, Call::get("stripe/meters")),
        (Read, Call::get("stripe/drift")),
    ]
}

/// An operation of the document that is not tried here is one that was forgotten.
#[tokio::test]
async fn every_operation_is_tried() {
    let api = Api::start().await;
    let event = Uuid::now_v7();
    let mut tried = reads(event);
    tried.extend(of_roles(event).into_iter().map(|(_, call)| call));
    // These are nobody's.
    tried.extend([Call::get("health"), Call::post("stripe/webhook", &Value::Null)]);
    let like = |path: &str| {
        let segment = |segment: &str| {
            let is_one =
                segment.starts_with('{') || Uuid::try_parse(segment).is_ok() || ["1", "units"].contains(&segment);
            if is_one { "*" } else { segment }.to_owned()
        };
        path.split('?').next().unwrap_or_default().split('/').map(segment).collect::<Vec<_>>().join("/")
    };
    let alike = |call: &Call| (call.method.to_lowercase(), like(&call.path));
    let by_parameter: Vec<_> = tried.iter().filter(|call| call.path.contains("tenant_id={t}")).map(alike).collect();
    let tried: Vec<_> = tried.iter().map(alike).collect();
    let request = http::Request::get("/billing/openapi.json").body(axum::body::Body::empty()).unwrap();
    let document = api.ask(request).await.json();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for verb in verbs.as_object().unwrap().keys() {
            assert!(tried.contains(&(verb.clone(), like(path))), "{verb} {path}");
            // The same without the segment, for names that no path can hold.
            if let Some(without) = path.contains("/{tenant_id}").then(|| path.replacen("/{tenant_id}", "", 1)) {
                assert!(by_parameter.contains(&(verb.clone(), like(&without))), "{verb} {without}?tenant_id=");
            }
        }
    }
}

async fn ask(api: &Api, call: &Call, name: &str, token: &str) -> Answer {
    let (path, body) = (call.path.replace("{t}", name), call.body.replace("{t}", name));
    api.call(call.method, &path, token, body).await
}

/// All that an answer says, but for the number of the call, and the number of a report, which is made of the tenant's name.
fn said(answer: &Answer) -> (u16, String, Value) {
    let mut body: Value = serde_json::from_str(&answer.text).unwrap_or_else(|_| json!(answer.text));
    if let Some(problem) = body.as_object_mut() {
        problem.remove("request_id");
        problem.remove("report_id");
    }
    (answer.status, answer.kind.clone(), body)
}

async fn nobody_without_a_role_learns_whether_a_tenant_is_there(api: Api) {
    let event = a_victim(&api).await;
    for roles in POWERLESS {
        // Also one whose own name is nearly that.
        for own in ["acme", "Victim", "victim.", "victims."] {
            let token = token(own, roles);
            for call in reads(event).into_iter().chain(of_roles(event).into_iter().map(|(_, call)| call)) {
                let call = &call;
                let nobody = said(&ask(&api, call, "nobody", &token).await);
                assert_eq!(nobody.0, 403, "{roles:?} {call:?}: {nobody:?}");
                for name in IN_URLS.into_iter().filter(|name| *name != own) {
                    let answer = said(&ask(&api, call, name, &token).await);
                    assert_eq!(answer, nobody, "{own} {roles:?} {call:?} {name}");
                }
            }
        }
    }
    // Who may read all may write nothing, who may write bills sets no zone and no price; none of it depends on the name.
    for (role, has) in [("billing:read", Needs::Read), ("billing:write", Needs::Write)] {
        let token = token("acme", &[role]);
        for (_, call) in of_roles(event).into_iter().filter(|(needs, _)| *needs > has) {
            let nobody = said(&ask(&api, &call, "nobody", &token).await);
            assert_eq!((nobody.0, &nobody.2["code"]), (403, &json!("role_missing")), "{role} {call:?}");
            for name in IN_URLS {
                assert_eq!(said(&ask(&api, &call, name, &token).await), nobody, "{role} {call:?} {name}");
            }
        }
    }
    for table in ["billing_audit", "usage_corrections", "billing_tenants", "billing_periods"] {
        assert_eq!(api.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}: nothing was written");
    }
}

async fn a_name_is_another_one_in_another_spelling(api: Api) {
    let event = a_victim(&api).await;
    for roles in [["admin"], ["billing:read"], ["billing:write"]] {
        let token = token("acme", &roles);
        for call in reads(event) {
            let own = ask(&api, &call, "victim", &token).await;
            assert_ne!(own.status, 403, "{roles:?} {call:?}");
            let nobody = said(&ask(&api, &call, "nobody", &token).await);
            let nobody = format!("{nobody:?}").replace("nobody", "-");
            for name in ["VICTIM", "Victim", "vIcTiM", "victim.", "victims"] {
                let answer = said(&ask(&api, &call, name, &token).await);
                assert_eq!(format!("{answer:?}").replace(name, "-"), nobody, "{roles:?} {call:?} {name}");
            }
        }
    }
    // Nor is an event of a tenant one of another's spelling.
    let writer = token("acme", &["billing:write"]);
    for name in ["VICTIM", "Victim", "victim.", "victims", "acme"] {
        let path = format!("/billing/corrections/{}", Uuid::now_v7());
        let body = json!({"kind": "void", "tenant_id": name, "event_id": event, "reason": "r"});
        assert_eq!(api.put(&path, &writer, &body).await.refusal(), (404, "no_such_event".to_owned()), "{name}");
    }
}

async fn a_victim(api: &Api) -> Uuid {
    let event = Event::at("victim", "2026-03-03T10:00:00Z");
    assert_eq!(api.record(std::slice::from_ref(&event)).await.inserted, 1);
    event.id
}

/// No clock tells more than the answer: the very same statements run, in the same order, for what is another tenant's as for
/// what there is not; and none at all where the tenant may not be asked about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_done_for_what_is_foreign_as_for_what_is_not_there() {
    let api = Api::on(Kind::Postgres).await;
    let (foreign, none) = (a_victim(&api).await, Uuid::now_v7());
    api.used("acme", "/a", "1", "2026-03-03T10:00:00Z").await;
    let database = api.url().rsplit('/').next().unwrap();
    api.execute(&format!("ALTER DATABASE {database} SET log_statement = 'all'")).await;
    // Connections of their own, whose statements the server writes down.
    let api = api.anew().await;
    let plain = token("acme", &[]);
    for call in reads(foreign).into_iter().chain(of_roles(foreign).into_iter().map(|(_, call)| call)) {
        let call = &call;
        for name in ["victim", "nobody"] {
            let (answer, statements) = watched(&api, call, name, &plain).await;
            assert_eq!((answer.0, &statements), (403, &Vec::new()), "{name} {call:?}");
        }
    }
    let (reader, writer) = (token("ops", &["billing:read"]), token("ops", &["billing:write"]));
    let get = |path: String| Call::get(format!("usage-events/{path}"));
    let correct = |event: Uuid, kind: &str| {
        let mut body = json!({"kind": kind, "tenant_id": "{t}", "event_id": event, "reason": "r"});
        if kind == "adjust" {
            body["units"] = json!("1");
        }
        Call::put(format!("corrections/{}", Uuid::now_v7()), &body)
    };
    for ((theirs, nobodys), token) in [
        ((get(format!("{{t}}/{foreign}")), get(format!("{{t}}/{none}"))), &plain),
        ((get(format!("{{t}}/{foreign}?by=event")), get(format!("{{t}}/{none}?by=event"))), &plain),
        ((get(format!("{{t}}/{foreign}?by=request")), get(format!("{{t}}/{none}?by=request"))), &plain),
        ((get(format!("{{t}}/{foreign}")), get(format!("{{t}}/{none}"))), &reader),
        ((correct(foreign, "void"), correct(none, "void")), &writer),
        ((correct(foreign, "adjust"), correct(none, "adjust")), &writer),
    ] {
        let theirs_done = watched(&api, &theirs, "acme", token).await;
        let nobodys_done = watched(&api, &nobodys, "acme", token).await;
        assert_eq!(theirs_done, nobodys_done, "{theirs:?}");
        assert_eq!(theirs_done.0.0, 404, "{theirs:?}");
        assert!(!theirs_done.1.is_empty(), "{theirs:?}: nothing was looked at");
    }
}

/// Makes a call; returns its answer and the statements that ran for it.
async fn watched(api: &Api, call: &Call, name: &str, token: &str) -> ((u16, String, Value), Vec<String>) {
    let server = Postgres::shared().await.unwrap();
    let database = api.url().rsplit('/').next().unwrap();
    let before = server.log().len();
    let answer = said(&ask(api, call, name, token).await);
    let log = server.log();
    let of_ours = format!(" {database} LOG:  execute ");
    // Each connection numbers its statements by itself.
    let statement = |line: &str| Some(line.split_once(&of_ours)?.1.split_once(": ")?.1.to_owned());
    let statements = log.get(before..).unwrap_or_default().lines().filter_map(statement).collect();
    (answer, statements)
}
