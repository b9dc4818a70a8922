//! Clients that send what makes no sense make the program log nothing, however often they do it.

use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_e2e::h2_wire::{GET, frame};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The number of times each kind is sent, over a connection of its own.
const TIMES: usize = 30;
/// The number of times a frame is repeated within a connection.
const FLOOD: usize = 500;

fn h2(frames: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..], frames].concat()
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let resets = (0..u32::try_from(FLOOD).unwrap()).flat_map(|index| {
        let stream = 2 * index + 1;
        [frame(1, 5, stream, GET), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    });
    vec![
        ("ping acks nobody asked for", frame(6, 1, 0, b"nonsense").repeat(FLOOD)),
        ("pings", frame(6, 0, 0, b"nonsense").repeat(FLOOD)),
        ("settings", frame(4, 0, 0, &[]).repeat(FLOOD)),
        ("settings acks nobody asked for", frame(4, 1, 0, &[]).repeat(FLOOD)),
        ("settings of half a length", frame(4, 0, 0, &[1, 2, 3])),
        ("a window update of nothing", frame(8, 0, 0, &[0; 4])),
        ("a window beyond all bounds", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
        ("window updates of streams that are not", frame(8, 0, 99, &[0, 0, 0, 1]).repeat(FLOOD)),
        ("data of a stream that is not", frame(0, 0, 1, b"data")),
        ("a reset of a stream that is not", frame(3, 0, 1, &[0; 4])),
        ("a continuation of nothing", frame(9, 4, 1, GET)),
        ("a frame beyond all bounds", b"\xff\xff\xff\x00\x00\x00\x00\x00\x01".to_vec()),
        ("frames of kinds that are not", frame(0xee, 0xff, 7, b"?").repeat(FLOOD)),
        ("a head that is no HPACK", frame(1, 5, 1, &[0xff; 64])),
        ("a stream that depends on itself", frame(2, 0, 1, &[0, 0, 0, 1, 9])),
        ("a promise by a client", frame(5, 4, 1, b"\0\0\0\x02\x82")),
        ("a good bye", frame(7, 0, 0, &[0; 8])),
        ("upper-case names", frame(1, 5, 1, b"\x82\x86\x84\x41\x01a\x00\x01A\x01b")),
        ("a pseudo-header in trailers", [frame(1, 4, 1, GET), frame(1, 5, 1, b"\x84")].concat()),
        ("an empty padding", [frame(1, 4, 1, GET), frame(0, 8, 1, &[]).repeat(2)].concat()),
        ("streams reset at once", resets.collect()),
    ]
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let head = |line: &str, rest: &str| format!("{line}\r\nHost: a\r\n{rest}\r\n").into_bytes();
    vec![
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("zeros", vec![0; 4_096]),
        ("a version that is not", head("GET / HTTP/9.9", "")),
        ("a head that is too long", head("GET / HTTP/1.1", &format!("X: {}\r\n", "x".repeat(100_000)))),
        ("too many fields", head("GET / HTTP/1.1", &"X: y\r\n".repeat(5_000))),
        ("two lengths", head("POST / HTTP/1.1", "Content-Length: 1\r\nContent-Length: 2\r\n")),
        ("a length that is none", head("POST / HTTP/1.1", "Content-Length: -1\r\n")),
        ("a chunk that is none", head("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\nzz\r\n")),
        ("a coding that is not", head("POST / HTTP/1.1", "Transfer-Encoding: zip\r\n")),
        ("a header with a zero", head("GET / HTTP/1.1", "X: a\0b\r\n")),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("half a head", b"GET / HTTP/1.1\r\nHo".to_vec()),
        ("half a preface", b"PRI * HTTP/2.0\r\n".to_vec()),
        ("no token", head("GET /api/v1/documents HTTP/1.1", "")),
        ("a token that is none", head("GET /api/v1/documents HTTP/1.1", "Authorization: Bearer x.y.z\r\n")),
        ("a path that is none", head("GET /api/%2f/../%00 HTTP/1.1", "")),
        ("CONNECT", head("CONNECT a:1 HTTP/1.1", "")),
        ("TRACE", head("TRACE / HTTP/1.1", "")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_writes_no_line() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut deployment = Deployment::start(Kind::Embedded, &upstream.url()).await.unwrap();
    let request = Request::get("/api/v1/documents").token(&deployment.token("honest").unwrap());
    let address = deployment.gateway().unwrap();
    let frames = frames().into_iter().map(|(what, frames)| (what, h2(&frames)));
    for (count, (what, bytes)) in (1..).zip(frames.chain(messages())) {
        let before = deployment.program().unwrap().output();
        for _ in 0..TIMES {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The gateway may close before it has everything.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let _ = tokio::time::timeout(Duration::from_millis(20), stream.read_to_end(&mut Vec::new())).await;
        }
        // An honest client is served beside it, and by then what came before has been read.
        assert_eq!(deployment.ask(&request).await.unwrap().status, 200, "beside {what}");
        deployment.summary_of("honest", count).await.unwrap();
        let output = deployment.program().unwrap().output();
        let lines: Vec<&str> = output.lines().skip(before.lines().count()).collect();
        assert!(lines.is_empty(), "{what} writes {} lines, such as {:?}", lines.len(), lines.first());
    }
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}
