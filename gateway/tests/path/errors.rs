//! Errors as programs read them: the code of each, and the challenge of a 401.

use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::{Value, json};

use crate::world::{BILLABLE, Plan, World, token_of};

fn document(response: &Response) -> Value {
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response:?}");
    serde_json::from_slice(&response.body.bytes).unwrap()
}

/// Status and code.
fn told(response: &Response) -> (u16, String) {
    (response.status, document(response)["code"].as_str().unwrap().to_owned())
}

fn expect(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_token_that_is_refused_is_challenged() {
    let world = World::answering(|_| Answer::ok("ok")).await;
    let missing = world.send_bare(Request::get(BILLABLE)).await;
    assert_eq!((told(&missing), missing.header("www-authenticate")), (expect(401, "token_missing"), Some("Bearer")));
    let expired = Claims::new("acme", "anna").with("exp", json!(1));
    let expired = world.send_bare(Request::get(BILLABLE).token(&token_of(&expired))).await;
    assert_eq!(told(&expired), expect(401, "token_expired"));
    let challenge = "Bearer error=\"invalid_token\", error_description=\"the token has expired\"";
    assert_eq!(expired.header("www-authenticate"), Some(challenge));
    let forged = world.send_bare(Request::get(BILLABLE).token("a.b.c")).await;
    assert_eq!(told(&forged), expect(401, "token_invalid"));
    assert!(forged.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""));
}

#[tokio::test]
async fn a_tenant_that_is_not_chosen_is_offered() {
    let world = World::answering(|_| Answer::ok("ok")).await;
    let several = token_of(&Claims::new("acme", "anna").without("tenant_id").with("orgs", json!(["acme", "beta"])));
    let none = token_of(&Claims::new("acme", "anna").without("tenant_id"));
    let unchosen = world.send_bare(Request::get(BILLABLE).token(&several)).await;
    assert_eq!(told(&unchosen), expect(403, "tenant_ambiguous"));
    assert_eq!(document(&unchosen)["choices"], json!(["acme", "beta"]));
    let twice = Request::get(BILLABLE).token(&several).header("X-Organization-ID", "acme");
    let twice = world.send_bare(twice.header("X-Tenant-ID", "beta")).await;
    assert_eq!(told(&twice), expect(400, "tenant_ambiguous"));
    assert_eq!(document(&twice)["choices"], json!(["acme", "beta"]));
    assert_eq!(told(&world.send_bare(Request::get(BILLABLE).token(&none)).await), expect(403, "tenant_missing"));
    let foreign = Request::get(BILLABLE).token(&several).header("X-Organization-ID", "gamma");
    assert_eq!(told(&world.send_bare(foreign).await), expect(403, "tenant_forbidden"));
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn whoever_is_away_is_named() {
    let world = Plan::with("BILLING_URL", "http://127.0.0.1:9").start_before("http://127.0.0.1:9").await;
    let upstream = world.send(Request::get(BILLABLE)).await;
    assert_eq!(told(&upstream), expect(502, "upstream_unreachable"));
    let billing = world.send(Request::get("/billing/health")).await;
    assert_eq!(told(&billing), expect(502, "billing_unreachable"));
    assert!(document(&billing)["detail"].as_str().unwrap().contains("billing-api"));
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn every_refusal_has_a_code() {
    let plan = Plan::with("REQUEST_BODY_BYTES_MAX", "1KiB").and("UPSTREAM_HEAD_TIMEOUT_SECS", "0.1");
    let world = plan.start(Upstream::start(|_| Answer::silence()).await.unwrap()).await;
    for (request, status, code) in [
        (Request::get("/a%2fb"), 400, "path_invalid"),
        (Request::get("/metrics"), 404, "not_found"),
        (Request::post("/health", vec![]), 405, "method_not_allowed"),
        (Request::post(BILLABLE, vec![b'x'; 1_025]), 413, "body_too_large"),
        (Request::get(BILLABLE).header("X-Long", &"x".repeat(33_000)), 431, "header_too_large"),
        (Request::get(BILLABLE), 504, "upstream_timeout"),
    ] {
        assert_eq!(told(&world.send(request).await), expect(status, code));
    }
}
