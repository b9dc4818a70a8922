//! Sizes, rates and time-outs of what clients send.

use std::time::Duration;

use goldleaves_testkit::client::Request;
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::world::{BILLABLE, Plan, World, token, token_of};

async fn world(plan: Plan) -> World {
    plan.start(Upstream::start(|received| Answer::ok(received.body.bytes.clone())).await.unwrap()).await
}

#[tokio::test]
async fn a_tenants_requests_a_second_are_limited() {
    let world = world(Plan::with("RATE_LIMIT_PER_SECOND", "3")).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let response = world.send(Request::get(BILLABLE)).await;
        if response.status == 429 {
            assert_eq!(response.header("retry-after"), Some("1"));
            assert_eq!(response.header("content-type"), Some("application/problem+json"));
        }
        statuses.push(response.status);
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served < 6, "{statuses:?}");
    let other = token_of(&Claims::new("beta", "bob"));
    assert_eq!(world.send_bare(Request::get(BILLABLE).token(&other)).await.status, 200, "tenants do not share");
    assert_eq!(world.send_bare(Request::get("/auth/x")).await.status, 200);
    assert_eq!(world.finish().await.len(), served + 1, "429 is never billed");
}

/// Calls that wait for their head and answers that are still on their way count alike, on billed routes and others; what is
/// refused is not billed, other tenants do not feel it, and a call that ends gives its place back.
#[tokio::test]
async fn a_tenants_open_calls_are_limited() {
    let upstream = Upstream::start(|received| match received.target() {
        "/slow" => Answer::chunked(vec![b"begun".to_vec(); 1_000]).dripping(Duration::from_secs(60)),
        "/elsewhere" => Answer::silence(),
        _ => Answer::ok("served"),
    });
    let plan = Plan::with("CALLS_PER_TENANT_MAX", "2").and("BILLABLE_ROUTES", format!("{BILLABLE},/slow"));
    let world = plan.start(upstream.await.unwrap()).await;
    let mut stream = world.connect().await;
    stream.write(&Request::get("/slow").token(&token()).wire("a")).await.unwrap();
    assert!(stream.read_head().await.unwrap().start.contains(" 200"));
    let mut silent = world.connect().await;
    silent.write(&Request::get("/elsewhere").token(&token()).wire("a")).await.unwrap();
    while world.upstream().served().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for target in [BILLABLE, "/other"] {
        let refused = world.send(Request::get(target)).await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{target}");
        assert_eq!(refused.json().unwrap()["code"], "concurrency_limited");
    }
    let other = token_of(&Claims::new("beta", "bob"));
    assert_eq!(world.send_bare(Request::get(BILLABLE).token(&other)).await.status, 200, "tenants do not share");
    assert_eq!(world.send_bare(Request::get("/auth/x")).await.status, 200);
    drop(silent);
    while world.send(Request::get(BILLABLE)).await.status != 200 {}
    drop(stream);
    let mut ended = 0;
    while ended < 10 {
        ended = if world.send(Request::get(BILLABLE)).await.status == 200 { ended + 1 } else { 0 };
    }
    let events = world.finish().await;
    assert!(events.iter().all(|event| event.metadata.status_code == 200), "429 is never billed");
}

