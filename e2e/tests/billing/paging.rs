//! Pages of every list: a cursor goes on with its own list, whichever way that is asked for, and with no other one.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, Kind, on_both, token};

on_both! {
    a_cursor_goes_on_with_its_own_list_alone,
    a_cursor_of_a_month_goes_on_when_the_month_is_over,
    a_cursor_goes_on_in_the_hour_that_a_clock_has_twice,
}

const RANGE: &str = "start_date=2026-03-01&end_date=2027-03-01";

/// A list, as it is asked for of a tenant, and the same of another question.
struct List {
    operation: &'static str,
    path: &'static str,
    query: &'static str,
    other: &'static str,
}

const LISTS: [List; 9] = [
    List {
        operation: "usageEvents",
        path: "usage-events/{t}",
        query: RANGE,
        other: "start_date=2026-03-01&end_date=2027-03-01&order=desc",
    },
    List {
        operation: "corrections",
        path: "corrections/{t}",
        query: RANGE,
        other: "start_date=2026-03-02&end_date=2027-03-01",
    },
    List { operation: "periods", path: "periods/{t}", query: "", other: "" },
    List { operation: "lateHours", path: "late/{t}", query: "", other: "month=2026-03" },
    List { operation: "rateCards", path: "rate-cards?tenant_id={t}", query: "", other: "at=2026-03-05" },
    List {
        operation: "tenants",
        path: "tenants",
        query: RANGE,
        other: "start_date=2026-03-01&end_date=2027-03-01&sort=units",
    },
    List {
        operation: "audit",
        path: "audit",
        query: "start_date=2026-03-01&end_date=2027-03-01&tenant_id=acme",
        other: "start_date=2026-03-01&end_date=2027-03-01&tenant_id=globex",
    },
    List {
        operation: "stripePushes",
        path: "stripe/pushes/{t}",
        query: RANGE,
        other: "start_date=2026-03-01&end_date=2027-03-01&meter=goldleaves_units",
    },
    List { operation: "stripeDrift", path: "stripe/drift", query: "", other: "" },
];

impl List {
    /// The list of this tenant, with these parameters too.
    fn uri(&self, tenant: &str, query: &str, more: &str) -> String {
        let path = format!("/billing/{}", self.path.replace("{t}", tenant));
        let query = [query, more].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
        let sign = if path.contains('?') { '&' } else { '?' };
        format!("{path}{sign}{query}")
    }
}

