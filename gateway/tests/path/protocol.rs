//! Requests that the protocol forbids, each with its status, and none of them billed.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

/// A frame of h2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The fields as HPACK writes them, without any table.
fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.extend([0, u8::try_from(name.len()).unwrap()]);
        block.extend(name.bytes());
        match value.len().checked_sub(127) {
            None => block.push(u8::try_from(value.len()).unwrap()),
            Some(more) => {
                block.extend([127, u8::try_from(more % 128).unwrap() | 128, u8::try_from(more / 128).unwrap()])
            }
        }
        block.extend(value.bytes());
    }
    block
}

/// Sends one request over h2 with these fields beside its path and token; its status as HPACK writes it, `None` = the stream was reset.
async fn status_of(world: &World, fields: &[(&str, &str)]) -> Option<u8> {
    let token = format!("Bearer {}", token());
    let target = [(":method", "GET"), (":scheme", "http"), (":path", BILLABLE)];
    let block = hpack(&[&target[..], fields, &[("authorization", token.as_str())][..]].concat());
    answered(world, &block).await
}

/// Sends this head over h2; returns as [`status_of`] does.
async fn answered(world: &World, block: &[u8]) -> Option<u8> {
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let sent = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, block)].concat();
    stream.write_all(&sent).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        match head[3] {
            1 => return payload.first().copied(),
            3 => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn h2_has_a_scheme_that_is_served() {
    let world = World::answering(|_| Answer::ok("")).await;
    let token = format!("Bearer {}", token());
    for (scheme, status) in [("http", OK), ("https", OK), ("HTTP", OK), ("ftp", BAD), ("gopher", BAD), ("", BAD)] {
        let target = [(":method", "GET"), (":scheme", scheme), (":path", BILLABLE), (":authority", "a")];
        let block = hpack(&[&target[..], &[("authorization", token.as_str())][..]].concat());
        assert_eq!(answered(&world, &block).await, status, "{scheme}");
    }
    assert_eq!(world.finish().await.len(), 3);
}

/// The statuses 200 and 400 in HPACK's own table.
const OK: Option<u8> = Some(0x88);
const BAD: Option<u8> = Some(0x8C);
/// The h2 crate knows it for none.
const RESET: Option<u8> = None;

#[tokio::test]
async fn h2_names_a_host() {
    let world = World::answering(|_| Answer::ok("")).await;
    for (fields, status) in [
        (&[(":authority", "shop.example:80")][..], OK),
        (&[("host", "shop.example")], OK),
        (&[(":authority", "[::1]:8080"), ("host", "[::1]:8080")], OK),
        (&[], BAD),
        (&[("host", "")], BAD),
        (&[("host", "[::1")], BAD),
        (&[(":authority", "[x]")], BAD),
        (&[(":authority", "a:b")], BAD),
        (&[(":authority", "[::1")], RESET),
        (&[(":authority", "")], RESET),
    ] {
        assert_eq!(status_of(&world, fields).await, status, "{fields:?}");
    }
    assert_eq!(world.finish().await.len(), 3);
}

#[tokio::test]
async fn an_upper_case_trailer_is_never_billed() {
    let world = World::answering(|_| Answer::silence()).await;
    let token = format!("Bearer {}", token());
    let target = [(":method", "POST"), (":scheme", "http"), (":path", BILLABLE), (":authority", "a")];
    let block = hpack(&[&target[..], &[("authorization", token.as_str())][..]].concat());
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let sent = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 4, 1, &block), &frame(0, 0, 1, b"abc")].concat();
    stream.write_all(&sent).await.unwrap();
    // It is announced and handed over by then.
    while world.metric("goldleaves_upstream_connects_total") < 1.0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    stream.write_all(&frame(1, 5, 1, &hpack(&[("X-Up", "x")]))).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert!(world.outcomes().await.is_empty());
}

#[tokio::test]
async fn a_value_with_blanks_around_it_is_malformed_in_h2() {
    let world = World::answering(|_| Answer::ok("")).await;
    for (name, value, status) in [
        ("x-a", "b c", OK),
        ("x-a", "", OK),
        ("x-a", " b", BAD),
        ("x-a", "b ", BAD),
        ("x-a", "\tb", BAD),
        ("x-a", "b\t", BAD),
        ("x-a", " ", BAD),
        ("x-request-id", " b", BAD),
        ("x-user-id", "b ", BAD),
        ("te", "trailers ", RESET),
    ] {
        assert_eq!(status_of(&world, &[(":authority", "a"), (name, value)]).await, status, "{name}: {value:?}");
    }
    assert_eq!(world.upstream().served().len(), 2);
    assert_eq!(world.finish().await.len(), 2);
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
