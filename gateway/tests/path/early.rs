//! Answers that are there before the request is: a client that sends first and reads then gets them all the same.

use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{BILLABLE, Plan, World, token};

/// More than the buffers on the way hold.
const LARGE: usize = 16 << 20;

/// Sends all of an upload, then reads the status line.
async fn upload(world: &World, token: &str, chunked: bool) -> String {
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let framing = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {LARGE}") };
    let head = format!("POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{framing}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 1 << 16];
    for _ in 0..LARGE / piece.len() {
        if chunked {
            stream.write_all(b"10000\r\n").await.expect("the gateway reads on after its answer");
        }
        stream.write_all(&piece).await.expect("the gateway reads on after its answer");
        if chunked {
            stream.write_all(b"\r\n").await.expect("the gateway reads on after its answer");
        }
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await.expect("the gateway reads on after its answer");
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    for (bytes_max, token, status) in
        [("64MiB", "none".to_owned(), "401 Unauthorized"), ("1MiB", token(), "413 Payload Too Large")]
    {
        let upstream = Upstream::start(|_| Answer::ok("ok")).await.unwrap();
        let world = Plan::with("REQUEST_BODY_BYTES_MAX", bytes_max).start(upstream).await;
        for chunked in [false, true] {
            assert_eq!(upload(&world, &token, chunked).await, format!("HTTP/1.1 {status}"), "chunked: {chunked}");
        }
        assert!(world.outcomes().await.is_empty(), "nothing of this is billed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_of_the_upstream_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut some = [0; 1_000];
            let _ = stream.read(&mut some).await;
            let refusal = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
            let _ = stream.write_all(refusal).await;
            // Closed with most of the request unread, which resets the connection.
        }
    });
    let world = Plan::default().start_before(&url).await;
    for round in 0..20 {
        let chunked = round % 2 == 0;
        assert_eq!(upload(&world, &token(), chunked).await, "HTTP/1.1 413 Payload Too Large", "chunked: {chunked}");
    }
    assert!(world.outcomes().await.is_empty(), "nothing of this is billed");
}

#[tokio::test]
async fn a_client_that_only_closes_its_sending_half_is_served_and_billed_once() {
    let world = World::answering(|_| Answer::ok("whole").after(Duration::from_millis(300))).await;
    for request in [Request::get(BILLABLE), Request::post(BILLABLE, "body")] {
        let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
        stream.write_all(&request.token(&token()).wire("a")).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nwhole"), "{answer}");
    }
    let outcomes = world.outcomes().await;
    assert_eq!(outcomes, vec![(Outcome::Completed, 200, "1".to_owned()); 2]);
}

/// Sends this request, with the end of the sending half right behind it, and reads the answer to its end.
async fn with_the_end_behind(world: &World, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A reset is a way to close, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A POST with this body in two chunks.
fn chunks(body: &[u8]) -> Request {
    let (first, second) = body.split_at(2);
    Request::post(BILLABLE, "").chunked([first.to_vec(), second.to_vec()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_with_the_end_right_behind_it_is_passed_on_whole_and_served() {
    let world = World::answering(|_| Answer::ok("whole")).await;
    let mut sent = 0;
    for (length, times) in [(5, 100), (300 << 10, 10)] {
        let body = vec![b'x'; length];
        for request in [Request::post(BILLABLE, body.clone()), chunks(&body)] {
            let request = request.token(&token()).wire("a");
            for _ in 0..times {
                let answer = with_the_end_behind(&world, &request).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nwhole"), "{answer}");
            }
            sent += times;
            let served = world.upstream().served();
            assert_eq!(served.len(), sent);
            let is_whole = |received: &Received| received.body.complete && received.body.bytes == body;
            assert!(served.iter().rev().take(times).all(is_whole), "{length} bytes");
        }
    }
    assert_eq!(world.outcomes().await, vec![(Outcome::Completed, 200, "1".to_owned()); sent]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_end_of_the_sending_half_cuts_off_is_answered_and_never_billed() {
    let world = World::answering(|_| Answer::ok("whole")).await;
    for request in [Request::post(BILLABLE, "body"), chunks(b"body")] {
        let request = request.token(&token()).wire("a");
        for missing in [1, 3, 4] {
            let answer = with_the_end_behind(&world, &request[..request.len() - missing]).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(answer.contains("\"code\":\"body_invalid\""), "{answer}");
        }
    }
    assert!(world.outcomes().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_within_its_upload_pays_however_it_leaves() {
    let world = World::answering(|_| Answer::ok("whole")).await;
    let mut left = 0;
    for request in [Request::post(BILLABLE, "body"), chunks(b"body")] {
        let request = request.token(&token()).wire("a");
        for is_reset in [false, true] {
            let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
            stream.write_all(&request[..request.len() - 3]).await.unwrap();
            while world.metric("goldleaves_spool_open_intents") == 0.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if is_reset {
                stream.set_zero_linger().unwrap();
            }
            drop(stream);
            left += 1;
            world.events(left).await;
        }
    }
    assert_eq!(world.outcomes().await, vec![(Outcome::ClientAborted, 499, "1".to_owned()); left]);
}
