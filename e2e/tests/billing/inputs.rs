//! Bad input and foreign tenants: each refused by name, in the same words, with nothing written.

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

async fn bad_members_are_named_and_nothing_is_written(api: Api) {
    let event = api.used("acme", ("/a", "2", "2026-03-03T10:00:00Z")).await;
    let admin = token("ops", &["admin"]);
    let correction = format!("/billing/corrections/{}", Uuid::now_v7());
    let long = "x".repeat(501);
    let void = json!({"kind": "void", "tenant_id": "acme", "event_id": event, "reason": "r"});
    let adjust = json!({"kind": "adjust", "tenant_id": "acme", "event_id": event, "units": "-1", "reason": "r"});
    let amount = json!({"kind": "amount", "tenant_id": "acme", "cents": 5, "ts": "2026-03-01", "reason": "r"});
    let zone = json!({"time_zone": "UTC", "reason": "r"});
    let period = json!({"ends_at": "2026-04-01", "starts_at": "2026-03-01", "reason": "r"});
    for (path, body, optional) in [
        (correction.as_str(), &void, ""),
        (&correction, &adjust, ""),
        (&correction, &amount, "ts"),
        ("/billing/tenants/acme", &zone, ""),
        ("/billing/periods/acme/1", &period, "starts_at ends_at"),
    ] {
        for member in body.as_object().unwrap().keys() {
            let mut wrong: Vec<Value> = vec![json!({"a": 1}), json!([1]), json!(true), json!(1.5), json!("a\u{0}b")];
            if member != "reason" {
                wrong.push(json!(""));
            }
            wrong.push(json!(long));
            let mut bodies: Vec<Value> = wrong.into_iter().map(|value| with(body, member, value)).collect();
            if !optional.contains(member.as_str()) {
                let mut without = body.clone();
                without.as_object_mut().unwrap().remove(member);
                bodies.push(without);
            }
            for body in bodies {
                let answer = api.put(path, &admin, &body).await;
                assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
                assert!(answer.json()["detail"].as_str().unwrap().contains(member.as_str()), "{member}: {answer:?}");
            }
        }
        let answer = api.put(path, &admin, &with(body, "unknown", json!(1))).await;
        assert!(answer.status == 400 && answer.text.contains("unknown"), "{answer:?}");
        let answer = api.put(&format!("{path}?dry_run=1"), &admin, body).await;
        assert!(answer.status == 400 && answer.text.contains("dry_run"), "{answer:?}");
        let twice = body.to_string().replacen('{', "{\"reason\":\"r\",", 1);
        let answer = api.call("PUT", (path, &admin), twice).await;
        assert!(answer.status == 400 && answer.text.contains("reason"), "{answer:?}");
        assert_eq!(api.call("PUT", (path, &admin), "x".repeat(70_000)).await.status, 413, "{path}");
    }
    assert_eq!(api.put("/billing/corrections/7", &admin, &void).await.status, 400, "an id is a UUID");
    let audit = api.get("/billing/audit?start_date=2026-01-01&end_date=2027-01-01", &admin).await.json();
    assert_eq!(audit["items"], json!([]), "nothing was written");
    let bill = api.get("/billing/usage-summary/acme?month=2026-03", &admin).await.json();
    assert_eq!((&bill["total_cost_cents"], &bill["corrections"]["events"]), (&json!(50), &json!(0)));
}

fn with(body: &Value, member: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[member] = value;
    body
}

async fn nobody_reaches_beyond_what_the_token_gives(api: Api) {
    let event = api.used("victim", ("/a", "2", "2026-03-03T10:00:00Z")).await;
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
                let answer = api.call("PUT", (&format!("{path}?x=1"), &token("acme", roles)), body).await;
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
