//! `[[upstreams]]` and `[[routes]]`: which service a call goes to, what holds for it there, and what it costs.

use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::{BILLABLE, Plan, World};

/// An upstream that says its name and what it was asked for.
async fn named(name: &'static str) -> Upstream {
    Upstream::start(move |received| Answer::ok(format!("{name} {} {}", received.method(), received.target())))
        .await
        .unwrap()
}

/// A gateway before `default`, with these entries.
async fn world(upstreams: &Value, routes: &Value) -> World {
    Plan::with("UPSTREAMS", upstreams).and("ROUTES", routes).start(named("default").await).await
}

async fn said(world: &World, method: &str, path: &str) -> String {
    let response = world.send(Request::new(method, path)).await;
    format!("{} {}", response.status, response.text())
}

#[tokio::test]
async fn the_longest_path_and_then_its_methods_say_where_a_call_goes() {
    let (docs, posts) = (named("docs").await, named("posts").await);
    let upstreams = json!([
        {"name": "docs", "addresses": [docs.url()]},
        {"name": "posts", "addresses": [posts.url()]},
    ]);
    let routes = json!([
        {"path": "/api", "upstream": "docs"},
        {"path": "/api/v1/documents", "methods": ["POST"], "upstream": "posts"},
        {"path": "/api/v1/documents", "upstream": "docs", "prefix": "/v2/docs"},
        {"path": "/api/v1/only", "methods": ["GET"], "upstream": "posts"},
    ]);
    let world = world(&upstreams, &routes).await;
    for (method, path, answer) in [
        ("GET", "/other", "200 default GET /other"),
        ("GET", "/api/x?q=1", "200 docs GET /api/x?q=1"),
        ("POST", "/api/v1/documents/7", "200 posts POST /api/v1/documents/7"),
        ("GET", "/api/v1/documents/7?q=1", "200 docs GET /v2/docs/7?q=1"),
        ("GET", "/api/v1/documents", "200 docs GET /v2/docs"),
        ("GET", "/api/v1/documents;a=b/7", "200 docs GET /v2/docs/7"),
        ("GET", "/api/v1/only", "200 posts GET /api/v1/only"),
        ("PUT", "/api/v1/only", "200 docs PUT /api/v1/only"),
        ("GET", "/API/x", "200 default GET /API/x"),
    ] {
        assert_eq!(said(&world, method, path).await, answer);
    }
    let cut = docs.served().iter().filter_map(|seen| seen.head.header("x-forwarded-prefix").map(str::to_owned)).next();
    assert_eq!(cut.as_deref(), Some("/api/v1/documents"));
    // What is billed is what the client asked for.
    let events = world.finish().await;
    assert!(events.iter().all(|event| event.route.as_str() == BILLABLE) && events.len() == 4, "{events:?}");
}

#[tokio::test]
async fn where_nothing_leads_is_answered_before_anybody_is_asked_who_they_are() {
    let docs = named("docs").await;
    let settings = [
        ("UPSTREAMS", json!([{"name": "docs", "addresses": [docs.url()]}])),
        ("ROUTES", json!([{"path": "/api", "methods": ["GET", "POST"], "upstream": "docs"}])),
    ];
    let plan = settings.into_iter().fold(Plan::default(), |plan, (name, value)| plan.and(name, value));
    let world = plan.start_before("").await;
    let response = world.send_bare(Request::get("/other")).await;
    assert_eq!((response.status, response.json().unwrap()["code"].as_str()), (404, Some("no_route")));
    let response = world.send_bare(Request::new("PUT", "/api/x")).await;
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, POST, HEAD")));
    assert_eq!(world.send_bare(Request::get("/api/x")).await.status, 401);
    assert_eq!(said(&world, "GET", "/api/x").await, "200 docs GET /api/x");
    assert_eq!(said(&world, "HEAD", "/api/x").await, "200 ");
}

