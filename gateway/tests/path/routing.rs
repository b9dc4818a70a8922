//! One normalised path is matched, metered and forwarded; what it means decides everything else.

use std::cell::RefCell;

use goldleaves_domain::{BillableRoutes, NormalPath, RouteClass};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::Answer;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{BILLABLE, Plan, World, token};

#[tokio::test]
async fn health_is_the_gateways_and_metrics_are_not_public() {
    let world = World::answering(|_| Answer::ok("upstream")).await;
    let health = world.send_bare(Request::get("/health")).await;
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")));
    assert_eq!(health.json().unwrap()["status"], "healthy");
    assert!(health.header("x-request-id").is_some());
    assert_eq!(world.send_bare(Request::new("HEAD", "/health")).await.status, 200);
    let posted = world.send_bare(Request::post("/health", "x")).await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    for path in ["/metrics", "/metrics/x", "//metrics", "/%6detrics"] {
        let response = world.send(Request::get(path)).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (404, Some("application/problem+json")),
            "{path}"
        );
    }
    assert_eq!(world.metric("goldleaves_requests_total{class=\"local\",status=\"200\"}"), 2.0);
    assert_eq!(world.metric("goldleaves_requests_total{class=\"local\",status=\"404\"}"), 4.0);
    assert!(world.upstream().served().is_empty());
}

#[tokio::test]
async fn open_routes_need_no_token_and_billing_goes_to_billing() {
    let world = World::answering(|_| Answer::ok("upstream")).await;
    for path in ["/docs", "/docs/oauth2-redirect", "/openapi.json", "/auth/login", "/auth", "/health/deep"] {
        let open = world.send_bare(Request::get(path)).await;
        assert_eq!((open.status, open.text().as_str()), (200, "upstream"), "{path}");
        assert_eq!(open.header("x-usage-event-id"), None);
    }
    let billing =
        Request::get("/billing/usage-summary/acme?start_date=2026-01-01").header("Authorization", "Bearer  odd");
    let billing = world.send_bare(billing.header("X-Organization-ID", "other")).await;
    assert_eq!(billing.text(), "billing /billing/usage-summary/acme?start_date=2026-01-01");
    let seen = world.billing.served().remove(0);
    assert_eq!(seen.head.header("authorization"), Some("Bearer  odd"), "untouched");
    assert_eq!(seen.head.header("x-organization-id"), None, "tenant headers are stripped there too");
    for path in ["/", "/api/v1/other", "/Docs", "/authx", "/api/v1/documents-x"] {
        assert_eq!(world.send_bare(Request::get(path)).await.status, 401, "{path}");
        let unbilled = world.send(Request::get(path)).await;
        assert_eq!((unbilled.status, unbilled.header("x-usage-event-id")), (200, None), "{path}");
    }
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn open_routes_win_over_billable_ones() {
    let plan = Plan::with("BILLABLE_ROUTES", "/auth,/docs,/billing,/health,/x/*");
    let world = plan.start(upstream().await).await;
    for path in ["/auth/a", "/docs", "/billing/a", "/health"] {
        assert_eq!(world.send_bare(Request::get(path)).await.status, 200, "{path}");
    }
    assert_eq!(world.send(Request::get("/x/y")).await.status, 200);
    let routes: Vec<_> = world.finish().await.iter().map(|event| event.route.to_string()).collect();
    assert_eq!(routes, ["/x"], "a trailing /* is cut off");
}

#[tokio::test]
async fn the_longest_whole_segments_win() {
    let world = Plan::with("BILLABLE_ROUTES", "/api,/api/v1/documents").start(upstream().await).await;
    for path in ["/api/v1/documents", "/api/v1/documents/7?x=1", "/api/v1/documents-x", "/apix"] {
        world.send(Request::get(path)).await;
    }
    let routes: Vec<_> = world.finish().await.iter().map(|event| event.route.to_string()).collect();
    assert_eq!(routes, ["/api/v1/documents", "/api/v1/documents", "/api"]);
}

#[tokio::test]
async fn the_upstream_gets_the_path_that_was_matched() {
    let world = World::answering(|_| Answer::ok("")).await;
    let cases = [
        ("/api/v1/documents", "/api/v1/documents"),
        ("//api/./v1//documents/", "/api/v1/documents/"),
        ("/%61pi/v1/document%73/%c3%bc?a=%2f..&b", "/api/v1/documents/%C3%BC?a=%2f..&b"),
        ("/api/v1/documents?", "/api/v1/documents?"),
    ];
    for (sent, forwarded) in cases {
        let response = world.send(Request::get(sent)).await;
        assert!(response.header("x-usage-event-id").is_some(), "{sent}");
        assert_eq!(world.upstream().served().pop().unwrap().target(), forwarded, "{sent}");
    }
    assert_eq!(world.finish().await.len(), cases.len());
}

#[tokio::test]
async fn what_is_ambiguous_is_refused() {
    let world = World::answering(|_| Answer::ok("")).await;
    let hostile = [
        "/api/../admin",
        "/api/%2e%2e/x",
        "/api/..;x/y",
        "/api%2fv1",
        "/api%2Fv1/documents",
        "/api\\v1",
        "/api/%5cx",
        "/%00",
        "/a%0ab",
        "/a%zz",
        "/a%4",
        "/%ff",
        "/api/v1/documents/%2e%2e",
    ];
    for path in hostile {
        let response = world.send(Request::get(path)).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (400, Some("application/problem+json")),
            "{path}"
        );
    }
    assert!(world.upstream().served().is_empty());
    assert_eq!(world.metric("goldleaves_requests_total{class=\"refused\",status=\"400\"}"), hostile.len() as f64);
}

