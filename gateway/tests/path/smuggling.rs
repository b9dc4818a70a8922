//! Requests that two servers could read in two ways reach the upstream in one way or not at all.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::Answer;

use crate::world::{BILLABLE, World, token};

/// Sends bytes after a valid head's beginning; the status of the first answer.
async fn status(world: &World, rest: &str) -> u16 {
    let mut connection = world.connect().await;
    let request = format!("POST {BILLABLE} HTTP/1.1\r\nAuthorization: Bearer {}\r\n{rest}", token());
    connection.write(request.as_bytes()).await.unwrap();
    connection.read("POST").await.unwrap().status
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    let world = World::answering(|_| Answer::ok("")).await;
    for (rest, expected) in [
        ("Host: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("Host: a\r\nContent-Length: 3, 4\r\n\r\nabcd", 400),
        ("Host: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("Host: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("Host: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        ("Host: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        ("Host: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("Host: a\r\nX-Folded: a\r\n b\r\n\r\n", 400),
        (" Host: a\r\n\r\n", 400),
        ("\r\n", 400),
        ("Host: a\r\nHost: a\r\n\r\n", 400),
        ("Host: a\r\nHost: b\r\n\r\n", 400),
        ("Host: a/b\r\n\r\n", 400),
        ("Host: u@b\r\n\r\n", 400),
        ("Host: [::1\r\n\r\n", 400),
        ("Host: [x]\r\n\r\n", 400),
        ("Host: ::1\r\n\r\n", 400),
        ("Host: a:b\r\n\r\n", 400),
        ("Host: a%2\r\n\r\n", 400),
        ("Host: a\r\nX-Nul: a\0b\r\n\r\n", 400),
    ] {
        assert_eq!(status(&world, rest).await, expected, "{rest:?}");
    }
    assert!(world.upstream().served().is_empty());
    assert!(world.finish().await.is_empty());
}

/// A target has no fragment (RFC 9112, 3.2): what is behind `#` would be metered by one reading and served by another.
#[tokio::test]
async fn a_fragment_is_refused() {
    let world = World::answering(|_| Answer::ok("")).await;
    for (target, expected) in [
        (format!("{BILLABLE}#a"), 400),
        (format!("{BILLABLE}?a#b"), 400),
        (format!("{BILLABLE}?\"<\"#b"), 400),
        (format!("{BILLABLE}#"), 400),
        (format!("http://a{BILLABLE}#a"), 400),
        (format!("{BILLABLE}/%23a"), 200),
    ] {
        let mut connection = world.connect().await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", token());
        connection.write(request.as_bytes()).await.unwrap();
        assert_eq!(connection.read("GET").await.unwrap().status, expected, "{target}");
    }
    assert_eq!(world.upstream().served().len(), 1);
    assert_eq!(world.finish().await.len(), 1);
}

/// RFC 9112, 6.1: a server may process it by Transfer-Encoding alone and must close the connection then.
#[tokio::test]
async fn length_beside_chunked_is_dropped_and_the_connection_ends() {
    let world = World::answering(|received| Answer::ok(received.body.bytes.clone())).await;
    for framing in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
    {
        let before = world.upstream().served().len();
        let mut connection = world.connect().await;
        let hidden = format!("GET {BILLABLE}/hidden HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", token());
        let request = format!(
            "POST {BILLABLE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n{framing}\r\n\r\n0\r\n\r\n{hidden}",
            token()
        );
        connection.write(request.as_bytes()).await.unwrap();
        assert_eq!(connection.read("POST").await.unwrap().status, 200);
        assert!(connection.read("GET").await.is_err(), "what follows is not a request");
        let served = world.upstream().served();
        assert_eq!(served.len(), before + 1);
        let seen = served.last().unwrap();
        assert_eq!(
            (seen.head.header("content-length"), seen.head.header("transfer-encoding")),
            (None, Some("chunked"))
        );
    }
    assert_eq!(world.finish().await.len(), 2);
}

#[tokio::test]
async fn an_answers_two_framings_become_one() {
    let world = World::answering(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
    })
    .await;
    let response = world.send(Request::get(BILLABLE)).await;
    assert_eq!((response.text().as_str(), response.header("content-length")), ("x", None));
}

#[tokio::test]
async fn bytes_behind_an_answer_never_reach_another_client() {
    let world = World::answering(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    })
    .await;
    for _ in 0..5 {
        assert_eq!(world.send(Request::get(BILLABLE)).await.text(), "x");
    }
    assert_eq!(world.upstream().served().len(), 5);
}

#[tokio::test]
async fn connect_is_not_served() {
    let world = World::answering(|_| Answer::ok("")).await;
    let mut connection = world.connect().await;
    connection.write(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n").await.unwrap();
    assert_eq!(connection.read("GET").await.unwrap().status, 501);
    let mut connection = world.connect().await;
    connection.write(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = connection.read("OPTIONS").await.unwrap();
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    for (target, status) in [("ftp://a/api/v1/documents", 400), ("HTTP://a/api/v1/documents", 401)] {
        connection.write(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(connection.read("GET").await.unwrap().status, status, "{target}");
    }
    assert!(world.upstream().served().is_empty());
}
