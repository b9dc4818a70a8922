//! Reports, events, tenants and CSV: what is asked for comes back, adds up, and nothing else is understood.

use std::collections::BTreeSet;

use goldleaves_billing::{EventFilter, EventState, Order, Page};
use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_pricing::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, Event, on_both, token};

on_both!(
    groups_add_up_to_the_total,
    days_are_local_and_hours_are_not,
    events_come_by_pages_in_either_order,
    one_call_is_found_by_either_id,
    tenants_are_listed_by_cost,
    csv_is_what_json_is,
    rows_are_told_to_be_too_many_only_where_they_are,
    many_tenants_are_read_and_written_in_pieces,
    a_long_list_is_written_while_it_is_read,
);

fn sum(groups: &Value, member: &str) -> i64 {
    groups.as_array().unwrap().iter().map(|group| group[member].as_i64().unwrap()).sum()
}

/// A month of usage whose cents never divide evenly.
async fn month_of(api: &Api, tenant: &str) {
    let mut events = Vec::new();
    for at in 0..90_u32 {
        let mut event = Event::at(tenant, &format!("2026-03-{:02}T{:02}:{:02}:30Z", at % 28 + 1, at % 24, at % 60));
        event.route = format!("/r{}", at % 7);
        event.action = ["read", "create"][at as usize % 2].to_owned();
        event.user = format!("user{}", at % 3);
        event.units = format!("0.{:03}", at * 7 % 1000 + 1);
        events.push(event);
    }
    assert_eq!(api.record(&events).await.inserted, 90);
}

async fn groups_add_up_to_the_total(api: Api) {
    month_of(&api, "acme").await;
    month_of(&api, "other").await;
    let own = token("acme", &[]);
    for by in ["route", "action", "user", "day", "hour", "rate", "route,action", "day,user", "hour,route", "rate,day"] {
        let path = format!("/billing/usage-report/acme?month=2026-03&group_by={by}");
        let report = api.get(&path, &own).await;
        assert_eq!(report.status, 200, "{by}: {report:?}");
        let report = report.json();
        let groups = &report["groups"];
        assert_eq!(sum(groups, "events"), 90, "{by}");
        assert_eq!(report["total_events"], 90);
        assert_eq!(sum(groups, "cost_cents"), report["total_cost_cents"].as_i64().unwrap(), "{by}");
        assert_eq!(sum(&report["route_breakdown"], "cost_cents"), report["total_cost_cents"].as_i64().unwrap());
        for word in by.split(',') {
            assert!(groups.as_array().unwrap().iter().all(|group| !group[word].is_null()), "{by}: {word}");
        }
    }
    for (by, words) in
        [("", "group_by"), ("route,route", "twice"), ("route,day,hour", "one or two"), ("month", "group_by")]
    {
        let answer = api.get(&format!("/billing/usage-report/acme?group_by={by}"), &own).await;
        assert_eq!(answer.refusal(), (400, "parameter_invalid".to_owned()), "{by}");
        assert!(answer.text.contains(words), "{by}: {answer:?}");
    }
    let users = "/billing/usage-report/acme?start_date=2026-01-01&end_date=2026-03-01&group_by=user";
    assert_eq!(api.get(users, &own).await.status, 400, "users are told from the events, of a month at most");
}