/// Over real HTTP: whatever the path, what was matched, what was metered and what the upstream received are one.
#[test]
fn matched_is_metered_is_received() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(World::answering(|_| Answer::ok("")));
    let routes = BillableRoutes::default();
    let expected = RefCell::new(Vec::new());
    let segment = prop_oneof![
        8 => proptest::sample::select(vec!["api", "v1", "documents", "%61pi", "document%73", "cases", "auth", "health"]),
        4 => proptest::sample::select(vec![
            "", ".", "..", "%2e", "%2E%2e", "%2f", "%5c", "%00", "%zz", "a;b", "..;", ".;x", "documents;v=1", "*", "~",
            "%7e", "%C3%BC", "%c3", "documents-x", "metrics", "docs", "\\", "|", "'", "%25%32%66", "%252f",
        ]),
        1 => "[!-~&&[^#?/]]{1,6}".prop_map(|text| &*text.leak()),
    ];
    let start = proptest::sample::select(vec![
        "",
        "/api/v1/documents",
        "//%61pi/./v1/cases",
        "/api/v1",
        "/api/v1/search;a",
        "/api/v1/ai/",
        "/auth",
        "/x",
    ]);
    let paths = (start, proptest::collection::vec(segment, 0..5))
        .prop_map(|(start, segments)| format!("{start}/{}", segments.join("/")));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    runner
        .run(&paths, |path| {
            let before = world.upstream().served().len();
            let response = runtime.block_on(world.send(Request::get(&path).header("X-Request-ID", "r")));
            let served = world.upstream().served();
            let normal = NormalPath::normalise(&path);
            let class = normal.as_ref().map(|normal| RouteClass::of(normal, &routes));
            match (class, &normal) {
                (Err(_), _) => prop_assert_eq!((response.status, served.len()), (400, before)),
                (Ok(RouteClass::Local(_) | RouteClass::Billing), _) => prop_assert_eq!(served.len(), before),
                (Ok(class), Ok(normal)) => {
                    // What hyper can't read as a target it refuses itself.
                    if response.status == 400 && response.header("content-type").is_none() {
                        prop_assert_eq!(served.len(), before);
                        return Ok(());
                    }
                    prop_assert_eq!((response.status, served.len()), (200, before + 1));
                    prop_assert_eq!(served.last().unwrap().target(), normal.as_str());
                    if let RouteClass::Billable(route) = class {
                        prop_assert!(response.header("x-usage-event-id").is_some());
                        expected.borrow_mut().push(route.to_string());
                    } else {
                        prop_assert!(response.header("x-usage-event-id").is_none());
                    }
                }
                (Ok(_), Err(_)) => unreachable!(),
            }
            Ok(())
        })
        .unwrap();
    let events = runtime.block_on(world.finish());
    let expected = expected.into_inner();
    assert!(expected.len() > 20, "the generator reaches billable routes: {}", expected.len());
    assert_eq!(events.iter().map(|event| event.route.to_string()).collect::<Vec<_>>(), expected);
}

async fn upstream() -> goldleaves_testkit::upstream::Upstream {
    goldleaves_testkit::upstream::Upstream::start(|_| Answer::ok("")).await.unwrap()
}

#[tokio::test]
async fn what_a_client_left_unencoded_reaches_the_upstream_encoded() {
    let world = World::answering(|_| Answer::ok("ok")).await;
    let sent = Request::get(&format!("{BILLABLE}?filter={{\"a\":[\"<ü>\"]}}")).token(&token()).wire("a");
    let mut connection = world.connect().await;
    connection.write(&sent).await.unwrap();
    assert_eq!(connection.read("GET").await.unwrap().status, 200);
    let target = format!("{BILLABLE}?filter={{%22a%22:[%22%3Cü%3E%22]}}");
    assert_eq!(world.only_received().target(), target);
    assert_eq!(world.finish().await.len(), 1);
}
