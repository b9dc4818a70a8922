//! The memory and descriptors that clients cost who ask much and take nothing: a stated amount, however many they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::h2_wire::{HEADERS, WHOLE, frame, head, preface};
use goldleaves_e2e::process::own_memory_kib;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LONG_BYTES: usize = 20_000_000;
const STREAMS: u32 = 128;
/// The bytes that bodies may hold on their way, over all cores (docs/DEPLOYMENT.md, "Memory").
const BUFFERS_KIB_A_CORE: usize = 16 << 10;
/// The memory that a stream holds beside that; a program that is not optimised needs more for each call that waits.
const STREAM_KIB: usize = if cfg!(debug_assertions) { 72 } else { 32 };
/// The memory of a stream whose answer is short.
const SHORT_KIB: usize = if cfg!(debug_assertions) { 56 } else { 20 };
/// For what does not grow with streams: tokens, statistics, the allocator's own.
const BESIDES_KIB: usize = 16 << 10;
/// Descriptors that do not grow with connections: the spool, the database, listeners.
const BESIDES_DESCRIPTORS: usize = 256;
const HONEST_CALLS: u64 = 20;

/// Answers what ends in `long` with 20 MB and everything else with two bytes.
struct Generous {
    url: String,
    begun: Arc<AtomicUsize>,
}

impl Generous {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, begun) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&begun);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(give(stream, Arc::clone(&counted)));
            }
        });
        Self { url, begun }
    }

    /// Waits until so many answers have begun.
    async fn has_begun(&self, count: usize) {
        let begun = async || Ok((self.begun.load(Ordering::Relaxed) >= count).then_some(()));
        wait_for("answers", PATIENCE, begun).await.unwrap();
    }
}

async fn give(mut stream: TcpStream, begun: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    let piece = [b'x'; 16 << 10];
    while stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let is_long = request.windows(5).any(|word| word == b"long ");
        let length = if is_long { LONG_BYTES } else { 2 };
        request.clear();
        begun.fetch_add(1, Ordering::Relaxed);
        let mut left = length;
        let mut sent =
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await;
        while let (Ok(()), 1..) = (&sent, left) {
            let part = left.min(piece.len());
            left -= part;
            sent = stream.write_all(&piece[..part]).await;
        }
        if sent.is_err() {
            return;
        }
    }
}

/// The memory and descriptors that a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    kib: usize,
    descriptors: usize,
}

impl Held {
    /// Once it stands still.
    async fn by(deployment: &mut Deployment) -> Self {
        let process = deployment.program().unwrap().id();
        let mut last = 0_u64;
        let kib = wait_for("memory that stands still", PATIENCE, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let before = std::mem::replace(&mut last, own_memory_kib(process)?);
            Ok((last.abs_diff(before) < 256).then_some(last))
        });
        let kib = usize::try_from(kib.await.unwrap()).unwrap();
        Self { kib, descriptors: std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() }
    }
}

/// A connection with streams that take nothing: it is never read.
async fn streams(gateway: SocketAddr, window: u32, request: &[u8]) -> TcpStream {
    let heads = (0..STREAMS).flat_map(|stream| frame(HEADERS, WHOLE, 2 * stream + 1, request));
    let mut connection = TcpStream::connect(gateway).await.unwrap();
    connection.write_all(&[preface(window), heads.collect()].concat()).await.unwrap();
    connection
}

/// An attack, and what it may cost.
struct Attack {
    path: &'static str,
    /// Connections of h2, with 128 streams each.
    h2: usize,
    /// The bytes that each of their streams may be sent before it asks for more.
    window: u32,
    /// Connections of HTTP/1.1, with a call each.
    http1: usize,
    stream_kib: usize,
}

impl Attack {
    async fn stays_bounded(self) {
        let upstream = Generous::start().await;
        let settings = [("UPSTREAM_URL", upstream.url.as_str()), ("UPSTREAM_CONNECT_TIMEOUT_SECS", "60")];
        let mut deployment = Deployment::start_with(Kind::Embedded, &settings).await.unwrap();
        let gateway = deployment.gateway().unwrap();
        let honest = Request::get("/api/v1/documents/short").token(&deployment.token("honest").unwrap());
        for _ in 0..HONEST_CALLS {
            assert_eq!(deployment.ask(&honest).await.unwrap().status, 200);
        }
        let (before, begun) = (Held::by(&mut deployment).await, upstream.begun.load(Ordering::Relaxed));

        let tokens = ["greedy-1", "greedy-2"].map(|tenant| deployment.token(tenant).unwrap());
        let (mut kept, mut expected) = (Vec::new(), begun);
        for index in 0..self.h2 + self.http1 {
            let token = &tokens[index % tokens.len()];
            if index < self.h2 {
                kept.push(streams(gateway, self.window, &head("GET", self.path, Some(token))).await);
                expected += usize::try_from(STREAMS).unwrap();
            } else {
                let mut connection = TcpStream::connect(gateway).await.unwrap();
                connection.write_all(&Request::get(self.path).token(token).wire("a")).await.unwrap();
                kept.push(connection);
                expected += 1;
            }
            // One after the other: what a burst of connections costs is not what is looked at.
            upstream.has_begun(expected).await;
        }
        let streams = expected - begun;
        let during = Held::by(&mut deployment).await;

        let cores = std::thread::available_parallelism().unwrap().get();
        let allowed = cores * BUFFERS_KIB_A_CORE + streams * self.stream_kib + BESIDES_KIB;
        let more = during.kib.saturating_sub(before.kib);
        println!("{streams} streams hold {more} KiB of {allowed} KiB, and {} descriptors", during.descriptors);
        assert!(more <= allowed, "{streams} streams hold {more} KiB; {allowed} KiB are allowed");
        let descriptors = streams + kept.len() + BESIDES_DESCRIPTORS;
        assert!(during.descriptors <= descriptors, "{during:?} with {descriptors} allowed");
        for _ in 0..HONEST_CALLS {
            assert_eq!(deployment.ask(&honest).await.unwrap().status, 200);
        }
        deployment.summary_of("honest", 2 * HONEST_CALLS).await.unwrap();
        drop(kept);
        assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
    }
}

const LONG: &str = "/api/v1/documents/long";
const SHORT: &str = "/api/v1/documents/short";
const WIDE: u32 = 0x7fff_ffff;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_streams_that_ask_for_everything_and_read_nothing() {
    Attack { path: LONG, h2: 10, window: WIDE, http1: 0, stream_kib: STREAM_KIB }.stays_bounded().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_slow_readers_and_slow_downloads() {
    Attack { path: LONG, h2: 0, window: 0, http1: 1_000, stream_kib: STREAM_KIB }.stays_bounded().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_streams_with_a_closed_window() {
    Attack { path: SHORT, h2: 47, window: 0, http1: 0, stream_kib: SHORT_KIB }.stays_bounded().await;
}

/// A huge page is 2 MiB, however little of it is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_program_that_does_little_in_no_huge_pages() {
    let mut deployment = Deployment::start_with(Kind::Embedded, &[]).await.unwrap();
    let process = deployment.program().unwrap().id();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    // Kernels before 5.0 do not say.
    assert!(allowed.is_none_or(|allowed| allowed.trim() == "0"), "{status}");
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let huge = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    assert_eq!(huge.trim(), "0 kB", "{rollup}");
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}
