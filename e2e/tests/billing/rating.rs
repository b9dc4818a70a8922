//! Rate cards: made once and never for the past, shown to whom they concern, tried out before they are made.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, on_both, token};

on_both!(
    a_card_is_made_once_and_by_an_admin,
    a_card_is_never_for_the_past,
    usage_is_priced_by_the_card_of_its_time,
    a_tenant_sees_the_cards_that_can_price_its_usage,
    a_preview_says_what_a_card_would_change,
    what_is_wrong_with_a_card_is_named,
    a_card_that_is_gone_is_named_and_nothing_is_billed_without_it,
);

fn admin() -> String {
    token("ops", &["admin"])
}

fn per_unit(rate: &str) -> Value {
    json!({"model": "per_unit", "cents_per_unit": rate})
}

fn card(tenant: &str, pricing: &Value, from: &str) -> Value {
    json!({"tenant_id": tenant, "pricing": pricing, "effective_from": from, "reason": "a contract"})
}

async fn add(api: &Api, id: Uuid, body: &Value) -> (u16, Value) {
    let answer = api.put(&format!("/billing/rate-cards/{id}"), &admin(), body).await;
    (answer.status, answer.json())
}

async fn a_card_is_made_once_and_by_an_admin(api: Api) {
    let id = Uuid::now_v7();
    let body = card("acme", &per_unit("0.4"), "2100-01-01T00:00:00Z");
    let path = format!("/billing/rate-cards/{id}");
    for roles in [&[][..], &["billing:read"], &["billing:write"]] {
        let refused = api.put(&path, &token("acme", roles), &body).await.refusal();
        assert_eq!(refused, (403, "role_missing".to_owned()), "{roles:?}");
    }
    let made = api.put(&path, &admin(), &body).await;
    let start = format!(
        "{{\"version\":2,\"id\":\"{id}\",\"tenant_id\":\"acme\",\"route\":null,\"action\":null,\"pricing\":{{\"cents_per_unit\":\"0.4\",\
         \"model\":\"per_unit\"}},\"effective_from\":\"2100-01-01T00:00:00.000000Z\",\"origin\":\"api\",\"actor\":\"ada\",\
         \"reason\":\"a contract\",\"created_at\":\"2"
    );
    assert!(made.status == 201 && made.text.starts_with(&start), "{} {}", made.status, made.text);
    assert_eq!(add(&api, id, &body).await, (200, made.json()), "the same call again");
    let other = card("acme", &per_unit("0.5"), "2100-01-01T00:00:00Z");
    let (status, problem) = add(&api, id, &other).await;
    assert_eq!((status, &problem["code"]), (409, &json!("already_exists")));
    // Eight at once make one.
    let (id, api) = (Uuid::now_v7(), &api);
    let calls = (0..8).map(|_| async { add(api, id, &other).await.0 });
    let mut made = futures_util::future::join_all(calls).await;
    made.sort_unstable();
    assert_eq!(made, [[200; 7].as_slice(), &[201]].concat());
    let audit = api.get("/billing/audit?start_date=2026-01-01&end_date=2027-01-01", &admin()).await.json();
    let actions: Vec<&Value> = audit["items"].as_array().unwrap().iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["rate_card", "rate_card"], "{audit}");
}

async fn a_card_is_never_for_the_past(api: Api) {
    let refuse = async |from: &str| {
        let (status, problem) = add(&api, Uuid::now_v7(), &card("acme", &per_unit("1"), from)).await;
        (status, problem["code"].as_str().unwrap().to_owned(), problem["detail"].as_str().unwrap().to_owned())
    };
    let (status, code, detail) = refuse("2026-03-01T00:00:00Z").await;
    assert_eq!((status, code.as_str()), (400, "body_invalid"));
    assert!(detail.starts_with("effective_from must lie at least 60 s ahead: 2"), "{detail}");
    // Somebody's clock is ahead: what is recorded has its price.
    api.used("other", "/a", "1", "2100-01-01T10:30:00Z").await;
    for from in ["2090-01-01T00:00:00Z", "2100-01-01T10:00:00Z", "2100-01-01T10:59:59Z"] {
        let (status, code, detail) = refuse(from).await;
        assert_eq!((status, code.as_str()), (409, "usage_exists"), "{from}");
        assert!(detail.ends_with("the earliest effective_from is 2100-01-01T11:00:00.000000Z"), "{detail}");
    }
    let (status, made) = add(&api, Uuid::now_v7(), &card("acme", &per_unit("1"), "2100-01-01T11:00:00Z")).await;
    assert_eq!(status, 201, "{made}");
}