async fn days_are_local_and_hours_are_not(api: Api) {
    // Midnight of Kolkata is half past an hour of UTC.
    for time in ["2026-03-01T18:29:59.999999Z", "2026-03-01T18:30:00Z", "2026-03-02T18:00:00Z", "2026-03-02T18:45:00Z"]
    {
        api.used("acme", "/a", "1", time).await;
    }
    let own = token("acme", &[]);
    let days = async |more: &str| {
        let path = format!("/billing/usage-report/acme?start_date=2026-03-01&end_date=2026-03-05&group_by=day{more}");
        let report = api.get(&path, &own).await.json();
        let groups = report["groups"].as_array().unwrap().iter();
        groups.map(|group| format!("{} {}", group["day"].as_str().unwrap(), group["events"])).collect::<Vec<_>>()
    };
    assert_eq!(days("").await, ["2026-03-01 2", "2026-03-02 2"]);
    assert_eq!(days("&time_zone=Asia/Kolkata").await, ["2026-03-01 1", "2026-03-02 2", "2026-03-03 1"]);
    let admin = token("ops", &["admin"]);
    let body = json!({"time_zone": "Asia/Kolkata", "reason": "their bills are of Kolkata"});
    assert_eq!(api.put("/billing/tenants/acme", &admin, &body).await.status, 201);
    assert_eq!(api.put("/billing/tenants/acme", &admin, &body).await.status, 200);
    assert_eq!(days("").await, ["2026-03-01 1", "2026-03-02 2", "2026-03-03 1"], "the tenant's zone is the default");
    let hours = api.get("/billing/usage-report/acme?month=2026-03&group_by=hour", &own).await.json();
    let hours: Vec<&str> =
        hours["groups"].as_array().unwrap().iter().map(|group| group["hour"].as_str().unwrap()).collect();
    assert_eq!(hours, ["2026-03-01T18:00:00.000000Z", "2026-03-02T18:00:00.000000Z"]);
    let wrong = json!({"time_zone": "Kolkata", "reason": "r"});
    let refused = api.put("/billing/tenants/acme", &admin, &wrong).await;
    assert!(refused.status == 400 && refused.text.contains("time_zone"), "{refused:?}");
}

async fn events_come_by_pages_in_either_order(api: Api) {
    month_of(&api, "acme").await;
    api.used("other", "/r0", "1", "2026-03-05T00:00:00Z").await;
    let own = token("acme", &[]);
    let all =
        async |query: &str| {
            let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let path = format!("/billing/usage-events/acme?month=2026-03&limit=17{query}{cursor}");
                let page = api.get(&path, &own).await;
                assert_eq!(page.status, 200, "{page:?}");
                let page = page.json();
                let items = page["items"].as_array().unwrap();
                ids.extend(items.iter().map(|item| {
                    (item["ts"].as_str().unwrap().to_owned(), item["event_id"].as_str().unwrap().to_owned())
                }));
                pages += 1;
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return (ids, pages),
                }
            }
        };
    let (ids, pages) = all("").await;
    assert_eq!((ids.len(), pages), (90, 6));
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    let (mut back, _) = all("&order=desc").await;
    back.reverse();
    assert_eq!(back, ids);
    assert_eq!(all("&route=/r1&action=create&user_id=user1").await.0.len(), 3);
    assert_eq!(all("&state=all").await.0, ids);
    assert!(all("&state=repeat").await.0.is_empty() && all("&state=void").await.0.is_empty());
    let item = api.get("/billing/usage-events/acme?month=2026-03&limit=1", &own).await.json();
    assert_eq!(item["items"][0]["metadata"]["method"], "GET", "{item}");
    assert_eq!(item["items"][0]["state"], "billed");
    for query in ["state=paid", "order=up", "limit=1001", "cursor=!", "user=ada"] {
        let answer = api.get(&format!("/billing/usage-events/acme?{query}"), &own).await;
        assert_eq!(answer.refusal(), (400, "parameter_invalid".to_owned()), "{query}");
    }
}

