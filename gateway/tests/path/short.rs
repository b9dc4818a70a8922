//! Answers that come in one piece are read past hyper, all others by hyper: what the client gets and what becomes of the
//! connection is the same.

use std::time::Duration;

use goldleaves_testkit::client::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{BILLABLE, Plan, World, token};

/// Parts an answer in two, as a rule. However it comes, what is seen of it is the same.
const PAUSE: Duration = Duration::from_millis(2);

/// Answers every request with these bytes, in so many pieces; `closes` = once only.
async fn upstream(answer: Vec<u8>, pieces: usize, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                while asked(&mut stream).await {
                    for piece in answer.chunks(answer.len().div_ceil(pieces)) {
                        stream.write_all(piece).await.ok()?;
                        tokio::time::sleep(PAUSE).await;
                    }
                    if closes {
                        break;
                    }
                }
                Some(())
            });
        }
    });
    url
}

async fn asked(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// Status, fields and body.
type Seen = (u16, Vec<(String, String)>, Vec<u8>);

/// Returns what a client can see of an answer but for what is another's for each call; `None` = it broke off, however far it came.
fn seen(response: Option<Response>) -> Option<Seen> {
    let response = response.filter(|response| response.body.complete)?;
    let changes = ["date", "x-request-id", "x-usage-event-id"];
    let fields = response.head.headers.iter();
    let mut fields: Vec<(String, String)> =
        fields.filter(|(name, _)| !changes.contains(&name.to_ascii_lowercase().as_str())).cloned().collect();
    fields.sort();
    // Of a body that the gateway made itself, the id of the call is a part.
    let bytes = if response.status >= 500 { Vec::new() } else { response.body.bytes };
    Some((response.status, fields, bytes))
}

/// Returns what a client sees who asks twice, once where the upstream closes, and how many connections that took.
async fn asked_of(upstream: String, method: &str, closes: bool) -> (Vec<Option<Seen>>, f64) {
    let world = Plan::default().start_before(&upstream).await;
    let mut answers = Vec::new();
    for _ in 0..if closes { 1 } else { 2 } {
        let request = Request::new(method, BILLABLE).token(&token());
        answers.push(seen(request.send(world.gateway.address()).await.ok()));
    }
    (answers, connects(&world))
}

fn connects(world: &World) -> f64 {
    world.metric("goldleaves_upstream_connects_total")
}

#[tokio::test]
async fn an_answer_means_the_same_in_one_piece_and_in_several() {
    let many: String = (0..90).map(|number| format!("x-{number}: v\r\n")).collect();
    for (answer, closes) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: 1\r\nx-a: 2\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\nRetry-After: 1\r\n\r\nabc", false),
        ("HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\n\r\nabc", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", false),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", false),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nNo colon\r\n\r\nabc", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Folded: a\r\n b\r\n\r\nabc", true),
        (&format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{many}\r\nabc"), false),
    ] {
        for method in ["GET", "POST"] {
            let bytes = answer.as_bytes().to_vec();
            let whole = asked_of(upstream(bytes.clone(), 1, closes).await, method, closes).await;
            let pieces = asked_of(upstream(bytes, 2, closes).await, method, closes).await;
            assert_eq!(whole, pieces, "{method}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn bytes_behind_a_whole_answer_answer_no_other_call() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad";
    let (answers, connects) = asked_of(upstream(smuggled.into(), 1, false).await, "GET", false).await;
    assert!(!format!("{answers:?}").contains("98, 97, 100"), "{answers:?}");
    assert_eq!(connects, 2.0, "the connection is not used again");
}
