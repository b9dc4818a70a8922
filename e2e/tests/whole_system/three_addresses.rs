//! An upstream of three addresses, of which one dies, one is ten times slower and one fails for a single tenant: clients notice
//! none of it, nothing that changes something is done twice, and every call is billed once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use serde_json::json;
use tokio::task::JoinSet;

use crate::soak;

on_both!(clients_notice_nothing);

const PATH: &str = "/api/v1/documents";
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(200);

/// The course of one client's calls.
#[derive(Default)]
struct Went {
    /// Ids of all calls.
    ids: Vec<String>,
    /// Ids of calls that were answered with 200.
    billed: Vec<String>,
    refused: usize,
    /// In words.
    broken: Vec<String>,
    /// The time that each call took.
    took: Vec<Duration>,
}

/// An upstream that can be killed with every connection that it has.
struct Mortal {
    runtime: tokio::runtime::Runtime,
    upstream: Upstream,
}

impl Mortal {
    async fn start(answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let upstream = runtime.spawn(Upstream::start_keeping_ids(answer)).await.unwrap().unwrap();
        Self { runtime, upstream }
    }

    /// Kills it; the ids of the requests that it saw.
    fn kill(self) -> Vec<String> {
        self.runtime.shutdown_background();
        self.upstream.request_ids()
    }
}

async fn ask_on(gateway: SocketAddr, method: &'static str, token: String, over: Arc<AtomicBool>) -> Went {
    let mut connection = Connection::open(gateway).await.unwrap();
    let mut went = Went::default();
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let response = connection.ask(&Request::new(method, PATH).token(&token)).await.unwrap();
        went.took.push(asked.elapsed());
        let id = response.header("x-request-id").unwrap().to_owned();
        went.ids.push(id.clone());
        match response.status {
            200 => went.billed.push(id),
            503 => went.refused += 1,
            status => went.broken.push(format!("{status} {}", response.text())),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    went
}

/// The time within which 99 of 100 of these calls were answered.
fn p99(clients: &[Went]) -> Duration {
    let mut took: Vec<Duration> = clients.iter().flat_map(|went| went.took.iter().copied()).collect();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

/// Returns how long as many clients wait for three addresses of which none has any trouble.
async fn healthy_p99(kind: Kind) -> Duration {
    let quick = |_: &Received| Answer::ok("hello").after(QUICK);
    let three = futures_util::future::join_all((0..3).map(|_| Upstream::start_keeping_ids(quick))).await;
    let addresses: Vec<String> = three.iter().map(|one| one.as_ref().unwrap().url()).collect();
    let upstreams = json!([{"name": "docs", "addresses": addresses}]).to_string();
    let routes = json!([{"path": "/api", "upstream": "docs"}]).to_string();
    let deployment = Deployment::start_with(kind, &[("UPSTREAMS", &upstreams), ("ROUTES", &routes)]).await.unwrap();
    let (gateway, over) = (deployment.gateway().unwrap(), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..48 {
        clients.spawn(ask_on(gateway, "GET", deployment.token("acme").unwrap(), Arc::clone(&over)));
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    over.store(true, Ordering::Relaxed);
    p99(&clients.join_all().await)
}

async fn clients_notice_nothing(kind: Kind) {
    let healthy = if soak() { Some(healthy_p99(kind).await) } else { None };
    let doomed = Mortal::start(|_| Answer::ok("hello").after(QUICK)).await;
    let slow = Upstream::start_keeping_ids(|_| Answer::ok("hello").after(SLOW)).await.unwrap();
    let partial = Upstream::start_keeping_ids(|seen| match seen.head.header("x-tenant-id") {
        Some("unlucky") => Answer::ok("no").status(503).after(QUICK),
        _ => Answer::ok("hello").after(QUICK),
    });
    let partial = partial.await.unwrap();
    let addresses = [doomed.upstream.url(), slow.url(), partial.url()];
    let upstreams = json!([{"name": "docs", "addresses": addresses}]).to_string();
    let routes = json!([{"path": "/api", "upstream": "docs"}]).to_string();
    let deployment = Deployment::start_with(kind, &[("UPSTREAMS", &upstreams), ("ROUTES", &routes)]).await.unwrap();
    let gateway = deployment.gateway().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ask = |clients: &mut JoinSet<Went>, tenant: &str, method| {
        clients.spawn(ask_on(gateway, method, deployment.token(tenant).unwrap(), Arc::clone(&over)));
    };
    let (mut reading, mut writing, mut unlucky) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    // The long form asks more than 1,000 times per second, where the machine can.
    let times = if soak() { 4 } else { 1 };
    for _ in 0..8 * times {
        ask(&mut reading, "acme", "GET");
    }
    for _ in 0..2 * times {
        ask(&mut writing, "writer", "POST");
        ask(&mut unlucky, "unlucky", "GET");
    }
    let calls = async || deployment.metric("goldleaves_upstream_calls_total").await;
    let more = if soak() { 60_000.0 } else { 1_500.0 };
    let go_on = async |more: f64| {
        let until = calls().await.unwrap() + more;
        let soon = if soak() { PATIENCE * 20 } else { PATIENCE };
        wait_for("calls", soon, async || Ok((calls().await? >= until).then_some(()))).await.unwrap();
    };
    go_on(more).await;
    let (quick_share, slow_share) = (partial.request_ids().len(), slow.request_ids().len());
    assert!(slow_share * 2 < quick_share, "the slow one got {slow_share}, a quick one {quick_share}");
    let mut seen = doomed.kill();
    go_on(more).await;
    over.store(true, Ordering::Relaxed);

    let (reading, writing, unlucky) = (reading.join_all().await, writing.join_all().await, unlucky.join_all().await);
    if let Some(healthy) = healthy {
        println!("99 of 100 calls took {:?}, and {healthy:?} where nothing is wrong", p99(&reading));
    }
    for went in reading.iter().chain(&unlucky) {
        assert!(went.broken.is_empty(), "{:?}", went.broken);
    }
    let broken_posts: usize = writing.iter().map(|went| went.broken.len()).sum();
    // What was under way at a connection that died may have been done, and is not done again.
    assert!(broken_posts <= 2 * times, "one for each client that wrote");
    let refused = |clients: &[Went]| clients.iter().map(|went| went.refused).sum::<usize>();
    assert_eq!((refused(&reading), refused(&writing)), (0, 0));
    assert!(refused(&unlucky) > 0, "one tenant's calls fail at one address");
    let text = Request::get("/metrics").send(deployment.ops().unwrap()).await.unwrap().text();
    assert!(text.contains("upstream_ejections_total{upstream=\"docs\",reason=\"connect\"} "), "{text}");
    assert_eq!(goldleaves_e2e::metrics::sum(&text, "goldleaves_upstream_retries_denied_total"), 0.0);

    seen.extend(slow.request_ids().into_iter().chain(partial.request_ids()));
    for id in writing.iter().flat_map(|went| &went.ids) {
        assert!(seen.iter().filter(|other| *other == id).count() <= 1, "{id} was sent twice");
    }
    let all = reading.into_iter().chain(writing).chain(unlucky);
    let billed: BTreeSet<String> = all.flat_map(|went| went.billed).collect();
    let tables = deployment.tables().await.unwrap();
    let contents = tables.wait("every call", |contents| contents.events.len() == billed.len()).await.unwrap();
    assert_eq!((contents.duplicates.len(), contents.dead_letters.len()), (0, 0));
}