async fn usage_is_priced_by_the_card_of_its_time(api: Api) {
    // A worker has the cards of before.
    api.used("acme", "/a", "4", "2026-03-03T10:00:00Z").await;
    let ladder = json!({"model": "graduated", "tiers": [
        {"up_to": "3", "cents_per_unit": "0"}, {"up_to": null, "cents_per_unit": "10"},
    ]});
    assert_eq!(add(&api, Uuid::now_v7(), &card("acme", &ladder, "2100-01-01T00:00:00Z")).await.0, 201);
    assert_eq!(
        add(&api, Uuid::now_v7(), &card("acme", &json!({"model": "inherit"}), "2100-02-01T00:00:00Z")).await.0,
        201
    );
    let mut default = card("", &per_unit("30"), "2100-02-01T00:00:00Z");
    default["tenant_id"] = Value::Null;
    assert_eq!(add(&api, Uuid::now_v7(), &default).await.0, 201);
    for (route, time) in
        [("/a", "2100-01-10T00:00:00Z"), ("/b", "2100-01-20T00:00:00Z"), ("/a", "2100-02-10T00:00:00Z")]
    {
        api.used("acme", route, "4", time).await;
        api.used("other", route, "4", time).await;
    }
    let cents = async |tenant: &str, month: &str| {
        let path = format!("/billing/usage-report/{tenant}?month={month}");
        let report = api.get(&path, &token(tenant, &[])).await.json();
        let routes = report["route_breakdown"].as_array().unwrap().iter();
        let sum: i64 = routes.map(|route| route["cost_cents"].as_i64().unwrap()).sum();
        assert_eq!(report["total_cost_cents"], sum, "{report}");
        sum
    };
    // Eight units up the ladder, once for both routes; then the default again, which is another one by then.
    assert_eq!(
        (cents("acme", "2026-03").await, cents("acme", "2100-01").await, cents("acme", "2100-02").await),
        (100, 50, 120)
    );
    assert_eq!((cents("other", "2100-01").await, cents("other", "2100-02").await), (200, 120));
    // What the setting says does not undo it.
    let said = api.ledger.apply_rate(Some("25".parse().unwrap()), goldleaves_ledger::Leap::Refused).await.unwrap();
    assert!(said.to_string().starts_with("price unchanged: 25 cents per unit"), "{said}");
}

