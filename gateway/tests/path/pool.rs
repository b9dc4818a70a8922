//! Upstream connections: used again, noticed when dead, and a request sent twice only when that is safe.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::Answer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{BILLABLE, Plan, World};

const CONNECTS: &str = "goldleaves_upstream_connects_total";
const RETRIES: &str = "goldleaves_upstream_retries_total";

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let world = World::answering(|received| match received.target().rsplit('/').next().unwrap() {
        "chunked" => Answer::chunked([b"x".to_vec()]).header("Trailer", "x-t").trailer("x-t", "1"),
        "204" => Answer::head_only(204),
        _ => Answer::ok("x"),
    })
    .await;
    for path in ["sized", "chunked", "204", "sized", "chunked"] {
        for method in ["GET", "HEAD", "DELETE"] {
            world.send(Request::new(method, &format!("{BILLABLE}/{path}"))).await;
        }
        world.send(Request::post(&format!("{BILLABLE}/{path}"), "body")).await;
    }
    assert_eq!((world.metric(CONNECTS), world.metric(RETRIES)), (1.0, 0.0));
    assert_eq!(world.metric("goldleaves_upstream_latency_seconds_count"), 20.0);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_is_not_used() {
    let world = World::answering(|_| Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")).await;
    for _ in 0..5 {
        assert_eq!(world.send(Request::post(BILLABLE, "not repeatable")).await.status, 200);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!((world.metric(CONNECTS), world.metric(RETRIES)), (5.0, 0.0));
}

/// Answers the first request of each connection and closes it in the middle of the second, without a word.
async fn closing_on_the_second(served: Arc<AtomicUsize>, second_answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let served = Arc::clone(&served);
            tokio::spawn(async move {
                request(&mut stream).await;
                served.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
                request(&mut stream).await;
                served.fetch_add(1, Ordering::SeqCst);
                stream.write_all(second_answer.as_bytes()).await.unwrap();
            });
        }
    });
    url
}

async fn request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn a_repeatable_request_is_sent_again_as_the_same_call() {
    let served = Arc::default();
    let world = Plan::default().start_before(&closing_on_the_second(Arc::clone(&served), "").await).await;
    for _ in 0..2 {
        assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    }
    assert_eq!((served.load(Ordering::SeqCst), world.metric(RETRIES)), (3, 1.0));
    assert_eq!(world.outcomes().await, vec![(Outcome::Completed, 200, "1".to_owned()); 2], "one event per request");
}

#[tokio::test]
async fn what_may_have_changed_something_is_not_sent_again() {
    for request in [Request::new("POST", BILLABLE), Request::new("PUT", BILLABLE).chunked([b"x".to_vec()])] {
        let served = Arc::default();
        let world = Plan::default().start_before(&closing_on_the_second(Arc::clone(&served), "").await).await;
        assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
        assert_eq!(world.send(request).await.status, 502);
        assert_eq!((served.load(Ordering::SeqCst), world.metric(RETRIES)), (2, 0.0));
        assert_eq!(world.finish().await.len(), 1);
    }
}

#[tokio::test]
async fn a_request_that_was_answered_in_part_is_not_sent_again() {
    let served = Arc::default();
    let url = closing_on_the_second(Arc::clone(&served), "HTTP/1.1 20").await;
    let world = Plan::default().start_before(&url).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 502);
    assert_eq!((served.load(Ordering::SeqCst), world.metric(RETRIES)), (2, 0.0));
}
