//! Tests that what the upstream is told of a request is the gateway's word alone.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::Answer;
use serde_json::json;

use crate::world::{BILLABLE, World, token_of};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn a_clients_own_identity_is_replaced() {
    let world = World::answering(|_| Answer::ok("")).await;
    let forged = [
        "X-User-ID",
        "x_user_id",
        "X-User-Roles",
        "X_Tenant_ID",
        "X-Org-ID",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X_Forwarded_For",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Usage-Units",
        "X-Usage-Action",
        "X-Usage-Event-ID",
        "X_Usage_Units",
        "X_Request_ID",
        "X.User.ID",
        "X~Forwarded~For",
        "X+Tenant+ID",
    ];
    let request = Request::get(BILLABLE).header("Host", "shop.example:8443").header("X-Request-ID", "r-1");
    let request = forged.iter().fold(request, |request, name| request.header(name, "forged"));
    world.send(request.header("X-Kept", "forged too").header("Cookie", "a=1")).await;
    let seen = world.only_received();
    let said = |name: &str| seen.head.header_all(name).map(str::to_owned).collect::<Vec<_>>().join("|");
    assert_eq!(said("x-request-id"), "r-1");
    assert_eq!(said("x-user-id"), "anna");
    assert_eq!(said("x-tenant-id"), "acme");
    assert_eq!(said("x-organization-id"), "acme");
    assert_eq!(said("x-forwarded-for"), "127.0.0.1");
    assert_eq!(said("x-forwarded-proto"), "http");
    assert_eq!(said("x-forwarded-host"), "shop.example:8443");
    assert_eq!(said("host"), "shop.example:8443", "preserved");
    assert_eq!((said("x-kept").as_str(), said("cookie").as_str()), ("forged too", "a=1"));
    let lies: Vec<_> = seen.head.headers.iter().filter(|(_, value)| value == "forged").collect();
    assert!(lies.is_empty(), "{lies:?}");
}

#[tokio::test]
async fn a_client_cannot_name_the_gateways_word_a_thing_of_its_connection() {
    let world = World::answering(|_| Answer::ok("")).await;
    let said = [
        "X-Request-ID",
        "X-User-ID",
        "X-Tenant-ID",
        "X-Organization-ID",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "traceparent",
        "Via",
    ];
    let upgrading = format!("Upgrade, {}", said.join(", "));
    for connection in [said.join(", "), upgrading] {
        let request = Request::get(BILLABLE).header("Upgrade", "websocket").header("Connection", &connection);
        world.send(request).await;
        let seen = world.upstream().served().pop().unwrap();
        for name in said {
            assert!(seen.head.header(name).is_some(), "{name} was lost to Connection: {connection}");
        }
    }
}

#[tokio::test]
async fn names_are_visible_ascii_to_the_upstream_and_themselves_in_the_event() {
    let world = World::answering(|_| Answer::ok("")).await;
    let claims = Claims::new("Müller & Söhne 100%", "an na");
    let request = Request::get(BILLABLE).token(&token_of(&claims));
    let chosen = request.clone().header("X-Organization-ID", "M%C3%BCller%20&%20S%C3%B6hne%20100%25");
    for request in [request, chosen] {
        assert_eq!(world.send_bare(request).await.status, 200);
    }
    for seen in world.upstream().served() {
        let told = ["x-tenant-id", "x-organization-id", "x-user-id"].map(|name| seen.head.header(name).unwrap());
        let tenant = "M%C3%BCller%20&%20S%C3%B6hne%20100%25";
        assert_eq!(told, [tenant, tenant, "an%20na"]);
    }
    for blank in [" acme", "acme ", "acme\u{a0}"] {
        for claims in [
            Claims::new(blank, "anna"),
            Claims::new("acme", blank),
            Claims::new("acme", "a").with("orgs", json!([blank])),
        ] {
            assert_eq!(
                world.send_bare(Request::get(BILLABLE).token(&token_of(&claims))).await.status,
                401,
                "{blank:?}"
            );
        }
    }
    let events = world.finish().await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.tenant_id.as_str() == "Müller & Söhne 100%"));
}

#[tokio::test]
async fn open_routes_are_told_nobody() {
    let world = World::answering(|_| Answer::ok("")).await;
    let request = Request::get("/auth/login").header("X-User-ID", "root").header("X-Tenant-ID", "other");
    assert_eq!(world.send(request.header("X-Organization-ID", "third")).await.status, 200, "never checked");
    let seen = world.only_received();
    for name in ["x-user-id", "x-tenant-id", "x-organization-id"] {
        assert_eq!(seen.head.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_trace_goes_on_or_starts() {
    let world = World::answering(|_| Answer::ok("")).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let request = Request::get(BILLABLE).header("traceparent", &parent).header("tracestate", "v=1");
    world.send(request).await;
    world.send(Request::get(BILLABLE).header("traceparent", "junk").header("tracestate", "v=1")).await;
    let served = world.upstream().served();
    let sent = |index: usize, name: &str| served[index].head.header(name).map(str::to_owned);
    let traces = [sent(0, "traceparent").unwrap(), sent(1, "traceparent").unwrap()];
    assert!(traces[0].starts_with(&format!("00-{TRACE}-")) && traces[0] != parent, "{traces:?}");
    assert!(traces[1].len() == 55 && !traces[1].contains(TRACE), "{traces:?}");
    assert_eq!((sent(0, "tracestate").as_deref(), sent(1, "tracestate")), (Some("v=1"), None));
    let events = world.finish().await;
    let recorded: Vec<_> = events.iter().map(|event| event.traceparent.clone().unwrap()).collect();
    assert_eq!(
        recorded, traces,
        "the event belongs to the same trace, and nothing is exported that could stand between"
    );
}
