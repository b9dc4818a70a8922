//! The promises about starting and about who may do what, from outside.

use std::net::{SocketAddr, TcpListener};

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE, SECRET};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/documents";

on_both!(a_claim_of_a_wrong_type_grants_nothing, only_the_gateway_says_who_calls);

/// An address that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_means_that_calls_are_answered_and_addresses_known() {
    for _ in 0..3 {
        let (gateway, ops) = (free(), free());
        let settings = [("GATEWAY_ADDR", gateway.to_string()), ("OPS_ADDR", ops.to_string())];
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let deployment = Deployment::prepare(Kind::Embedded, &settings).unwrap();
        let mut program = deployment.launch().start().unwrap();
        wait_for("ready", PATIENCE, async || {
            let ready = Request::get("/health/ready").send(ops).await;
            Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
        })
        .await
        .unwrap();
        assert_eq!(Request::get("/health").send(gateway).await.unwrap().status, 200);
        // Who is told "ready" may call, and is told where within the time that a log line takes.
        assert_eq!(program.address("gateway listens on").await.unwrap(), gateway);
    }
}

async fn a_claim_of_a_wrong_type_grants_nothing(kind: Kind) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let claims = Claims::new("acme", "ann");
    for (name, value, others) in [
        ("is_admin", json!(true), 200),
        ("is_admin", json!("true"), 403),
        ("is_admin", json!(1), 403),
        ("roles", json!(["billing:read"]), 200),
        ("roles", json!(["Admin", "owner"]), 403),
        ("roles", json!("admin"), 403),
    ] {
        let token = claims.clone().with(name, value.clone()).sign(SECRET).unwrap();
        for (path, status) in
            [(PATH, 200), ("/billing/usage-summary/acme", 200), ("/billing/usage-report/other", others)]
        {
            let response = deployment.ask(&Request::get(path).token(&token)).await.unwrap();
            assert_eq!(response.status, status, "{name}={value} {path}: {}", response.text());
        }
        let foreign = Request::get(PATH).token(&token).header("X-Organization-ID", "other");
        assert_eq!(deployment.ask(&foreign).await.unwrap().status, 403, "roles give no tenants at the gateway");
    }
}

async fn only_the_gateway_says_who_calls(kind: Kind) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let token = Claims::new("acme", "ann").with("orgs", json!(["branch"])).sign(SECRET).unwrap();
    let claimed = [
        "X-User-ID",
        "X_User_ID",
        "x-user_id",
        "X_Tenant_ID",
        "X_Organization_ID",
        "X-Org-ID",
        "X-Roles",
        "X-Is-Admin",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X-Forwarded-Host",
        "X-Forwarded-User",
        "Forwarded",
        "X-Real-IP",
        "X_Request_ID",
        "X-Usage-Units",
        "X-Auth-Request-Email",
    ];
    for path in [PATH, "/auth/login"] {
        let mut request = Request::get(path).token(&token).header("X-Organization-ID", "branch");
        for name in claimed {
            request = request.header(name, "mallory");
        }
        assert_eq!(deployment.ask(&request).await.unwrap().status, 200);
    }
    let served = upstream.served();
    for received in &served {
        assert!(received.head.headers.iter().all(|(_, value)| value != "mallory"), "{received:?}");
        assert_eq!(received.head.header("x-forwarded-for"), Some("127.0.0.1"));
    }
    let said = |index: usize, name: &str| served[index].head.header(name).map(ToOwned::to_owned);
    assert_eq!((said(0, "x-user-id").as_deref(), said(0, "x-tenant-id").as_deref()), (Some("ann"), Some("branch")));
    assert_eq!((said(1, "x-user-id"), said(1, "x-tenant-id"), said(1, "x-organization-id")), (None, None, None));
    let summary: Value = deployment.summary_of("branch", 1).await.unwrap();
    assert_eq!(summary["total_units"], 1);
}
