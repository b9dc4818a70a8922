//! Requests that their protocol calls malformed only at their end are refused, and never billed, beside calls that are.

use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_e2e::h2_wire::{DATA, HEAD, HEADERS, RESET, WHOLE, frame, head, preface};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CONTINUATION: u8 = 9;
const PATH: &str = "/api/v1/documents";

/// Waits for the end of so many streams; returns those that were reset.
async fn ended(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let (mut ends, mut reset) = (0, Vec::new());
    while ends < count {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut content = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut content).await.unwrap();
        let is_end = [HEADERS, DATA].contains(&head[3]) && head[4] & 1 == 1;
        if head[3] == RESET {
            reset.push(head[8]);
        }
        ends += usize::from(is_end || head[3] == RESET);
    }
    reset
}

/// Waits until so many calls are billed, and stops; not one more is.
async fn only(mut deployment: Deployment, calls: usize) {
    let tables = deployment.tables().await.unwrap();
    tables.wait("the billed calls", |contents| contents.events.len() >= calls).await.unwrap();
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
    assert_eq!(tables.contents().await.unwrap().events.len(), calls);
}

/// Trailers with a pseudo-header, each as frames of stream 3.
fn trailers() -> [(&'static str, Vec<u8>); 6] {
    let whole = |block: &[u8]| frame(HEADERS, WHOLE, 3, block);
    let split = [frame(HEADERS, 1, 3, b"\x00\x04x-up\x011"), frame(CONTINUATION, HEAD, 3, b"\x82")].concat();
    [
        ("an entry of the static table", whole(b"\x88")),
        ("a name in letters", whole(b"\x00\x05:path\x06/other")),
        ("a name in Huffman's code", whole(b"\x00\x84\xb9\x58\xd3\x3f\x06/other")),
        ("an entry of the dynamic table", whole(b"\xbe")),
        ("behind another field", whole(b"\x00\x04x-up\x011\x84")),
        ("in a frame of its own", split),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pseudo_headers_in_trailers_are_refused_and_their_siblings_served() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(Kind::Embedded, &upstream.url()).await.unwrap();
    let token = deployment.token("acme").unwrap();
    // What it says last stays in the dynamic table: `:path: /entry`.
    let kept = b"\x82\x86\x41\x01a\x44\x06/entry";
    let request = head("POST", PATH, Some(&token));
    for (what, trailers) in trailers() {
        let mut stream = TcpStream::connect(deployment.gateway().unwrap()).await.unwrap();
        let begun = [
            preface(65_535),
            frame(HEADERS, WHOLE, 1, kept),
            frame(HEADERS, HEAD, 3, &request),
            frame(DATA, 0, 3, b"whole"),
            frame(HEADERS, HEAD, 5, &request),
        ];
        stream.write_all(&begun.concat()).await.unwrap();
        // Most of the time both are with the upstream by then.
        tokio::time::sleep(Duration::from_millis(20)).await;
        for byte in trailers {
            stream.write_all(&[byte]).await.unwrap();
        }
        let honest = frame(HEADERS, WHOLE, 5, b"\x00\x04x-up\x011");
        stream.write_all(&[frame(DATA, 0, 5, b"whole"), honest].concat()).await.unwrap();
        assert_eq!(ended(&mut stream, 3).await, [3], "{what}");
    }
    only(deployment, trailers().len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_a_closed_half_cuts_is_refused_and_a_client_that_left_pays() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(Kind::Embedded, &upstream.url()).await.unwrap();
    let token = deployment.token("acme").unwrap();
    let whole = Request::post(PATH, "body").token(&token).wire("a");
    let chunked = Request::post(PATH, "").chunked([b"bo".to_vec(), b"dy".to_vec()]).token(&token).wire("a");
    for whole in [whole, chunked] {
        let begun = &whole[..whole.len() - 3];
        let mut stream = TcpStream::connect(deployment.gateway().unwrap()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"code\":\"body_invalid\""), "{answer}");
        let mut stream = TcpStream::connect(deployment.gateway().unwrap()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(stream);
    }
    only(deployment, 2).await;
}