async fn one_call_is_found_by_either_id(api: Api) {
    let first = Event { request: Some("order-7".to_owned()), ..Event::at("acme", "2026-03-03T10:00:00Z") };
    let repeat = Event { request: Some("order-7".to_owned()), ..Event::at("acme", "2026-03-03T10:05:00Z") };
    let aborted = Event {
        outcome: "upstream_aborted",
        request: Some("order-8".to_owned()),
        ..Event::at("acme", "2026-03-03T11:00:00Z")
    };
    api.record(&[first.clone(), repeat.clone(), aborted.clone()]).await;
    let own = token("acme", &[]);
    let found = async |id: &str| api.get(&format!("/billing/usage-events/acme/{id}"), &own).await;
    let by_event = found(&first.id.to_string()).await.json();
    let one = &by_event["matches"][0];
    assert_eq!(
        (&one["state"], &one["request_id"], &one["cost_cents"]),
        (&json!("billed"), &json!("order-7"), &json!(25))
    );
    assert_eq!(one["rate"]["pricing"], json!({"model": "per_unit", "cents_per_unit": "25"}));
    assert_eq!(one["period"], json!({"number": 1, "state": "open", "closed_at": null}));
    assert_eq!(one["stripe"][0]["state"], "unmapped");
    let by_request = found("order-7").await.json();
    let states: Vec<&Value> = by_request["matches"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["billed", "repeat"]);
    assert_eq!(by_request["matches"][1]["duplicate_of"], first.id.to_string());
    let aside = found(&aborted.id.to_string()).await.json();
    assert_eq!(aside["matches"][0]["state"], "set_aside");
    assert_eq!(aside["matches"][0]["set_aside_reason"], "upstream_aborted");
    for (id, token) in [("order-9", &own), (&first.id.to_string()[..], &token("other", &["billing:read"]))] {
        let tenant = if id == "order-9" { "acme" } else { "other" };
        let nothing = api.get(&format!("/billing/usage-events/{tenant}/{id}"), token).await;
        assert_eq!(nothing.refusal(), (404, "no_such_event".to_owned()), "{id}");
    }
    assert_eq!(api.get(&format!("/billing/usage-events/acme/{}?by=request", repeat.id), &own).await.status, 404);
    // A tenant whose name no path can hold is named in the query.
    let slash = api.used("a/b", "/a", "1", "2026-03-03T10:00:00Z").await;
    let by_query = api.get(&format!("/billing/usage-events/{slash}?tenant_id=a%2Fb"), &token("a/b", &[])).await;
    assert_eq!(by_query.json()["matches"][0]["event_id"], slash.to_string());
    for path in ["usage-summary", "usage-report", "usage-events", "invoice", "late", "corrections", "periods"] {
        let answer = api.get(&format!("/billing/{path}?tenant_id=a%2Fb"), &token("a/b", &[])).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(api.get(&format!("/billing/{path}?tenant_id=a%2Fb"), &own).await.status, 403, "{path}");
    }
}