#[tokio::test]
async fn entries_open_bill_and_carve_out() {
    let routes = json!([
        {"path": "/pages", "access": "open"},
        {"path": "/reports", "methods": ["POST"], "billable": true, "units": "2.5"},
        {"path": "/api/v1/documents/drafts", "billable": false},
        {"path": "/api/v1/documents/moved"},
    ]);
    let world = world(&json!([]), &routes).await;
    assert_eq!(world.send_bare(Request::get("/pages/1")).await.status, 200);
    assert_eq!(
        world.send_bare(Request::get("/pages;x/1")).await.status,
        401,
        "open is what is written, nothing like it"
    );
    for (method, path, is_billed) in [
        ("GET", "/reports/1", false),
        ("POST", "/Reports/1", true),
        ("GET", "/api/v1/documents/drafts/1", false),
        ("GET", "/api/v1/documents/moved", true),
    ] {
        let response = world.send(Request::new(method, path)).await;
        assert_eq!(
            (response.status, response.header("x-usage-event-id").is_some()),
            (200, is_billed),
            "{method} {path}"
        );
    }
    let events = world.finish().await;
    let seen: Vec<_> = events.iter().map(|event| (event.route.as_str(), event.units.to_string())).collect();
    assert_eq!(seen, [("/reports", "2.5".to_owned()), (BILLABLE, "1".to_owned())]);
}

#[tokio::test]
async fn limits_are_those_of_the_entry() {
    let slow = Upstream::start(|_| Answer::ok("late").after(Duration::from_secs(30))).await.unwrap();
    let upstreams = json!([{"name": "slow", "addresses": [slow.url()], "requests_max": 1}]);
    let routes = json!([
        {"path": "/slow", "upstream": "slow", "head_timeout_secs": 0.3, "request_body_bytes_max": "10B"},
        {"path": "/large", "request_body_bytes_max": "2MiB"},
    ]);
    let plan = Plan::with("UPSTREAMS", upstreams).and("ROUTES", routes).and("REQUEST_BODY_BYTES_MAX", "1KiB");
    let world = plan.start(named("default").await).await;
    assert_eq!(world.send(Request::get("/slow")).await.status, 504);
    assert_eq!(world.send(Request::post("/slow", "x".repeat(11))).await.status, 413);
    assert_eq!(world.send(Request::post("/large", "x".repeat(2_000))).await.status, 200);
    assert_eq!(world.send(Request::post("/other", "x".repeat(2_000))).await.status, 413);
    let (one, other) = tokio::join!(world.send(Request::get("/slow")), world.send(Request::get("/slow")));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [503, 504], "requests_max");
}

#[tokio::test]
async fn a_call_whose_client_leaves_goes_on_where_its_entry_says_so() {
    let job = Upstream::start(|received| {
        let status = if received.target().ends_with("bad") { 500 } else { 200 };
        Answer::ok("done").status(status).header("X-Usage-Units", "7").after(Duration::from_millis(300))
    });
    let job = job.await.unwrap();
    let upstreams = json!([{"name": "jobs", "addresses": [job.url()]}]);
    let routes = json!([{"path": "/jobs", "upstream": "jobs", "billable": true, "client_abort": "finish"}]);
    let world = world(&upstreams, &routes).await;
    for path in ["/jobs/bad", "/jobs/good"] {
        let mut connection = world.connect().await;
        connection.write(&Request::get(path).token(&crate::world::token()).wire("gateway")).await.unwrap();
        while !job.served().iter().any(|received| received.target() == path) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(connection);
    }
    assert_eq!(world.outcomes().await, [(Outcome::ClientAborted, 200, "7".to_owned())]);
}

#[tokio::test]
async fn an_address_that_nobody_listens_at_costs_no_call() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let docs = named("docs").await;
    let upstreams = json!([
        {"name": "docs", "addresses": [nobody, docs.url()]},
        {"name": "gone", "addresses": [nobody, "unix:/nowhere/at.sock"]},
    ]);
    let routes = json!([{"path": "/api", "upstream": "docs"}, {"path": "/gone", "upstream": "gone"}]);
    let world = world(&upstreams, &routes).await;
    for _ in 0..20 {
        let response = world.send(Request::post(BILLABLE, "a body")).await;
        assert_eq!(response.status, 200);
    }
    assert_eq!(docs.served().len(), 20);
    assert_eq!(world.metric("goldleaves_upstream_ejections_total{upstream=\"docs\",reason=\"connect\"}"), 1.0);
    assert_eq!(world.metric("goldleaves_upstream_addresses{upstream=\"docs\",state=\"connect\"}"), 1.0);
    assert_eq!(world.metric("goldleaves_upstream_calls_total{upstream=\"docs\",result=\"answered\"}"), 20.0);
    let response = world.send(Request::get("/gone")).await;
    assert_eq!((response.status, response.json().unwrap()["code"].as_str()), (502, Some("no_upstream")));
    assert_eq!(world.finish().await.len(), 20);
}
