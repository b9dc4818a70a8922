//! Bodies stream both ways, untouched and never buffered.

use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::http1::BodyFraming;
use goldleaves_testkit::upstream::{Answer, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{BILLABLE, Plan, World, token};

#[tokio::test]
async fn framing_is_kept_both_ways() {
    let world = World::answering(|received| {
        let body = received.body.bytes.clone();
        if received.head.header("transfer-encoding").is_some() {
            Answer::chunked([body, b"!".to_vec()])
        } else {
            Answer::ok(body)
        }
    })
    .await;
    let sized = world.send(Request::post(BILLABLE, "sized")).await;
    assert_eq!((sized.text().as_str(), sized.framing), ("sized", BodyFraming::Length(5)));
    let chunked = world.send(Request::new("PUT", BILLABLE).chunked([b"chu".to_vec(), b"nked".to_vec()])).await;
    assert_eq!((chunked.text().as_str(), chunked.framing), ("chunked!", BodyFraming::Chunked));
    let served = world.upstream().served();
    let framing = |index: usize, name: &str| served[index].head.header_all(name).collect::<Vec<_>>().join("|");
    assert_eq!((framing(0, "content-length").as_str(), framing(0, "transfer-encoding").as_str()), ("5", ""));
    assert_eq!((framing(1, "content-length").as_str(), framing(1, "transfer-encoding").as_str()), ("", "chunked"));
    // A GET may have a body, of any framing.
    let got = world.send(Request::get(BILLABLE).chunked([b"get".to_vec()])).await;
    assert_eq!(got.text(), "get!");
    let empty = world.send(Request::new("POST", BILLABLE)).await;
    assert_eq!((empty.status, empty.framing), (200, BodyFraming::Length(0)));
    assert_eq!(world.outcomes().await.len(), 4);
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_none_although_no_body_follows() {
    let two = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n";
    for said in [two, "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\n"] {
        let world = World::answering(move |_| Answer::raw(said)).await;
        let response = world.send(Request::new("HEAD", BILLABLE)).await;
        let kind = response.header("content-type");
        assert_eq!((response.status, kind), (502, Some("application/problem+json")), "{said}");
        assert!(world.finish().await.is_empty());
    }
}

#[tokio::test]
async fn responses_without_a_body_keep_what_their_heads_say() {
    let world = World::answering(|received| match received.target().rsplit('/').next().unwrap() {
        "204" => Answer::head_only(204).header("X-A", "1"),
        "304" => Answer::head_only(304).header("ETag", "\"1\""),
        "long" => Answer::ok(vec![b'x'; 100_000]),
        _ => Answer::chunked([b"x".to_vec()]),
    })
    .await;
    let mut connection = world.connect().await;
    let cases = [
        ("HEAD", "long", 200, "content-length", Some("100000")),
        ("HEAD", "chunked", 200, "content-length", None),
        ("GET", "204", 204, "x-a", Some("1")),
        ("GET", "304", 304, "etag", Some("\"1\"")),
        ("GET", "long", 200, "content-length", Some("100000")),
    ];
    for (method, path, status, header, value) in cases {
        let request = Request::new(method, &format!("{BILLABLE}/{path}")).token(&token());
        let response = connection.ask(&request).await.unwrap();
        assert_eq!((response.status, response.header(header)), (status, value), "{method} {path}");
        assert!(response.header("x-usage-event-id").is_some(), "{method} {path}");
    }
    let outcomes = world.outcomes().await;
    assert!(outcomes.len() == 5 && outcomes.iter().all(|(outcome, ..)| *outcome == Outcome::Completed), "{outcomes:?}");
}

#[tokio::test]
async fn a_client_is_told_to_go_on_once_the_upstream_is_there() {
    let world = World::answering(|received| Answer::ok(received.body.bytes.clone())).await;
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let head = format!(
        "POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        token()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, b"\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    assert!(read_until(&mut stream, b"body").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(world.only_received().head.header("expect"), None);
    // What is refused is refused before the body is asked for.
    let mut refused = TcpStream::connect(world.gateway.address()).await.unwrap();
    let head = format!("POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    refused.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut refused, b"\r\n\r\n").await.starts_with("HTTP/1.1 401 "));
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let byte = stream.read_u8().await.unwrap();
        read.push(byte);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let world =
        World::answering(|_| Answer::chunked([b"x".to_vec()]).header("Trailer", "X-Sum").trailer("X-Sum", "7")).await;
    let response = world.send(Request::get(BILLABLE).header("TE", "trailers")).await;
    assert_eq!(response.body.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let upload = format!(
        "POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Up, X-User-ID\r\n\r\n1\r\na\r\n0\r\nX-Up: 1\r\nX-User-ID: root\r\n\r\n",
        token()
    );
    let mut connection = world.connect().await;
    connection.write(upload.as_bytes()).await.unwrap();
    assert_eq!(connection.read("POST").await.unwrap().status, 200);
    let seen = world.upstream().served().pop().unwrap();
    assert_eq!(seen.body.trailers, [("x-up".to_owned(), "1".to_owned())], "an identity is no trailer either");
    assert!(world.outcomes().await.iter().all(|(outcome, ..)| *outcome == Outcome::Completed));
}

#[tokio::test]
async fn interim_answers_settle_nothing() {
    let world = World::answering(|_| {
        Answer::raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    })
    .await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.text(), "x");
    assert_eq!(world.outcomes().await, [(Outcome::Completed, 200, "1".to_owned())]);
}

#[tokio::test]
async fn bytes_come_as_they_are_sent() {
    let world =
        World::answering(|_| Answer::chunked([b"one".to_vec(), b"two".to_vec()]).dripping(Duration::from_secs(30)))
            .await;
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    stream.write_all(&Request::get(BILLABLE).token(&token()).wire("a")).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(10), read_until(&mut stream, b"one\r\n")).await.unwrap();
    assert!(first.ends_with("3\r\none\r\n"), "the first piece does not wait for the second");
}

#[tokio::test]
async fn a_long_answer_does_not_grow_memory() {
    const MIB: usize = 1 << 20;
    let total = std::env::var("STREAM_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(192) * MIB;
    let url = endless(total).await;
    let world = Plan::default().start_before(&url).await;
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    stream.write_all(&Request::get(BILLABLE).token(&token()).wire("a")).await.unwrap();
    read_until(&mut stream, b"\r\n\r\n").await;
    let mut buffer = vec![0; MIB];
    let mut read = stream.read(&mut buffer).await.unwrap();
    // A client that stops reading stops the upstream.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = resident();
    while read < total {
        read += stream.read(&mut buffer).await.unwrap();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 * MIB, "memory grew by {} MiB", grown / MIB);
    let event = world.finish().await.remove(0);
    assert_eq!((event.outcome, event.metadata.response_bytes), (Outcome::Completed, total as u64));
}

/// An upstream of one connection that sends so many bytes.
async fn endless(total: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes()).await.unwrap();
        let piece = vec![7; 1 << 18];
        for _ in 0..total / piece.len() {
            stream.write_all(&piece).await.unwrap();
        }
        stream.read_u8().await.ok();
    });
    url
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[tokio::test]
async fn h2_clients_are_served_by_an_h1_upstream() {
    let world = World::answering(|received| {
        let body = if received.method() == "GET" { b"got".to_vec() } else { received.body.bytes.clone() };
        Answer::chunked([body])
            .header("Trailer", "X-Sum, X-Usage-Units")
            .trailer("X-Sum", "7")
            .trailer("X-Usage-Units", "3")
    })
    .await;
    let request = Request::post(&format!("{BILLABLE}?q"), "hello").token(&token());
    let request = request.header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
    let response = request.send_h2(world.gateway.address()).await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.body.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert!(response.header("x-usage-event-id").is_some() && response.header("x-request-id").is_some());
    let seen = world.only_received();
    assert_eq!(seen.head.start, format!("POST {BILLABLE}?q HTTP/1.1"));
    let sent = |name: &str| seen.head.header_all(name).collect::<Vec<_>>().join("|");
    assert_eq!(sent("host"), world.gateway.address().to_string(), "Host is :authority");
    assert_eq!((sent("cookie").as_str(), sent("content-length").as_str()), ("a=1; b=2", "5"));
    let get = Request::get(BILLABLE).token(&token()).send_h2(world.gateway.address()).await.unwrap();
    assert_eq!((get.status, get.text().as_str(), get.body.trailers.len()), (200, "got", 1));
    let seen = world.upstream().served().pop().unwrap();
    assert_eq!((seen.head.header("content-length"), seen.head.header("transfer-encoding")), (None, None));
    assert_eq!(world.outcomes().await, vec![(Outcome::Completed, 200, "3".to_owned()); 2]);
}

#[tokio::test]
async fn a_foreign_transfer_coding_is_not_passed_on() {
    let upstream = Upstream::start(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
    });
    let world = Plan::default().start(upstream.await.unwrap()).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 502);
    assert!(world.finish().await.is_empty());
}