async fn tenants_are_listed_by_cost(api: Api) {
    for (tenant, units) in [("small", "1"), ("big", "100"), ("middle", "10.5"), ("twin", "10.5")] {
        api.used(tenant, "/a", units, "2026-03-10T10:15:00Z").await;
        api.used(tenant, "/a", units, "2026-02-10T10:15:00Z").await;
    }
    let reader = token("ops", &["billing:read"]);
    let names = async |query: &str| {
        let page = api.get(&format!("/billing/tenants?{query}"), &reader).await.json();
        let names = page["items"].as_array().unwrap().iter().map(|item| item["tenant_id"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page["next_cursor"].as_str().map(str::to_owned))
    };
    assert_eq!(names("").await.0, ["big", "middle", "twin", "small"]);
    assert_eq!(names("sort=tenant_id").await.0, ["big", "middle", "small", "twin"]);
    // The ends cut an hour.
    let cut = "start_date=2026-03-10T10:10:00Z&end_date=2026-03-10T10:16:00Z&sort=units&limit=2";
    let (first, next) = names(cut).await;
    assert_eq!(first, ["big", "middle"]);
    assert_eq!(
        names(&format!("{cut}&cursor={}", next.unwrap())).await,
        (vec!["twin".to_owned(), "small".to_owned()], None)
    );
    let page = api.get("/billing/tenants?limit=1", &reader).await.json();
    assert_eq!(page["items"], json!([{"tenant_id": "big", "events": 1, "units": 100, "cost_cents": 2500}]));
    assert_eq!(api.get("/billing/tenants", &token("big", &[])).await.refusal(), (403, "role_missing".to_owned()));
}

async fn csv_is_what_json_is(api: Api) {
    let mut formula = Event::at("acme", "2026-03-10T10:15:00Z");
    formula.user = "=HYPERLINK(\"http://x\")".to_owned();
    api.record(&[formula]).await;
    month_of(&api, "acme").await;
    let own = token("acme", &[]);
    let admin = token("acme", &["admin"]);
    let lines = |text: &str| text.matches("\r\n").count();
    for (path, rows, header) in [
        ("usage-events/acme?month=2026-03", 91, "event_id,request_id,client_request_id,ts,user_id,route,action,units,"),
        ("usage-report/acme?month=2026-03", 8, "route,events,units,cost_cents"),
        ("usage-report/acme?month=2026-03&group_by=route,action", 15, "route,action,events,units,cost_cents"),
        ("tenants?month=2026-03", 1, "tenant_id,events,units,cost_cents"),
        ("invoice/acme", 15, "kind,for_number,route,action,rate_version,pricing,events,units,cost_cents"),
        ("corrections/acme", 0, "id,tenant_id,kind,event_id,follows,ts,"),
    ] {
        let sign = if path.contains('?') { '&' } else { '?' };
        let answer = api.get(&format!("/billing/{path}{sign}format=csv"), &admin).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.kind.starts_with("text/csv; charset=utf-8"), "{answer:?}");
        assert!(answer.disposition.starts_with("attachment"), "{answer:?}");
        assert!(answer.text.starts_with(header), "{path}: {}", answer.text);
        assert_eq!(lines(&answer.text), rows + 1, "{path}: {}", answer.text);
    }
    let events = api.get("/billing/usage-events/acme?month=2026-03&format=csv", &own).await;
    assert!(events.text.contains(",\"'=HYPERLINK(\"\"http://x\"\")\","), "{}", events.text);
    let asked = |accept: &'static str| {
        let request = http::Request::get("/billing/usage-report/acme?month=2026-03").header("accept", accept);
        let request = request.header("authorization", format!("Bearer {own}"));
        api.ask(request.body(axum::body::Body::empty()).unwrap())
    };
    assert!(asked("text/csv").await.kind.starts_with("text/csv"));
    assert!(asked("text/csv, application/json").await.kind.starts_with("application/json"));
    assert_eq!(asked("image/png").await.refusal(), (406, "not_acceptable".to_owned()));
}

/// The quick look knows only how many events there are at most: of hours that a range cuts, of void ones, of one user's among others.
/// Every state, range and filter has just as many rows as it is then told to have.
async fn rows_are_told_to_be_too_many_only_where_they_are(api: Api) {
    let order = |time: &str| Event { request: Some("order".to_owned()), ..Event::at("acme", time) };
    let mut events: Vec<Event> = ["09:59:59", "10:10:00", "10:20:00", "10:50:00", "11:00:00", "11:59:59", "12:00:00"]
        .map(|time| Event::at("acme", &format!("2026-03-10T{time}Z")))
        .into();
    (events[1].user, events[2].route, events[4].action) = ("bob".into(), "/b".into(), "create".into());
    events.extend(["10:05:00", "10:06:00", "11:05:00"].map(|time| order(&format!("2026-03-10T{time}Z"))));
    events.push(Event { outcome: "unknown", ..Event::at("acme", "2026-03-10T10:30:00Z") });
    events.push(Event::at("sister", "2026-03-10T10:30:00Z"));
    api.record(&events).await;
    let void = json!({"kind": "void", "tenant_id": "acme", "event_id": events[3].id, "reason": "a test call"});
    let path = format!("/billing/corrections/{}", Uuid::now_v7());
    assert_eq!(api.put(&path, &token("ops", &["billing:write"]), &void).await.status, 201);
    let acme: TenantId = "acme".parse().unwrap();
    let mut seen = BTreeSet::new();
    for (from, to) in
        [("10:15:00", "11:30:00"), ("10:00:00", "12:00:00"), ("11:59:59", "12:00:01"), ("13:00:00", "14:00:00")]
    {
        let moment = |time: &str| format!("2026-03-10T{time}Z").parse().unwrap();
        let range = Period::new(moment(from), moment(to)).unwrap();
        for state in [EventState::Billed, EventState::Void, EventState::Repeat, EventState::SetAside, EventState::All] {
            for (route, action, user) in
                [(None, None, None), (Some("/b"), None, None), (None, Some("create"), None), (None, None, Some("bob"))]
            {
                let text = |value: Option<&str>| value.map(str::to_owned);
                let (route, action, user_id) = (text(route), text(action), text(user));
                let filter = EventFilter { range, state, route, action, user_id, order: Order::Ascending };
                let page = api.billing.usage_events(&acme, &filter, &Page { limit: 100, cursor: None }).await.unwrap();
                let rows = u32::try_from(page.items.len()).unwrap();
                for most in rows.saturating_sub(1)..=rows + 1 {
                    let more = api.billing.has_more_usage_events(&acme, &filter, most).await.unwrap();
                    assert_eq!(more, rows > most, "{rows} rows, {most}: {filter:?}");
                }
                seen.insert(rows);
            }
        }
    }
    assert!(seen.len() > 4, "{seen:?}");
}

