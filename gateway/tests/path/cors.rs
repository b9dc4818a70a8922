//! `ALLOWED_ORIGINS`.

use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::world::{BILLABLE, Plan, World};

const APP: &str = "https://app.example";

async fn world(origins: &str) -> World {
    let upstream = Upstream::start(|_| {
        let answer = Answer::ok("x").header("Access-Control-Allow-Origin", "https://upstream").header("Vary", "Accept");
        answer.header("Access-Control-Expose-Headers", "ETag, X-Total-Count")
    });
    Plan::with("ALLOWED_ORIGINS", origins).start(upstream.await.unwrap()).await
}

fn preflight(origin: &str) -> Request {
    let request = Request::new("OPTIONS", BILLABLE).header("Origin", origin);
    request.header("Access-Control-Request-Method", "PUT").header("Access-Control-Request-Headers", "authorization")
}

fn exposed(response: &Response) -> Vec<&str> {
    response.head.header_all("access-control-expose-headers").collect()
}

#[tokio::test]
async fn further_headers_can_be_exposed() {
    let upstream = Upstream::start(|_| Answer::ok("x")).await.unwrap();
    let plan =
        Plan::with("ALLOWED_ORIGINS", APP).and("CORS_EXPOSE_HEADERS", "X-One,x-two").and("RATE_LIMIT_PER_SECOND", 1);
    let world = plan.start(upstream).await;
    let limited = async || {
        loop {
            let response = world.send(Request::get(BILLABLE).header("Origin", APP)).await;
            if response.status == 429 {
                return response;
            }
        }
    };
    let limited = limited().await;
    let names = exposed(&limited).join(", ");
    assert!(names.contains("Retry-After") && names.ends_with(", X-One, x-two"), "{names}");
}

fn allow_origin(response: &Response) -> Vec<&str> {
    response.head.header_all("access-control-allow-origin").collect()
}

#[tokio::test]
async fn a_preflight_is_answered_here_and_never_billed() {
    let world = world("https://other.example, https://app.example").await;
    let response = world.send_bare(preflight(APP)).await;
    assert_eq!((response.status, allow_origin(&response)), (204, vec![APP]));
    assert!(response.header("access-control-allow-methods").unwrap().contains("PUT"));
    assert_eq!(response.header("access-control-allow-headers"), Some("authorization"));
    let refused = world.send_bare(preflight("https://evil.example")).await;
    assert_eq!((refused.status, allow_origin(&refused)), (204, vec![]));
    assert!(world.upstream().served().is_empty());
    assert_eq!(world.metric("goldleaves_requests_total{class=\"preflight\",status=\"204\"}"), 2.0);
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn answers_and_refusals_can_be_read_by_allowed_origins_only() {
    let world = world(APP).await;
    let served = world.send(Request::get(BILLABLE).header("Origin", APP)).await;
    assert_eq!(allow_origin(&served), [APP], "the gateway's word replaces the upstream's");
    let ours = "X-Request-ID, X-Usage-Event-ID, Retry-After, WWW-Authenticate, RateLimit, RateLimit-Policy";
    assert_eq!(exposed(&served), [ours, "ETag, X-Total-Count"], "beside what the upstream exposes");
    assert_eq!(served.head.header_all("vary").collect::<Vec<_>>(), ["Accept", "Origin"]);
    let refused = world.send_bare(Request::get(BILLABLE).header("Origin", APP)).await;
    assert_eq!((refused.status, allow_origin(&refused)), (401, vec![APP]));
    assert_eq!(exposed(&refused), [ours]);
    for request in [Request::get(BILLABLE), Request::get(BILLABLE).header("Origin", "https://evil.example")] {
        let response = world.send(request).await;
        assert_eq!((response.status, allow_origin(&response)), (200, vec![]));
    }
}

#[tokio::test]
async fn unset_means_no_cors_headers_of_ours() {
    let upstream = Upstream::start(|_| Answer::ok("x")).await.unwrap();
    let world = Plan::default().start(upstream).await;
    let response = world.send(Request::get(BILLABLE).header("Origin", APP)).await;
    assert_eq!((allow_origin(&response), response.header("vary")), (vec![], None));
    assert_eq!(world.send_bare(preflight(APP)).await.text(), "x", "CORS is the upstream's business, preflights too");
    assert_eq!(world.send_bare(Request::new("OPTIONS", BILLABLE)).await.status, 401, "no browser's question");
    let with_body = preflight(APP).chunked([b"x".to_vec()]);
    assert_eq!(world.send_bare(with_body).await.status, 401, "no browser's either");
    assert_eq!(world.metric("goldleaves_requests_total{class=\"preflight\",status=\"200\"}"), 1.0);
    assert_eq!(world.finish().await.len(), 1);
    let any = self::world("*").await;
    let response = any.send(Request::get(BILLABLE).header("Origin", APP)).await;
    assert_eq!((allow_origin(&response), response.header("access-control-allow-credentials")), (vec!["*"], None));
}
