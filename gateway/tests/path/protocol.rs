//! Requests that the protocol forbids, each with its status, and none of them billed.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::world::{BILLABLE, Plan, World, token};

#[tokio::test]
async fn what_is_not_served_has_its_status() {
    let world = World::answering(|_| Answer::ok("")).await;
    let upgrade = |to: &str| Request::get(BILLABLE).header("Connection", "Upgrade").header("Upgrade", to);
    for (request, status, code) in [
        (Request::new("TRACE", BILLABLE), 405, "method_not_allowed"),
        (Request::new("TRACE", "/auth/x"), 405, "method_not_allowed"),
        (Request::get(BILLABLE).header("Expect", "200-ok"), 417, "expectation_failed"),
        (Request::get(BILLABLE).header("Expect", "100-continue").header("Expect", "x"), 417, "expectation_failed"),
        (upgrade("h2c"), 400, "upgrade_refused"),
        (upgrade("websocket, H2C"), 400, "upgrade_refused"),
        (upgrade("websocket").header("Upgrade", "x-h2c"), 400, "upgrade_refused"),
    ] {
        let response = world.send(request).await;
        assert_eq!((response.status, &response.json().unwrap()["code"]), (status, &code.into()));
        assert_eq!(response.header("allow").is_some(), status == 405);
    }
    let other = world.send(upgrade("tls/1.0")).await;
    assert_eq!((other.status, world.only_received().head.header("upgrade")), (200, None), "ignored (RFC 9110, 7.8)");
    assert_eq!(world.finish().await.len(), 1);
}

/// Sends one request over h2 with `:authority` and another `host`.
async fn with_two_hosts(world: &World, host: &str) -> u16 {
    let stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://shop.example{BILLABLE}"))
        .header("authorization", format!("Bearer {}", token()))
        .header("host", host);
    let answer = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn h2_has_one_host() {
    let world = World::answering(|_| Answer::ok("")).await;
    assert_eq!(with_two_hosts(&world, "SHOP.example").await, 200);
    assert_eq!(with_two_hosts(&world, "other.example").await, 400);
    assert_eq!(world.finish().await.len(), 1);
}

#[tokio::test]
async fn a_gateway_before_itself_is_found_out_at_once() {
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let world = Plan::with("GATEWAY_ADDR", address).start_before(&format!("http://{address}")).await;
    let response = world.send(Request::get(BILLABLE)).await;
    assert_eq!((response.status, response.json().unwrap()["code"].as_str()), (508, Some("loop_detected")));
    assert_eq!(world.metric("goldleaves_upstream_connects_total"), 1.0);
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn the_way_of_a_request_is_told() {
    let world = World::answering(|_| Answer::ok("")).await;
    world.send(Request::get(BILLABLE).header("Via", "1.0 fred")).await;
    let seen = world.only_received();
    let via: Vec<_> = seen.head.header_all("via").collect();
    assert_eq!((via.len(), via[0]), (2, "1.0 fred"));
    assert!(via[1].starts_with("1.1 goldleaves-"), "{via:?}");
}

#[tokio::test]
async fn interim_responses_without_end_are_given_up() {
    // With an end after all, which nobody should wait for.
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(40_000);
    let flood = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let world = Plan::default().start(Upstream::start(move |_| Answer::raw(flood.clone())).await.unwrap()).await;
    let response = world.send(Request::get(BILLABLE)).await;
    assert_eq!((response.status, response.json().unwrap()["code"].as_str()), (502, Some("upstream_failed")));
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn a_few_interim_responses_are_passed_over() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100);
    let answer = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let world = Plan::default().start(Upstream::start(move |_| Answer::raw(answer.clone())).await.unwrap()).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.text(), "ok");
    assert_eq!(world.finish().await.len(), 1);
}