/// The sum of a year's periods is its total, and the days of each add up to it, in zones of every kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_over_five_zones() {
    let api = Api::start().await;
    let start: Timestamp = "2025-12-31T00:00:00Z".parse().unwrap();
    let mut events = Vec::new();
    for at in 0..2_000_i64 {
        // Every 4 h 24 min 11 s: half hours, quarter hours and all nights are among them.
        let time = start.plus_micros(at * 15_851_000_000).unwrap();
        let mut event = Event::at("acme", &time.to_string());
        event.units = format!("0.{:03}", at % 997 + 1);
        events.push(event);
    }
    assert_eq!(api.record(&events).await.inserted, 2_000);
    let tenant = "acme".parse().unwrap();
    for name in ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Chatham"] {
        let zone: TimeZone = name.parse().unwrap();
        let (mut events, mut units) = (0, 0);
        let mut month = "2026-01".parse().unwrap();
        let year = zone.month(month).unwrap().start();
        let mut end = year;
        for _ in 0..12 {
            let range = zone.month(month).unwrap();
            assert_eq!(range.start(), end, "{name}");
            let by = [goldleaves_billing::Dimension::Day];
            let report = api.billing.report(&tenant, &range, &by, zone).await.unwrap();
            let days: i64 = report.groups.values().map(|group| group.used.events).sum();
            assert_eq!(days, report.summary.total_events, "{name} {month}");
            let cents: i128 = report.groups.values().map(|group| group.cents.0).sum();
            assert_eq!(cents, report.summary.total_cost_cents.0, "{name} {month}");
            events += report.summary.total_events;
            units += report.summary.total_units.0;
            (end, month) = (range.end(), month.next().unwrap());
        }
        let whole = api.billing.summary(&tenant, &Period::new(year, end).unwrap()).await.unwrap();
        assert_eq!((events, units), (whole.total_events, whole.total_units.0), "{name}: each event in one period");
    }
}