/// A caller without a tenant shares the places of an address; tenants that come from there have their own.
#[tokio::test]
async fn without_a_tenant_the_open_calls_of_an_address_are_limited() {
    let upstream = Upstream::start(|received| match received.target().ends_with("held") {
        true => Answer::silence(),
        false => Answer::ok("served"),
    });
    let world = Plan::with("CALLS_PER_TENANT_MAX", "2").start(upstream.await.unwrap()).await;
    let nobody = token_of(&Claims::new("x", "anna").without("tenant_id"));
    let mut held = Vec::new();
    for request in [Request::get("/auth/held"), Request::get("/held").token(&nobody)] {
        let mut connection = world.connect().await;
        connection.write(&request.wire("a")).await.unwrap();
        held.push(connection);
    }
    while world.upstream().served().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for request in [Request::get("/auth/x"), Request::get("/billing/health"), Request::get("/x").token(&nobody)] {
        let refused = world.send_bare(request).await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
        assert_eq!(refused.json().unwrap()["code"], "concurrency_limited");
    }
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    assert_eq!(world.send_bare(Request::get("/health")).await.status, 200);
    drop(held);
    while world.send_bare(Request::get("/auth/x")).await.status != 200 {}
    assert_eq!(world.finish().await.len(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_413() {
    let world = world(Plan::with("REQUEST_BODY_BYTES_MAX", "1KiB")).await;
    let allowed = world.send(Request::post(BILLABLE, vec![b'x'; 1_024])).await;
    assert_eq!((allowed.status, allowed.body.bytes.len()), (200, 1_024));
    for request in [
        Request::post(BILLABLE, vec![b'x'; 1_025]),
        Request::new("POST", BILLABLE).chunked(vec![vec![b'x'; 600], vec![b'x'; 600]]),
    ] {
        let mut connection = world.connect().await;
        let response = connection.ask(&request.token(&token())).await.unwrap();
        assert_eq!((response.status, response.header("content-type")), (413, Some("application/problem+json")));
    }
    assert_eq!(world.finish().await.len(), 1);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let world = world(Plan::with("HEADER_BYTES_MAX", "8KiB")).await;
    assert_eq!(world.send(Request::get(BILLABLE).header("X-Long", &"x".repeat(6_000))).await.status, 200);
    assert_eq!(world.send(Request::get(BILLABLE).header("X-Long", &"x".repeat(9_000))).await.status, 431);
    assert_eq!(world.finish().await.len(), 1);
}

#[tokio::test]
async fn header_fields_are_counted_both_ways_in_every_version() {
    let upstream = Upstream::start(|received| {
        let count: usize = received.target().rsplit('=').next().unwrap().parse().unwrap();
        (1..count).fold(Answer::ok("ok"), |answer, index| answer.header("Set-Cookie", &format!("c{index}=v")))
    });
    let world = Plan::default().start(upstream.await.unwrap()).await;
    let answered = |count: usize| Request::get(&format!("{BILLABLE}?n={count}")).token(&token());
    // The request's own are Host and Authorization (`:authority` in h2).
    let asked =
        |count: usize| (2..count).fold(answered(1), |request, index| request.header(&format!("x-h-{index}"), "v"));
    for (request, status, code) in [
        (answered(255), 200, None),
        (answered(257), 502, Some("upstream_answer_invalid")),
        (answered(1_000), 502, Some("upstream_answer_invalid")),
        (asked(255), 200, None),
        (asked(300), 431, Some("header_fields_too_many")),
    ] {
        let address = world.gateway.address();
        for response in [request.send(address).await.unwrap(), request.send_h2(address).await.unwrap()] {
            assert_eq!(response.status, status, "{code:?}");
            if let Some(code) = code {
                assert_eq!(response.json().unwrap()["code"], code);
            }
        }
    }
    assert_eq!(world.finish().await.len(), 4);
}

#[tokio::test]
async fn without_a_tenant_the_address_is_limited() {
    let world = world(Plan::with("RATE_LIMIT_PER_SECOND", "2")).await;
    let nobody = token_of(&Claims::new("x", "anna").without("tenant_id"));
    for request in [Request::get("/auth/x"), Request::get("/billing/health"), Request::get("/other").token(&nobody)] {
        let mut limited = false;
        for _ in 0..50 {
            limited |= world.send_bare(request.clone()).await.status == 429;
        }
        assert!(limited, "{}", request.target());
    }
    assert_eq!(world.send_bare(Request::get("/health")).await.status, 200);
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let world = world(Plan::with("FIRST_BYTE_TIMEOUT_SECS", "0.2").and("HEADERS_TIMEOUT_SECS", "0.2")).await;
    let mut silent = world.connect().await;
    let mut half = world.connect().await;
    half.write(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    for connection in [&mut silent, &mut half] {
        let ended = tokio::time::timeout(Duration::from_secs(10), connection.read("GET")).await.unwrap();
        assert!(ended.is_err() || ended.unwrap().status == 408);
    }
    assert_eq!(world.metric("goldleaves_connections_silent_total"), 1.0, "the other one began");
}

#[tokio::test]
async fn connections_are_limited_but_wait() {
    let world = world(Plan::with("CONNECTIONS_MAX", "2")).await;
    let (first, second) = (world.connect().await, world.connect().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = world.connect().await;
    third.write(&Request::get("/auth/x").wire("a")).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), third.read("GET")).await;
    assert!(waited.is_err(), "there is no room yet");
    drop((first, second));
    assert_eq!(third.read("GET").await.unwrap().status, 200);
    assert_eq!(world.metric("goldleaves_connections_at_limit_total"), 1.0);
    assert_eq!(world.metric("goldleaves_connections_accepted_total"), 3.0);
}

/// Calls that the upstream never answers hold all connections there may be.
#[tokio::test]
async fn upstream_connections_are_limited_and_no_call_waits_for_one() {
    let upstream = Upstream::start(|received| match received.target().ends_with("held") {
        true => Answer::silence(),
        false => Answer::ok("ok"),
    });
    let plan = Plan { cores: 2, ..Plan::with("UPSTREAM_CONNECTIONS_MAX", "3") };
    let world = plan.start(upstream.await.unwrap()).await;
    // Unused connections of either core make room.
    for _ in 0..20 {
        assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    }
    let mut held = Vec::new();
    while world.upstream().served().iter().filter(|received| received.target().ends_with("held")).count() < 3 {
        if held.len() < 3 {
            // Nobody alone gets them all.
            let token = token_of(&Claims::new(&format!("holder-{}", held.len()), "bob"));
            let mut connection = world.connect().await;
            connection.write(&Request::get("/other/held").token(&token).wire("a")).await.unwrap();
            held.push(connection);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for path in [BILLABLE, "/auth/x", "/billing/health"] {
        let busy = world.send(Request::get(path)).await;
        assert_eq!((busy.status, busy.json().unwrap()["code"].as_str()), (503, Some("upstream_busy")), "{path}");
        assert_eq!(busy.header("retry-after"), Some("1"));
    }
    assert_eq!(world.send(Request::get("/health")).await.status, 200);
    assert_eq!(world.metric("goldleaves_upstream_connections_max "), 3.0);
    drop(held);
    while world.send(Request::get(BILLABLE)).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.finish().await.len(), 21);
}
