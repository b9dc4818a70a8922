//! Clients and upstreams leave at every moment: each announced call is settled once, with the outcome that is true.

use std::time::Duration;

use goldleaves_domain::Outcome::{self, ClientAborted, Completed, GatewayStopped, UpstreamAborted};
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::token::{Claims, now_secs};
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{BILLABLE, Plan, World, token, token_of};

const LONG: Duration = Duration::from_secs(60);

fn outcome(outcome: Outcome, status: u16, units: &str) -> (Outcome, u16, String) {
    (outcome, status, units.to_owned())
}

async fn asked(world: &World, request: Request) -> Connection {
    let mut connection = world.connect().await;
    connection.write(&request.token(&token()).wire("a")).await.unwrap();
    connection
}

async fn until_served(world: &World, count: usize) {
    while world.upstream().served().len() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_pays() {
    let world = World::answering(|_| Answer::silence()).await;
    let get = asked(&world, Request::get(BILLABLE).header("X-Request-ID", "r-1")).await;
    let post = asked(&world, Request::post(BILLABLE, "whole").header("X-Request-ID", "r-2")).await;
    until_served(&world, 2).await;
    drop((get, post));
    world.events(2).await;
    let events = world.finish().await;
    for event in &events {
        assert_eq!(
            (event.outcome, event.metadata.status_code, event.units.to_string().as_str()),
            (ClientAborted, 499, "1")
        );
        assert!(event.fingerprint.is_some(), "all of it had been read");
    }
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_is_billed_as_499_whatever_the_statuses() {
    let upstream = Upstream::start(|_| Answer::silence()).await.unwrap();
    let world = Plan::with("BILLABLE_STATUSES", "200").start(upstream).await;
    let connection = asked(&world, Request::get(BILLABLE)).await;
    until_served(&world, 1).await;
    drop(connection);
    world.events(1).await;
    assert_eq!(world.outcomes().await, [outcome(ClientAborted, 499, "1")]);
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_has_no_fingerprint() {
    let world = World::answering(|_| Answer::silence()).await;
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let before = world.metric("goldleaves_upstream_connects_total");
        let mut connection = world.connect().await;
        let head = format!("POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n{framing}", token());
        connection.write(head.as_bytes()).await.unwrap();
        while world.metric("goldleaves_upstream_connects_total") == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(connection);
    }
    world.events(2).await;
    let events = world.finish().await;
    let told: Vec<_> =
        events.iter().map(|event| (event.outcome, event.metadata.status_code, event.fingerprint.is_none())).collect();
    assert_eq!(told, vec![(ClientAborted, 499, true); 2]);
}

#[tokio::test]
async fn a_client_that_sends_no_body_at_all_is_told_so_and_pays_nothing() {
    let world = World::answering(|_| Answer::silence()).await;
    for chunk in ["zz\r\n", "3\r\nabcdef\r\n", "fffffffffffffffff\r\n"] {
        let mut connection = world.connect().await;
        let head = format!("POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n", token());
        connection.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes()).await.unwrap();
        let response = connection.read("POST").await.unwrap();
        assert_eq!((response.status, response.header("x-usage-event-id")), (400, None), "{chunk:?}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_within_the_body_pays_what_the_head_said() {
    let dripping = |received: &Received| {
        let answer = match received.target().ends_with("sized") {
            true => Answer::cut_short(100, "xyz"),
            false => Answer::chunked([b"xyz".to_vec(), b"def".to_vec()]),
        };
        answer.dripping(LONG).header("X-Usage-Units", "4")
    };
    let world = World::answering(dripping).await;
    for path in ["sized", "chunked"] {
        let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
        let request = Request::get(&format!("{BILLABLE}/{path}")).token(&token());
        stream.write_all(&request.wire("a")).await.unwrap();
        let mut read = Vec::new();
        // No hexadecimal digits: those are in the ids of the head too.
        while !String::from_utf8_lossy(&read).contains("xyz") {
            read.push(stream.read_u8().await.unwrap());
        }
    }
    world.events(2).await;
    let events = world.finish().await;
    let told: Vec<_> =
        events.iter().map(|event| (event.outcome, event.metadata.status_code, event.metadata.response_bytes)).collect();
    assert_eq!(told, vec![(ClientAborted, 200, 3); 2]);
    assert!(events.iter().all(|event| event.units.to_string() == "4"));
}

#[tokio::test]
async fn a_client_that_leaves_with_the_last_byte_has_completed() {
    let world = World::answering(|received| match received.target().rsplit('/').next().unwrap() {
        "sized" => Answer::ok(vec![b'x'; 70_000]),
        "empty" => Answer::ok(""),
        "204" => Answer::head_only(204),
        "304" => Answer::head_only(304),
        "trailers" => Answer::chunked([b"x".to_vec()]).trailer("X-Usage-Units", "1"),
        _ => Answer::chunked([vec![b'x'; 70_000], b"y".to_vec()]),
    })
    .await;
    let mut expected = Vec::new();
    for (method, path, status) in [
        ("GET", "sized", 200),
        ("GET", "chunked", 200),
        ("HEAD", "sized", 200),
        ("HEAD", "chunked", 200),
        ("GET", "empty", 200),
        ("GET", "204", 204),
        ("GET", "304", 304),
        ("GET", "trailers", 200),
    ] {
        let mut connection = asked(&world, Request::new(method, &format!("{BILLABLE}/{path}"))).await;
        let response = connection.read(method).await.unwrap();
        assert!(response.body.complete && response.header("x-usage-event-id").is_some(), "{method} {path}");
        drop(connection);
        expected.push(outcome(Completed, status, "1"));
    }
    assert_eq!(world.outcomes().await, expected);
}

#[tokio::test]
async fn an_upstream_that_breaks_before_its_head_costs_nothing() {
    let world = World::answering(|received| match received.target().rsplit('/').next().unwrap() {
        "nothing" => Answer::raw(""),
        "half" => Answer::raw("HTTP/1.1 200 OK\r\nContent-"),
        _ => Answer::raw("no HTTP at all\r\n\r\n"),
    })
    .await;
    for path in ["nothing", "half", "junk"] {
        let response = world.send(Request::get(&format!("{BILLABLE}/{path}"))).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (502, Some("application/problem+json")),
            "{path}"
        );
        assert_eq!(response.header("x-usage-event-id"), None);
    }
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn an_upstream_that_is_not_there_costs_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let world = Plan::default().start_before(&url).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 502);
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn an_upstream_that_breaks_within_the_body_is_set_aside() {
    let world = World::answering(|received| match received.target().ends_with("sized") {
        true => Answer::cut_short(100, "abc").header("X-Usage-Units", "4"),
        false => Answer::cut_chunked("abc").header("X-Usage-Units", "4"),
    })
    .await;
    for path in ["sized", "chunked"] {
        let mut connection = asked(&world, Request::get(&format!("{BILLABLE}/{path}"))).await;
        let response = connection.read("GET").await.unwrap();
        assert_eq!((response.text().as_str(), response.body.complete), ("abc", false), "the client sees it too");
    }
    assert_eq!(world.outcomes().await, vec![outcome(UpstreamAborted, 200, "0"); 2]);
}

#[tokio::test]
async fn an_upstream_that_falls_silent_is_timed_out() {
    let upstream = Upstream::start(|received| match received.target().ends_with("head") {
        true => Answer::silence(),
        false => Answer::chunked([b"abc".to_vec(), b"def".to_vec()]).dripping(LONG),
    });
    let plan = Plan::with("UPSTREAM_HEAD_TIMEOUT_SECS", "0.3").and("BODY_IDLE_TIMEOUT_SECS", "0.3");
    let world = plan.start(upstream.await.unwrap()).await;
    let silent = world.send(Request::get(&format!("{BILLABLE}/head"))).await;
    assert_eq!((silent.status, silent.header("x-usage-event-id")), (504, None));
    let mut connection = asked(&world, Request::get(BILLABLE)).await;
    assert!(!connection.read("GET").await.unwrap().body.complete);
    assert_eq!(world.outcomes().await, [outcome(UpstreamAborted, 200, "0")]);
}

#[tokio::test]
async fn a_whole_call_has_an_end() {
    let drip = || Answer::chunked(vec![b"x".to_vec(); 100]).dripping(Duration::from_millis(100));
    let upstream = Upstream::start(move |_| drip()).await.unwrap();
    let world = Plan::with("CALL_TIMEOUT_SECS", "0.5").start(upstream).await;
    let mut connection = asked(&world, Request::get(BILLABLE)).await;
    let response = connection.read("GET").await.unwrap();
    assert!(!response.body.complete && !response.body.bytes.is_empty());
    assert_eq!(world.outcomes().await, [outcome(GatewayStopped, 200, "1")], "what was served until then is billed");
}

#[tokio::test]
async fn what_is_quiet_by_nature_may_stand_still() {
    let upstream = Upstream::start(|received| {
        let kind = received.target().split_once("kind=").unwrap().1.to_owned();
        let quiet = Answer::chunked([b"a".to_vec(), b"b".to_vec()]).dripping(Duration::from_millis(1_200));
        quiet.header("Content-Type", &kind)
    });
    let world = Plan::with("BODY_IDLE_TIMEOUT_SECS", "0.3").start(upstream.await.unwrap()).await;
    for (kind, is_whole) in
        [("text/event-stream;charset=utf-8", true), ("application/grpc+proto", true), ("application/json", false)]
    {
        let mut connection = asked(&world, Request::get(&format!("{BILLABLE}?kind={kind}"))).await;
        assert_eq!(connection.read("GET").await.unwrap().body.complete, is_whole, "{kind}");
    }
    let whole = outcome(Completed, 200, "1");
    assert_eq!(world.outcomes().await, [whole.clone(), whole, outcome(UpstreamAborted, 200, "0")]);
}

#[tokio::test]
async fn an_event_stream_ends_with_its_token_and_a_file_does_not() {
    let upstream = Upstream::start(|received| {
        let kind = received.target().split_once("kind=").unwrap().1.to_owned();
        Answer::chunked(vec![b"x".to_vec(); 8]).dripping(Duration::from_millis(500)).header("Content-Type", &kind)
    });
    let world = Plan::default().start(upstream.await.unwrap()).await;
    for (kind, is_whole) in [("text/event-stream", false), ("text/plain", true)] {
        let claims = Claims::new("acme", "anna").with("exp", json!(now_secs() + 3));
        let request = Request::get(&format!("{BILLABLE}?kind={kind}")).token(&token_of(&claims));
        let response = world.connect().await.ask(&request).await.unwrap();
        assert_eq!((response.status, response.body.complete), (200, is_whole), "{kind}");
    }
    assert_eq!(world.outcomes().await, [outcome(GatewayStopped, 200, "1"), outcome(Completed, 200, "1")]);
}

#[tokio::test]
async fn a_slow_upload_does_not_make_the_upstream_late_and_a_dead_one_is_cut() {
    let upstream = Upstream::start(|received| Answer::ok(received.body.bytes.clone())).await.unwrap();
    let plan = Plan::with("UPSTREAM_HEAD_TIMEOUT_SECS", "0.5").and("BODY_IDLE_TIMEOUT_SECS", "0.4");
    let world = plan.start(upstream).await;
    let head = |length| {
        format!(
            "POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: {length}\r\n\r\n",
            token()
        )
    };
    let mut slow = world.connect().await;
    slow.write(head(8).as_bytes()).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        slow.write(b"x").await.unwrap();
    }
    assert_eq!(slow.read("POST").await.unwrap().text(), "xxxxxxxx");
    let mut dead = world.connect().await;
    dead.write(head(8).as_bytes()).await.unwrap();
    dead.write(b"x").await.unwrap();
    assert_eq!(dead.read("POST").await.unwrap().status, 408, "what the gateway answers itself is not billed");
    assert_eq!(world.outcomes().await, [outcome(Completed, 200, "1")]);
}

#[tokio::test]
async fn an_answer_before_the_request_is_whole_has_no_fingerprint() {
    let early = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 64];
        stream.read_exact(&mut head).await.unwrap();
        stream.write_all(early.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let world = Plan::default().start_before(&url).await;
    let mut connection = world.connect().await;
    let head = format!(
        "POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 9\r\n\r\n123",
        token()
    );
    connection.write(head.as_bytes()).await.unwrap();
    assert_eq!(connection.read("POST").await.unwrap().text(), "early");
    let event = world.finish().await.remove(0);
    assert_eq!((event.outcome, event.fingerprint), (Completed, None));
}

#[tokio::test]
async fn an_h2_client_that_resets_its_stream_is_a_client_that_left() {
    let world = World::answering(|received| match received.target().ends_with("head") {
        true => Answer::silence(),
        false => Answer::chunked([b"abc".to_vec(), b"def".to_vec()]).dripping(LONG),
    })
    .await;
    let stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = |path: &str| {
        let request = hyper::Request::get(format!("http://a{BILLABLE}/{path}"))
            .header("authorization", format!("Bearer {}", token()));
        request.body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    let waiting = tokio::spawn(sender.send_request(request("head")));
    until_served(&world, 1).await;
    waiting.abort();
    world.events(1).await;
    let mut response = sender.send_request(request("body")).await.unwrap();
    assert!(response.body_mut().frame().await.unwrap().unwrap().is_data());
    drop(response);
    world.events(2).await;
    driver.abort();
    assert_eq!(world.outcomes().await, [outcome(ClientAborted, 499, "1"), outcome(ClientAborted, 200, "1")]);
}
