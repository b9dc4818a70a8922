//! Several addresses of one upstream: which of them serve, and how often a call is sent, seen over wires.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{BILLABLE, Plan, World, token_of};

/// The time for which a state is waited for.
const LOOKS: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(10);

/// A gateway whose calls all go to the upstream `docs`.
async fn world(docs: Value) -> World {
    let routes = json!([{"path": "/api", "upstream": "docs"}]);
    Plan::with("UPSTREAMS", json!([docs])).and("ROUTES", routes).start_before("").await
}

async fn status(world: &World) -> u16 {
    world.send(Request::get(BILLABLE)).await.status
}

/// The sum of a counter of `docs` with this label.
fn counted(world: &World, name: &str, label: &str) -> f64 {
    let text = world.metrics.text();
    let samples = text.lines().filter(|line| line.starts_with(&format!("goldleaves_{name}{{")));
    let ours = samples.filter(|line| line.contains("upstream=\"docs\"") && line.contains(label));
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Asks until the state is there.
async fn ask_until(world: &World, what: &str, is_there: impl Fn() -> bool) {
    for _ in 0..LOOKS {
        if is_there() {
            return;
        }
        status(world).await;
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{what}: never");
}

fn calls(upstream: &Upstream) -> usize {
    upstream.served().iter().filter(|seen| seen.target() != "/healthz").count()
}

#[tokio::test]
async fn an_address_whose_health_check_fails_gets_no_call_until_it_passes() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&is_ill);
    let answer = move |seen: &Received| match seen.target() {
        "/healthz" if told.load(Ordering::Relaxed) => Answer::ok("ill").status(500),
        _ => Answer::ok("ok"),
    };
    let (well, ill) = (Upstream::start(|_| Answer::ok("ok")).await.unwrap(), Upstream::start(answer).await.unwrap());
    let health = json!({"path": "/healthz", "interval_secs": 0.05, "timeout_secs": 1, "fail": 2, "pass": 2});
    let world = world(json!({"name": "docs", "addresses": [well.url(), ill.url()], "health": health})).await;
    ask_until(&world, "out of service", || counted(&world, "upstream_ejections_total", "reason=\"health\"") > 0.0)
        .await;
    let (before, served) = (calls(&ill), calls(&well));
    for _ in 0..30 {
        assert_eq!(status(&world).await, 200);
    }
    assert_eq!((calls(&ill), calls(&well)), (before, served + 30), "all of them go elsewhere");
    is_ill.store(false, Ordering::Relaxed);
    ask_until(&world, "in service again", || calls(&ill) > before).await;
    let (seen, probes) = (ill.served(), ill.served().iter().filter(|seen| seen.target() == "/healthz").count());
    assert!(probes >= 4, "{probes} probes");
    let probe = seen.iter().find(|seen| seen.target() == "/healthz").unwrap();
    assert_eq!((probe.method(), probe.head.header("authorization")), ("GET", None));
    // A probe is nobody's call.
    let asked = calls(&well) + calls(&ill);
    assert_eq!(world.finish().await.len(), asked);
}

#[tokio::test]
async fn an_address_that_answers_badly_while_others_do_not_is_left_out() {
    let (good, bad) = (
        Upstream::start(|_| Answer::ok("ok")).await.unwrap(),
        Upstream::start(|_| Answer::ok("no").status(503)).await.unwrap(),
    );
    let world = world(json!({"name": "docs", "addresses": [good.url(), bad.url()]})).await;
    ask_until(&world, "out of service", || counted(&world, "upstream_ejections_total", "reason=\"answers\"") > 0.0)
        .await;
    let before = bad.served().len();
    for _ in 0..30 {
        assert_eq!(status(&world).await, 200);
    }
    assert_eq!(bad.served().len(), before);
    assert_eq!(counted(&world, "upstream_addresses", "state=\"answers\""), 1.0);
}

/// A client that sends its body slowly would take an address from all others, for as long as nobody asks it again.
#[tokio::test]
async fn a_slow_upload_does_not_make_its_address_slow() {
    let answer = |_: &Received| Answer::ok("ok").after(Duration::from_millis(50));
    let upstreams = [Upstream::start(answer).await.unwrap(), Upstream::start(answer).await.unwrap()];
    let world = world(json!({"name": "docs", "addresses": upstreams.each_ref().map(Upstream::url)})).await;
    let mut slow = world.connect().await;
    let authorization = format!("Authorization: Bearer {}", token_of(&Claims::new("acme", "ann")));
    let head = format!("POST {BILLABLE} HTTP/1.1\r\nHost: a\r\n{authorization}\r\nContent-Length: 10\r\n\r\n");
    slow.write(head.as_bytes()).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        slow.write(b"x").await.unwrap();
    }
    assert_eq!(slow.read("POST").await.unwrap().status, 200);
    let asked = upstreams.iter().find(|upstream| calls(upstream) == 1).unwrap();
    for _ in 0..10 {
        // So many at once that an address which is not much slower gets some of them.
        assert_eq!(join_all((0..30).map(|_| status(&world))).await, [200; 30]);
    }
    assert!(calls(asked) > 1, "its address was asked no more");
}

#[tokio::test]
async fn a_tenant_whose_calls_fail_everywhere_puts_no_address_out() {
    let answer = |seen: &Received| match seen.head.header("x-tenant-id") {
        Some("unlucky") => Answer::ok("no").status(503),
        _ => Answer::ok("ok"),
    };
    let upstreams = [Upstream::start(answer).await.unwrap(), Upstream::start(answer).await.unwrap()];
    let addresses = upstreams.each_ref().map(Upstream::url);
    let world = world(json!({"name": "docs", "addresses": addresses})).await;
    let unlucky = token_of(&Claims::new("unlucky", "ann"));
    for round in 0..30 {
        // Some at once, so that both addresses are asked, and each time in another order, so that each is asked by both tenants.
        let asked = (0..8).map(async |place| match (place + round) % 4 {
            0 => (200, status(&world).await),
            _ => (503, world.send_bare(Request::get(BILLABLE).token(&unlucky)).await.status),
        });
        let answers = join_all(asked).await;
        assert!(answers.iter().all(|(expected, status)| expected == status), "{answers:?}");
    }
    assert_eq!(counted(&world, "upstream_ejections_total", ""), 0.0);
    assert!(upstreams.iter().all(|upstream| upstream.served().len() > 10));
}

/// Answers the first request of a connection, and breaks off at the second without a word.
async fn forgetful(seen: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                head(&mut stream).await?;
                seen.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
                head(&mut stream).await?;
                seen.fetch_add(1, Ordering::Relaxed);
                std::io::Result::Ok(())
            });
        }
    });
    url
}

async fn head(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await?);
    }
    Ok(())
}

#[tokio::test]
async fn calls_are_sent_again_within_a_budget() {
    let seen = Arc::new(AtomicUsize::new(0));
    let url = forgetful(Arc::clone(&seen)).await;
    let world = world(json!({"name": "docs", "addresses": [url]})).await;
    let (mut asked, mut served) = (0, 0);
    while counted(&world, "upstream_retries_denied_total", "") == 0.0 {
        assert!(asked < 5_000, "everything was sent again");
        asked += 1;
        served += usize::from(status(&world).await == 200);
    }
    assert_eq!(served, asked - 1, "the one that was not sent again is told that it failed");
    let retried = counted(&world, "upstream_calls_retried_total", "reason=\"reused\"");
    assert!(retried >= 30.0, "{retried} of {asked}");
    // However often a call was sent, it is one event.
    assert!(seen.load(Ordering::Relaxed) > served);
    assert_eq!(world.finish().await.len(), served);
}