async fn a_tenant_sees_the_cards_that_can_price_its_usage(api: Api) {
    for (tenant, from) in [("acme", "2100-01-01"), ("other", "2100-01-01"), ("acme", "2100-03-01")] {
        let body = card(tenant, &per_unit("7"), &format!("{from}T00:00:00Z"));
        assert_eq!(add(&api, Uuid::now_v7(), &body).await.0, 201);
    }
    let versions = async |query: &str, token: &str| {
        let page = api.get(&format!("/billing/rate-cards?{query}"), token).await.json();
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{page}"));
        items.iter().map(|card| card["version"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let acme = token("acme", &[]);
    assert_eq!(versions("tenant_id=acme", &acme).await, [1, 2, 4]);
    assert_eq!(versions("tenant_id=acme&at=2100-02-01", &acme).await, [1, 2]);
    assert_eq!(versions("tenant_id=acme&at=2100-03-01T00:00:00Z", &acme).await, [1, 4]);
    assert_eq!(versions("", &token("ops", &["billing:read"])).await, [1, 2, 3, 4]);
    assert_eq!(versions("at=2026-06-01", &admin()).await, [1]);
    for (query, refusal) in [
        ("tenant_id=other", (403, "tenant_forbidden")),
        ("", (403, "role_missing")),
        ("tenant=acme", (400, "parameter_invalid")),
        ("tenant_id=acme&at=soon", (400, "parameter_invalid")),
        ("tenant_id=acme&cursor=x", (400, "parameter_invalid")),
    ] {
        let refused = api.get(&format!("/billing/rate-cards?{query}"), &acme).await.refusal();
        assert_eq!(refused, (refusal.0, refusal.1.to_owned()), "{query}");
    }
    let first = api.get("/billing/rate-cards?limit=3", &admin()).await.json();
    let next = first["next_cursor"].as_str().unwrap();
    assert_eq!(versions(&format!("limit=3&cursor={next}"), &admin()).await, [4]);
}

async fn a_preview_says_what_a_card_would_change(api: Api) {
    for (tenant, route) in [("acme", "/a"), ("acme", "/b"), ("other", "/a"), ("third", "/b")] {
        api.used(tenant, route, "3", "2026-03-03T10:15:00Z").await;
    }
    let preview = async |body: Value, token: String| {
        let mut body = body;
        body["start_date"] = json!("2026-03-03T10:10:00Z");
        body["end_date"] = json!("2026-04-01");
        api.call("POST", "/billing/rate-cards/preview", &token, body.to_string()).await
    };
    let reader = || token("ops", &["billing:read"]);
    let answer = preview(json!({"tenant_id": "acme", "pricing": per_unit("10")}), reader()).await;
    let wanted = concat!(
        r#"{"tenants":[{"tenant_id":"acme","units":6,"cost_cents_now":150,"cost_cents_with":60}],"#,
        r#""total_units":12,"total_cost_cents_now":300,"total_cost_cents_with":210}"#
    );
    assert_eq!((answer.status, answer.text.as_str()), (200, wanted));
    let answer = preview(json!({"route": "/a", "pricing": per_unit("100")}), reader()).await.json();
    let named: Vec<&Value> = answer["tenants"].as_array().unwrap().iter().map(|one| &one["tenant_id"]).collect();
    assert_eq!(named, ["acme", "other"], "equal differences are in the order of the names");
    assert_eq!((&answer["total_cost_cents_now"], &answer["total_cost_cents_with"]), (&json!(300), &json!(750)));
    // A wider card changes nothing where a narrower one prices, and an inherit ends only a card of its own place.
    let nothing = preview(json!({"tenant_id": "acme", "pricing": {"model": "inherit"}}), reader()).await.json();
    assert_eq!((&nothing["tenants"], &nothing["total_cost_cents_with"]), (&json!([]), &json!(300)));
    let refused = preview(json!({"tenant_id": "acme", "pricing": per_unit("10")}), token("acme", &[])).await.refusal();
    assert_eq!(refused, (403, "role_missing".to_owned()));
    assert_eq!(api.ledger.rate_cards().await.unwrap().len(), 1, "a preview makes nothing");
}

async fn what_is_wrong_with_a_card_is_named(api: Api) {
    let good = card("acme", &per_unit("1"), "2100-01-01T00:00:00Z");
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, words) in [
        (with("tenant_id", json!(7)), "tenant_id must be a string"),
        (with("tenant_id", json!("a\u{0}")), "tenant_id is wrong"),
        (with("route", json!("no-slash")), "route is wrong"),
        (with("action", json!("a b")), "action is wrong"),
        (with("action", json!("x".repeat(256))), "action is wrong"),
        (with("pricing", Value::Null), "pricing is missing"),
        (with("pricing", json!({"model": "flat"})), "pricing.model is \"flat\""),
        (with("pricing", json!({"model": "per_unit", "cents_per_unit": 1})), "pricing.cents_per_unit must be a string"),
        (with("effective_from", json!("soon")), "effective_from is neither a date"),
        (with("effective_from", Value::Null), "effective_from is missing"),
        (with("reason", json!("")), "reason must have 1 to 500 characters"),
        (with("more", json!(1)), "\"more\" is unknown here; known members: tenant_id, route, action, pricing"),
        (
            json!({"pricing": {"model": "inherit"}, "effective_from": "2100-01-01T00:00:00Z", "reason": "r"}),
            "pricing inherit ends the card of a tenant, a route or an action",
        ),
    ] {
        let (status, problem) = add(&api, Uuid::now_v7(), &body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("body_invalid")), "{body}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{body}: {detail}, not {words}");
    }
    let refused = api.put("/billing/rate-cards/7", &admin(), &good).await.refusal();
    assert_eq!(refused, (400, "parameter_invalid".to_owned()));
    assert_eq!(api.ledger.rate_cards().await.unwrap().len(), 1, "nothing was made");
}

async fn a_card_that_is_gone_is_named_and_nothing_is_billed_without_it(api: Api) {
    let body = json!({"reason": "the month is over"});
    let close = async |path: &str| {
        let answer = api.put(&format!("/billing/periods/{path}"), &token("ops", &["billing:write"]), &body).await;
        (answer.status, answer.json())
    };
    let before = api.used("acme", "/a", "2", "2026-03-03T10:00:00Z").await;
    let event = api.used("acme", "/b", "3", "2026-03-20T10:00:00Z").await;
    api.used("zeta", "/a", "1", "2026-03-03T10:00:00Z").await;
    assert_eq!(close("acme/1").await.0, 201);
    let last = api.used("acme", "/b", "3", "2026-04-03T10:00:00Z").await;
    // The later card priced nothing yet: what happened is as if it had priced the last two, and then was lost.
    let bill = api.get("/billing/invoice/acme", &token("acme", &[])).await.json();
    assert_eq!(bill["total_cost_cents"], 75);
    for table in ["usage_events", "usage_rollups", "billing_lines"] {
        api.execute(&format!("UPDATE {table} SET rate_version = 7 WHERE tenant_id = 'acme' AND route = '/b'")).await;
    }
    let ops = token("ops", &["admin"]);
    let whole = "start_date=2026-01-01&end_date=2026-05-01";
    let paths = [
        format!("/billing/usage-summary/acme?{whole}"),
        format!("/billing/usage-report/acme?{whole}"),
        format!("/billing/usage-report/acme?{whole}&group_by=route,day"),
        format!("/billing/usage-report/acme?{whole}&group_by=route&format=csv"),
        "/billing/invoice/acme".to_owned(),
        "/billing/invoice/acme?format=csv".to_owned(),
        "/billing/invoice/acme/1".to_owned(),
        "/billing/invoice/acme/1?format=csv".to_owned(),
        format!("/billing/usage-events/acme/{event}"),
        format!("/billing/usage-events/acme/{last}"),
        format!("/billing/tenants?{whole}"),
        format!("/billing/tenants?{whole}&sort=cost&format=csv"),
    ];
    let named = |what: &str, answer: &(u16, Value)| {
        let (status, problem) = answer;
        assert_eq!((*status, &problem["code"]), (500, &json!("rate_card_missing")), "{what}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("rate card version 7"), "{what}: {detail}");
        assert!(detail.contains("goldleaves rate-cards import"), "{what}: {detail}");
    };
    for path in &paths {
        let answer = api.get(path, &ops).await;
        assert_eq!(answer.kind, "application/problem+json", "{path}: {answer:?}");
        named(path, &(answer.status, answer.json()));
    }
    let preview = json!({"start_date": "2026-01-01", "end_date": "2026-05-01", "pricing": per_unit("10")}).to_string();
    let answer = api.call("POST", "/billing/rate-cards/preview", &ops, preview).await;
    named("preview", &(answer.status, answer.json()));
    named("close", &close("acme/2").await);
    // Neither an event nor a tenant beside it is kept from being billed.
    assert_eq!(api.get(&format!("/billing/usage-events/acme/{before}"), &ops).await.status, 200);
    let early = "/billing/usage-summary/acme?start_date=2026-03-01&end_date=2026-03-10";
    assert_eq!(api.get(early, &ops).await.json()["total_cost_cents"], 50);
    let closed = api.billing.close_due_periods(24).await.unwrap();
    let failed: Vec<String> = closed.failed.iter().map(|(tenant, error)| format!("{tenant}: {error}")).collect();
    assert!(failed.len() == 1 && failed[0].starts_with("acme: usage was priced by rate card version 7"), "{failed:?}");
    assert_eq!(api.get("/billing/invoice/zeta/1", &ops).await.json()["state"], "closed");
    // Once the card is there again, all is as it was.
    let mut cards = api.ledger.rate_cards().await.unwrap();
    cards.push(goldleaves_pricing::RateCard {
        version: 7,
        effective_from: "2026-03-20".parse().unwrap(),
        ..cards[0].clone()
    });
    api.ledger.import_rate_cards(&cards).await.unwrap();
    for path in &paths {
        assert_eq!(api.get(path, &ops).await.status, 200, "{path}");
    }
    assert_eq!(api.get("/billing/invoice/acme/1", &ops).await.json()["total_cost_cents"], 125);
}