/// More tenants than are read at once, and than a piece of the answer holds: each is there once, in the order asked for.
async fn many_tenants_are_read_and_written_in_pieces(api: Api) {
    const TENANTS: usize = 11_000;
    let micro = if api.is_sqlite() { "units_micro_high, units_micro_low" } else { "units_micro" };
    let value = if api.is_sqlite() { "0, n * 1000000" } else { "n * 1000000" };
    api.execute(&format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {TENANTS}) \
         INSERT INTO usage_rollups (tenant_id, hour, route, action, rate_version, shard, events, {micro}) \
         SELECT 'tenant-' || n, {hour}, '/a', 'read', 1, 0, 1, {value} FROM numbers WHERE n % 1000 < 999",
        hour = if api.is_sqlite() { "'2026-03-10T10:00:00.000000Z'" } else { "'2026-03-10T10:00:00Z'::timestamptz" },
        value = value.replace("n * 1000000", "(n % 900) * 1000000"),
    ))
    .await;
    let reader = token("ops", &["billing:read"]);
    // Whoever has an amount alone is told as well, before, between and behind the others.
    for (at, name) in ["a", "tenant-5", "zz"].into_iter().enumerate() {
        let body = json!({"kind": "amount", "tenant_id": name, "cents": 7, "ts": "2026-03-10", "reason": "a fee"});
        let path = format!("/billing/corrections/{}", Uuid::from_u128(at as u128 + 1));
        assert_eq!(api.put(&path, &token("ops", &["billing:write"]), &body).await.status, 201);
    }
    let request = http::Request::get("/billing/tenants?month=2026-03&sort=tenant_id&format=csv")
        .header("authorization", format!("Bearer {reader}"))
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = tower::ServiceExt::oneshot(api.service.clone(), request).await.unwrap();
    let (mut body, mut pieces, mut text) = (answer.into_body(), 0, Vec::new());
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        pieces += 1;
        text.extend(frame.unwrap().into_data().unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    let names: Vec<&str> = text.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    let mut wanted: Vec<String> = (1..=TENANTS).filter(|n| n % 1_000 < 999).map(|n| format!("tenant-{n}")).collect();
    wanted.extend(["a".to_owned(), "zz".to_owned()]);
    wanted.sort_unstable();
    assert!(names == wanted, "{} of {}", names.len(), wanted.len());
    assert!(text.contains("\r\na,0,0,7\r\n") && text.contains("\r\ntenant-5,1,5,132\r\n"));
    assert!(pieces >= 6, "{pieces}");
    let first = api.get("/billing/tenants?month=2026-03&limit=1000&sort=tenant_id", &reader).await.json();
    let after = format!(
        "/billing/tenants?month=2026-03&limit=1000&sort=tenant_id&cursor={}",
        first["next_cursor"].as_str().unwrap()
    );
    assert_eq!(api.get(&after, &reader).await.json()["items"][0]["tenant_id"], wanted[1_000].as_str());

    let dearer = json!({"pricing": {"model": "per_unit", "cents_per_unit": "30"}, "start_date": "2026-03-01",
        "end_date": "2026-04-01"});
    let preview = api.call("POST", "/billing/rate-cards/preview", &reader, dearer.to_string()).await.json();
    let used = (1..=TENANTS).filter(|n| n % 1_000 < 999).map(|n| (n % 900, format!("tenant-{n}")));
    let mut used: Vec<(usize, String)> = used.collect();
    let total: usize = used.iter().map(|(units, _)| units).sum();
    for (member, wanted) in [("units", total), ("cost_cents_now", 25 * total), ("cost_cents_with", 30 * total)] {
        assert_eq!(preview[format!("total_{member}")], json!(wanted), "{member}");
    }
    used.sort_by_key(|(units, name)| (std::cmp::Reverse(*units), name.clone()));
    let named: Vec<&str> =
        preview["tenants"].as_array().unwrap().iter().map(|one| one["tenant_id"].as_str().unwrap()).collect();
    let largest: Vec<&str> = used.iter().take(100).map(|(_, name)| name.as_str()).collect();
    assert_eq!(named, largest, "the largest differences of all of them");
}

async fn a_long_list_is_written_while_it_is_read(api: Api) {
    const ROWS: u128 = 5_000;
    let rows: Vec<String> = (1..=ROWS)
        .map(|number| {
            let id = Uuid::from_u128(number);
            format!(
                "('{id}', 'acme', 'amount', '2026-03-10T10:00:00.000000Z', '', '', 0, 0, 0, 1, 'ann', 'one of many')"
            )
        })
        .collect();
    let columns = "id, tenant_id, kind, ts, route, action, rate_version, events, units_micro, cents, actor, reason";
    api.execute(&format!("INSERT INTO usage_corrections ({columns}) VALUES {}", rows.join(", "))).await;
    let request = http::Request::get("/billing/corrections/acme?month=2026-03&format=csv")
        .header("authorization", format!("Bearer {}", token("acme", &[])))
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = tower::ServiceExt::oneshot(api.service.clone(), request).await.unwrap();
    let (mut body, mut pieces) = (answer.into_body(), Vec::new());
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        pieces.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
    }
    let lines: Vec<usize> = pieces.iter().map(|piece| piece.matches("one of many").count()).collect();
    assert_eq!(lines, [2_000, 2_000, 1_000], "no piece is longer than what is read at once");
}
