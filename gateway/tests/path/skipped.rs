//! Open routes of one's own, and what an answer without an event says about why.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::world::{Plan, World};

fn status(path: &str) -> Answer {
    let answer = Answer::ok("upstream");
    if path.ends_with("missing") { answer.status(404) } else { answer }
}

async fn world(plan: Plan) -> World {
    plan.start(Upstream::start(|received| status(received.target())).await.unwrap()).await
}

#[tokio::test]
async fn public_routes_need_no_token_and_leave_no_event() {
    let plan = Plan::with("PUBLIC_ROUTES", "/static,/api/v1/documents/public").and("BILLABLE_ROUTES", "/");
    let world = world(plan).await;
    for path in ["/static/app.js", "/static", "/api/v1/documents/public/7"] {
        let open = world.send_bare(Request::get(path)).await;
        assert_eq!((open.status, open.text().as_str()), (200, "upstream"), "{path}");
        let with_token = world.send(Request::get(path)).await;
        assert_eq!((with_token.status, with_token.header("x-usage-event-id")), (200, None), "{path}");
    }
    for path in ["/statics", "/static;x", "/api/v1/documents/publicly", "/"] {
        assert_eq!(world.send_bare(Request::get(path)).await.status, 401, "{path}");
        assert!(world.send(Request::get(path)).await.header("x-usage-event-id").is_some(), "{path}");
    }
    assert_eq!(world.metric("goldleaves_requests_total{class=\"open\",status=\"200\"}"), 6.0);
    assert_eq!(world.finish().await.len(), 4);
}

#[tokio::test]
async fn an_answer_without_an_event_says_why_in_development() {
    let world = world(Plan::with("ENVIRONMENT", "development")).await;
    for (path, why) in [
        ("/docs", Some("open_route")),
        ("/api/v1/other", Some("route_not_billable")),
        ("/api/v1/documents/missing", Some("status_not_billable")),
        ("/api/v1/documents", None),
        ("/billing/health", None),
        ("/health", None),
    ] {
        let answer = world.send(Request::get(path)).await;
        assert_eq!(answer.header("x-usage-skipped"), why, "{path}");
        assert!(why.is_none() || answer.header("x-usage-event-id").is_none(), "{path}");
    }
    assert_eq!(world.send_bare(Request::get("/api/v1/documents")).await.header("x-usage-skipped"), None);
}

#[tokio::test]
async fn requests_and_latency_are_shown_by_route_beside_the_limits() {
    let world = world(Plan::with("RATE_LIMIT_PER_SECOND", "1000").and("CONNECTIONS_MAX", "77")).await;
    for path in ["/api/v1/documents", "/api/v1/documents/7", "/api/v1/documents/missing", "/api/v1/other", "/docs"] {
        world.send(Request::get(path)).await;
    }
    for (series, value) in [
        ("route_requests_total{route=\"/api/v1/documents\",status=\"2xx\"}", 2.0),
        ("route_requests_total{route=\"/api/v1/documents\",status=\"4xx\"}", 1.0),
        ("route_requests_total{route=\"unbilled\",status=\"2xx\"}", 1.0),
        ("route_latency_seconds_count{route=\"/api/v1/documents\"}", 3.0),
        ("route_latency_seconds_count{route=\"open\"}", 1.0),
        ("connections_max ", 77.0),
        ("rate_limit_per_second ", 1000.0),
        ("spool_bytes_max ", f64::from(64 << 20)),
    ] {
        assert_eq!(world.metric(&format!("goldleaves_{series}")), value, "{series}");
    }
}

#[tokio::test]
async fn in_production_nothing_is_said() {
    let world = world(Plan::with("ENVIRONMENT", "production")).await;
    for path in ["/docs", "/api/v1/other", "/api/v1/documents/missing"] {
        assert_eq!(world.send(Request::get(path)).await.header("x-usage-skipped"), None, "{path}");
    }
}
