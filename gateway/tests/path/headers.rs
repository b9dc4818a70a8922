//! Request ids, problems, and headers that belong to one connection only.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::Answer;

use crate::world::{BILLABLE, World};

#[tokio::test]
async fn a_legal_request_id_is_kept_and_anything_else_replaced() {
    let world = World::answering(|_| Answer::ok("")).await;
    let longest = "x".repeat(128);
    for id in ["a", "A-z.0_9:x", longest.as_str()] {
        let response = world.send(Request::get(BILLABLE).header("X-Request-ID", id)).await;
        assert_eq!(response.head.header_all("x-request-id").collect::<Vec<_>>(), [id]);
    }
    let too_long = "x".repeat(129);
    for ids in [&[""][..], &["a b"], &["a~b"], &[too_long.as_str()], &["a", "a"], &["a,b"]] {
        let request = ids.iter().fold(Request::get(BILLABLE), |request, id| request.header("X-Request-ID", id));
        let response = world.send(request).await;
        let made = response.header("x-request-id").unwrap().to_owned();
        assert_eq!((response.status, made.len(), made.as_bytes()[14]), (200, 36, b'7'), "{ids:?} gave {made}");
        assert_eq!(world.upstream().request_ids().pop().unwrap(), made);
    }
    let events = world.finish().await;
    let chosen: Vec<_> = events.iter().map(|event| event.client_request_id.is_some()).collect();
    assert_eq!(chosen, [true, true, true, false, false, false, false, false, false]);
}

#[tokio::test]
async fn the_upstreams_request_id_and_event_id_are_not_passed_on() {
    let world = World::answering(|_| Answer::ok("").header("X-Request-ID", "u").header("X-Usage-Event-ID", "u")).await;
    let response = world.send(Request::get("/elsewhere").header("X-Request-ID", "mine")).await;
    assert_eq!(response.head.header_all("x-request-id").collect::<Vec<_>>(), ["mine"]);
    assert_eq!(response.header("x-usage-event-id"), None);
    let response = world.send(Request::get(BILLABLE)).await;
    let ids: Vec<_> = response.head.header_all("x-usage-event-id").map(str::to_owned).collect();
    let events = world.finish().await;
    assert_eq!(ids, [events[0].event_id.to_string()]);
}

#[tokio::test]
async fn every_error_is_a_problem_with_the_requests_id() {
    let world = World::answering(|_| Answer::ok("")).await;
    let requests = [
        (Request::get("/a/../b"), 400),
        (Request::get(BILLABLE), 401),
        (Request::get("/metrics"), 404),
        (Request::new("A-METHOD-LONGER-THAN-ANY-THAT-IS-KNOWN", BILLABLE), 501),
    ];
    for (request, status) in requests {
        let response = world.send_bare(request.header("X-Request-ID", "r-7")).await;
        assert_eq!((response.status, response.header("content-type")), (status, Some("application/problem+json")));
        let problem = response.json().unwrap();
        assert_eq!((problem["status"].as_u64(), problem["request_id"].as_str()), (Some(status.into()), Some("r-7")));
        assert_eq!(response.header("x-request-id"), Some("r-7"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    }
}

#[tokio::test]
async fn hop_by_hop_headers_stop_here_both_ways() {
    let world = World::answering(|_| {
        let answer = Answer::ok("x").header("Connection", "close, X-Hop").header("X-Hop", "1");
        answer.header("Keep-Alive", "timeout=5").header("Proxy-Authenticate", "Basic").header("X-End", "1")
    })
    .await;
    let request = Request::get("/elsewhere").header("Connection", "keep-alive, X-Hop").header("X-Hop", "1");
    let request = request.header("Keep-Alive", "timeout=1").header("Proxy-Connection", "keep-alive");
    let request = request.header("Proxy-Authorization", "Basic x").header("TE", "gzip").header("Upgrade", "tls/1.0");
    let response = world.send(request.header("X-End", "1")).await;
    let seen = world.only_received();
    for name in ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade", "x-hop"] {
        assert_eq!(seen.head.header(name), None, "{name} went to the upstream");
    }
    for name in ["keep-alive", "proxy-authenticate", "x-hop"] {
        assert_eq!(response.header(name), None, "{name} went to the client");
    }
    assert_eq!((seen.head.header("x-end"), response.header("x-end")), (Some("1"), Some("1")));
    assert_ne!(response.header("connection"), Some("close"), "the client's connection is its own");
}

#[tokio::test]
async fn absolute_form_and_http_1_0_reach_the_upstream_as_origin_form() {
    let world = World::answering(|_| Answer::ok("x")).await;
    let token = crate::world::token();
    let mut connection = world.connect().await;
    let absolute =
        format!("GET http://real.example/auth/a?b HTTP/1.1\r\nHost: wrong\r\nAuthorization: Bearer {token}\r\n\r\n");
    connection.write(absolute.as_bytes()).await.unwrap();
    assert_eq!(connection.read("GET").await.unwrap().status, 200);
    let seen = world.only_received();
    assert_eq!((seen.target(), seen.head.header("host")), ("/auth/a?b", Some("real.example")));
    let mut old = world.connect().await;
    old.write(b"GET /auth/old HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(old.read("GET").await.unwrap().status, 200);
    let seen = world.upstream().served().pop().unwrap();
    assert_eq!(seen.head.start, "GET /auth/old HTTP/1.1");
    assert_eq!(seen.head.header("host"), Some(world.upstream().address().to_string().as_str()));
}
