//! Tests who calls, and for which tenant.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::Answer;
use serde_json::json;

use crate::world::{BILLABLE, World, token_of};

#[tokio::test]
async fn without_a_valid_token_nothing_passes() {
    let world = World::answering(|_| Answer::ok("")).await;
    let expired = token_of(&Claims::new("acme", "anna").with("exp", json!(1_000_000_000)));
    let nameless = token_of(&Claims::new("acme", "anna").without("sub"));
    let foreign = Claims::new("acme", "anna").sign("another secret, just as long as ours is").unwrap();
    let longest = token_of(&Claims::new(&"x".repeat(256), "anna"));
    for path in [BILLABLE, "/elsewhere"] {
        for token in ["", "x.y.z", &expired, &nameless, &foreign, &longest] {
            let response = world.send_bare(Request::get(path).token(token)).await;
            assert_eq!(response.status, 401, "{path} {token}");
            let challenge = response.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer error=\"invalid_"), "{path} {token}: {challenge}");
            let problem = response.json().unwrap();
            assert_eq!(problem["request_id"].as_str(), response.header("x-request-id"));
            assert!(token.is_empty() || !response.text().contains(token), "a token is never said back");
        }
        assert_eq!(world.send_bare(Request::get(path)).await.status, 401);
        let basic = Request::get(path).header("Authorization", "Basic YTpi");
        assert_eq!(world.send_bare(basic).await.status, 401);
    }
    assert!(world.upstream().served().is_empty());
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn a_billable_route_needs_a_tenant() {
    let world = World::answering(|_| Answer::ok("")).await;
    let none = token_of(&Claims::new("x", "anna").without("tenant_id").role("admin"));
    let response = world.send_bare(Request::get(BILLABLE).token(&none)).await;
    assert_eq!(response.status, 403, "roles give no tenants here");
    assert_eq!(world.metric("goldleaves_tenant_missing_total"), 1.0);
    assert_eq!(world.send_bare(Request::get("/elsewhere").token(&none)).await.status, 200);
    let seen = world.only_received();
    assert_eq!((seen.head.header("x-user-id"), seen.head.header("x-tenant-id")), (Some("anna"), None));
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn the_header_chooses_among_the_tokens_tenants() {
    let world = World::answering(|_| Answer::ok("")).await;
    let token = token_of(&Claims::new("acme", "anna").with("orgs", json!(["beta", "gamma"])));
    let ask = |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::get(BILLABLE), |request, (name, value)| request.header(name, value));
        world.send_bare(request.token(&token))
    };
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(Headers, u16, &str); 9] = [
        (&[], 200, "acme"),
        (&[("X-Organization-ID", "beta")], 200, "beta"),
        (&[("X-Tenant-ID", "gamma")], 200, "gamma"),
        (&[("X-Organization-ID", "beta"), ("x-tenant-id", "beta")], 200, "beta"),
        (&[("X_Organization_ID", "other")], 200, "acme"),
        (&[("X-Organization-ID", "other")], 403, ""),
        (&[("X-Organization-ID", "")], 403, ""),
        (&[("X-Organization-ID", "beta"), ("X-Tenant-ID", "acme")], 400, ""),
        (&[("X-Organization-ID", "beta"), ("X-Organization-ID", "beta")], 400, ""),
    ];
    let mut billed = Vec::new();
    for (headers, status, tenant) in cases {
        assert_eq!(ask(headers).await.status, status, "{headers:?}");
        if status == 200 {
            billed.push(tenant);
            let seen = world.upstream().served().pop().unwrap();
            assert_eq!(seen.head.header_all("x-tenant-id").collect::<Vec<_>>(), [tenant]);
            assert_eq!(seen.head.header_all("x-organization-id").collect::<Vec<_>>(), [tenant]);
        }
    }
    let events = world.finish().await;
    assert_eq!(events.iter().map(|event| event.tenant_id.as_str()).collect::<Vec<_>>(), billed);
}

#[tokio::test]
async fn the_tenant_claim_is_the_first_of_several() {
    let world = World::answering(|_| Answer::ok("")).await;
    let bare = Claims::new("t", "anna").without("tenant_id");
    let cases = [
        (bare.clone().with("organization_id", json!("o")).with("org_id", json!("i")), Some("o")),
        (bare.clone().with("org_id", json!("i")), Some("i")),
        (bare.clone().with("orgs", json!(["only"])), Some("only")),
        (bare.with("orgs", json!(["one", "two"])), None),
    ];
    let mut billed = Vec::new();
    for (claims, tenant) in cases {
        let status = world.send_bare(Request::get(BILLABLE).token(&token_of(&claims))).await.status;
        assert_eq!(status, if tenant.is_some() { 200 } else { 403 }, "{claims:?}");
        billed.extend(tenant);
    }
    let events = world.finish().await;
    assert_eq!(events.iter().map(|event| event.tenant_id.as_str()).collect::<Vec<_>>(), billed);
}