async fn a_cursor_goes_on_with_its_own_list_alone(api: Api) {
    let api = &api;
    for tenant in ["acme", "globex"] {
        a_busy_year(api, tenant).await;
    }
    for customer in ["cus_1", "cus_2", "cus_3"] {
        let lane = "INSERT INTO stripe_lanes (stripe_customer_id, event_name, leased_until) VALUES";
        api.execute(&format!("{lane} ('{customer}', 'calls', '2026-01-01T00:00:00.000000Z')")).await;
    }
    let admin = token("ops", &["admin"]);
    let document = api.ask(http::Request::get("/billing/openapi.json").body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(lists_of(&document.json()), LISTS.iter().map(|list| list.operation.to_owned()).collect());
    let mut cursors = Vec::new();
    for list in &LISTS {
        cursors.push(first_cursor(api, list, &admin).await);
    }
    for (list, cursor) in LISTS.iter().zip(&cursors) {
        every_item_comes_once(api, list, &admin).await;
        let mut others = Vec::new();
        if list.other != list.query {
            others.push((list.uri("acme", list.other, ""), admin.clone()));
        }
        if list.path.contains("{t}") {
            others.push((list.uri("globex", list.query, ""), admin.clone()));
        }
        others.extend(
            LISTS
                .iter()
                .filter(|other| other.operation != list.operation)
                .map(|other| (other.uri("acme", other.query, ""), admin.clone())),
        );
        if list.operation != "audit" {
            others.push((list.uri("acme", list.query, ""), token("ops", &["billing:read"])));
        }
        for (uri, token) in others {
            refused(api, &uri, &token, cursor).await;
        }
        let (print, keys) = cursor.split_once('.').unwrap();
        for altered in [
            keys.to_owned(),
            format!("{print}.{}", keys.to_lowercase()),
            format!("{print}.AAAA"),
            format!("{}.{keys}", "0".repeat(print.len())),
            format!("{cursor}A"),
            "%2500".to_owned(),
            String::new(),
        ] {
            refused(api, &list.uri("acme", list.query, ""), &admin, &altered).await;
        }
    }
}

/// The operations of the document that take a cursor.
fn lists_of(document: &Value) -> BTreeSet<String> {
    let calls = document["paths"].as_object().unwrap().values().flat_map(|verbs| verbs.as_object().unwrap().values());
    let has_cursor =
        |call: &&Value| call["parameters"].as_array().into_iter().flatten().any(|one| one["name"] == "cursor");
    calls.filter(has_cursor).map(|call| call["operationId"].as_str().unwrap().to_owned()).collect()
}

async fn refused(api: &Api, uri: &str, token: &str, cursor: &str) {
    let sign = if uri.contains('?') { '&' } else { '?' };
    let answer = api.get(&format!("{uri}{sign}limit=1&cursor={cursor}"), token).await;
    assert_eq!(answer.refusal(), (400, "parameter_invalid".to_owned()), "{uri} {cursor}: {answer:?}");
    assert!(
        answer.json()["detail"].as_str().unwrap().starts_with("cursor is not the next_cursor"),
        "{uri}: {answer:?}"
    );
}

async fn first_cursor(api: &Api, list: &List, token: &str) -> String {
    let page = api.get(&list.uri("acme", list.query, "limit=1"), token).await;
    assert_eq!(page.status, 200, "{}: {page:?}", list.operation);
    let next = page.json()["next_cursor"].as_str().map(str::to_owned);
    next.unwrap_or_else(|| panic!("{} is too short: {page:?}", list.operation))
}

/// Pages of one and of many items are the same list, also where the tenant is named as a parameter from the second page on.
async fn every_item_comes_once(api: &Api, list: &List, token: &str) {
    let whole = api.get(&list.uri("acme", list.query, "limit=1000"), token).await.json();
    let by_parameter = List { path: list.path.split("/{t}").next().unwrap(), ..*list };
    let mut items = Vec::new();
    let mut uri = list.uri("acme", list.query, "limit=1");
    loop {
        let page = api.get(&uri, token).await.json();
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        let more = format!("limit={}&cursor={next}", 1 + items.len() % 2);
        uri = if list.path.contains("/{t}") {
            by_parameter.uri("acme", list.query, &format!("{more}&tenant_id=acme"))
        } else {
            list.uri("acme", list.query, &more)
        };
    }
    assert_eq!(json!(items), whole["items"], "{}", list.operation);
    assert!(items.len() >= 2 && whole["next_cursor"].is_null(), "{}", list.operation);
}

/// A tenant of which every list has more than one item.
async fn a_busy_year(api: &Api, tenant: &str) {
    let admin = token("ops", &["admin"]);
    let put = async |path: String, body: Value| {
        let answer = api.put(&format!("/billing/{path}"), &admin, &body).await;
        assert!(answer.status < 300, "{path}: {answer:?}");
    };
    for hour in 10..13 {
        api.used(tenant, "/a", "1", &format!("2026-03-10T{hour}:10:00Z")).await;
    }
    for cents in 1..4 {
        let body = json!({"kind": "amount", "tenant_id": tenant, "cents": cents, "ts": "2026-03-10T10:20:00Z", "reason": "a fee"});
        put(format!("corrections/{}", Uuid::now_v7()), body).await;
        let body = json!({"tenant_id": tenant, "pricing": {"model": "per_unit", "cents_per_unit": "3"}, "reason": "r",
            "effective_from": format!("2100-01-0{cents}T00:00:00Z")});
        put(format!("rate-cards/{}", Uuid::now_v7()), body).await;
    }
    assert_eq!(api.report_usage(&admin, json!({"tenant_id": tenant}).to_string()).await.status, 202);
    for number in 1..3 {
        put(format!("periods/{tenant}/{number}"), json!({"reason": "the month is over"})).await;
    }
    for hour in 15..18 {
        api.used(tenant, "/a", "1", &format!("2026-03-10T{hour}:10:00Z")).await;
    }
}

/// A month that is named stays the same one; the range of a question that names none moves on with the clock, of the tenant's zone,
/// and a page of another range is no page of the same list.
async fn a_cursor_of_a_month_goes_on_when_the_month_is_over(mut api: Api) {
    for tenant in ["acme", "globex"] {
        a_busy_year(&api, tenant).await;
    }
    let admin = token("ops", &["admin"]);
    let of_a_month = ["usageEvents", "corrections", "tenants", "stripePushes"];
    let lists: Vec<&List> = LISTS.iter().filter(|list| of_a_month.contains(&list.operation)).collect();
    for (zone, before, after) in [
        ("UTC", "2026-03-31T23:59:59Z", "2026-04-01T00:00:00Z"),
        ("Europe/Berlin", "2026-03-31T21:59:59Z", "2026-03-31T22:00:00Z"),
        ("Pacific/Auckland", "2026-03-31T10:59:59Z", "2026-03-31T11:00:00Z"),
    ] {
        for list in &lists {
            let (named, unnamed) = (format!("month=2026-03&time_zone={zone}"), format!("time_zone={zone}"));
            api.turn(before);
            let whole = api.get(&list.uri("acme", &named, "limit=1000"), &admin).await.json();
            let first = api.get(&list.uri("acme", &named, "limit=1"), &admin).await.json();
            let of_now = api.get(&list.uri("acme", &unnamed, "limit=1"), &admin).await.json();
            assert_eq!(of_now["items"], first["items"], "{} {zone}", list.operation);
            let (next, of_now) = (first["next_cursor"].as_str().unwrap(), of_now["next_cursor"].as_str().unwrap());
            api.turn(after);
            let rest = api.get(&list.uri("acme", &named, &format!("limit=1000&cursor={next}")), &admin).await.json();
            let items =
                [first["items"].as_array().unwrap().clone(), rest["items"].as_array().unwrap().clone()].concat();
            assert_eq!(json!(items), whole["items"], "{} {zone}", list.operation);
            refused(&api, &list.uri("acme", &unnamed, ""), &admin, of_now).await;
        }
    }
}

/// Two o'clock comes twice on that night, and what was used in both hours comes once.
async fn a_cursor_goes_on_in_the_hour_that_a_clock_has_twice(mut api: Api) {
    let times = ["00:30:00", "00:59:59.999999", "01:00:00", "01:30:00", "02:00:00"];
    for time in times {
        api.used("acme", "/a", "1", &format!("2026-10-25T{time}Z")).await;
    }
    let admin = token("ops", &["admin"]);
    for range in ["month=2026-10", "start_date=2026-10-25&end_date=2026-10-26", "start_date=2026-10-25"] {
        for order in ["asc", "desc"] {
            let uri = format!("/billing/usage-events/acme?{range}&time_zone=Europe/Berlin&order={order}&limit=1");
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            for now in ["00:59:00", "00:59:59", "01:00:00", "01:59:59", "02:00:00"] {
                api.turn(&format!("2026-10-25T{now}Z"));
                let page = api.get(&format!("{uri}{cursor}"), &admin).await;
                assert_eq!(page.status, 200, "{uri}: {page:?}");
                let page = page.json();
                seen.push(page["items"][0]["ts"].as_str().unwrap().to_owned());
                cursor = page["next_cursor"].as_str().map_or(String::new(), |next| format!("&cursor={next}"));
            }
            assert_eq!(cursor, "", "{uri}");
            let sorted: BTreeSet<&String> = seen.iter().collect();
            let mut sorted: Vec<&String> = sorted.into_iter().collect();
            if order == "desc" {
                sorted.reverse();
            }
            assert!(sorted.len() == times.len() && seen.iter().eq(sorted), "{uri}: {seen:?}");
        }
    }
}

/// A cursor that nobody gave holds nothing that a database would choke on.
#[tokio::test]
async fn made_up_keys_are_no_error_of_the_server() {
    let api = Api::on(Kind::Postgres).await;
    let admin = token("ops", &["admin"]);
    for list in &LISTS {
        for keys in ["AA", "AAAA", "MjAyNi0wMy0wMVQwMDowMDowMC4wMDAwMDBaCgAA", "Cg", "__8"] {
            refused(&api, &list.uri("acme", list.query, ""), &admin, keys).await;
        }
    }
}
