//! NATS or PostgreSQL away, or hung, at load: no request fails or waits, the gateway's memory stays flat, what gathers drains
//! faster than it came, and everything is billed once.
//!
//! Some seconds as a rule; with `GOLDLEAVES_SOAK=1` ten minutes each (or `GOLDLEAVES_OUTAGE_SECS`), and then the rates count
//! too: measure those with released programs (`GOLDLEAVES_BIN_DIR`).

use std::time::{Duration, Instant};

use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::{LoadAnswer, LoadPlan, SteadyLoad, latencies};
use goldleaves_e2e::process::own_memory_kib;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::Value;

use crate::chaos::{ACK_WAIT, judge};
use crate::soak;

const CLIENTS: usize = 4;
/// The memory that an allocator may keep or give back by itself.
const MEMORY_KIB: u64 = 16 * 1024;
/// The least factor by which a backlog drains faster than it came.
const DRAIN_TIMES: f64 = 5.0;
/// The longest that a program waits before it tries again what was away.
const BACKOFF: Duration = Duration::from_secs(15);

/// The server that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    NatsRefuses,
    NatsHangs,
    PostgresRefuses,
    PostgresHangs,
}

impl Away {
    async fn begin(self, fleet: &mut Fleet) {
        match self {
            Self::NatsRefuses => fleet.server(0).unwrap().kill().await.unwrap(),
            Self::NatsHangs => fleet.server(0).unwrap().suspend().unwrap(),
            Self::PostgresRefuses => fleet.postgres.kill().unwrap(),
            Self::PostgresHangs => fleet.postgres.pause().unwrap(),
        }
    }

    async fn end(self, fleet: &mut Fleet) {
        match self {
            Self::NatsRefuses => fleet.server(0).unwrap().restart().await.unwrap(),
            Self::NatsHangs => fleet.server(0).unwrap().resume().unwrap(),
            Self::PostgresRefuses => fleet.postgres.restart().await.unwrap(),
            Self::PostgresHangs => fleet.postgres.resume().unwrap(),
        }
    }

    /// Returns what has gathered before whatever is away: in the spool, or in the stream.
    async fn backlog(self, fleet: &Fleet) -> u64 {
        match self {
            Self::NatsRefuses | Self::NatsHangs => fleet.count("goldleaves_spool_unsent_records").await.unwrap(),
            Self::PostgresRefuses | Self::PostgresHangs => {
                let consumer = fleet.consumer().await.unwrap();
                let number = |name: &str| consumer.get(name).and_then(Value::as_u64).unwrap();
                number("num_pending") + number("num_ack_pending")
            }
        }
    }
}

/// Returns the time that each phase takes.
fn lengths() -> (Duration, Duration) {
    let wanted = std::env::var("GOLDLEAVES_OUTAGE_SECS").ok().and_then(|secs| secs.parse().ok());
    let (healthy, away) = if soak() { (15, wanted.unwrap_or(600)) } else { (1, 3) };
    (Duration::from_secs(healthy), Duration::from_secs(away))
}

/// The observations of an outage.
#[derive(Debug)]
struct Seen {
    away: [Instant; 2],
    /// The gateway's own memory: the most in the first and in the last third.
    memory_kib: [u64; 2],
    backlog: [u64; 2],
    /// The number handed on afterwards, and the time it took.
    drained: (u64, Duration),
}

async fn watch(fleet: &mut Fleet, away: Away, load: &SteadyLoad) -> Seen {
    let (healthy, lasts) = lengths();
    tokio::time::sleep(healthy).await;
    let before = away.backlog(fleet).await;
    let start = Instant::now();
    away.begin(fleet).await;
    let process = fleet.gateway().unwrap().id();
    let mut memory_kib = [0; 2];
    while start.elapsed() < lasts {
        let now = own_memory_kib(process).unwrap();
        match start.elapsed().as_secs_f64() / lasts.as_secs_f64() {
            part if part < 0.34 => memory_kib[0] = now.max(memory_kib[0]),
            part if part > 0.66 => memory_kib[1] = now.max(memory_kib[1]),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (gathered, end) = (away.backlog(fleet).await, Instant::now());
    away.end(fleet).await;
    let drained = drain(fleet, away, load, gathered).await;
    Seen { away: [start, end], memory_kib, backlog: [before, gathered], drained }
}

/// Returns the number handed on, and the time it took: from the first sign that the backlog shrinks until hardly any of
/// it is left.
async fn drain(fleet: &Fleet, away: Away, load: &SteadyLoad, gathered: u64) -> (u64, Duration) {
    let patience = Instant::now() + lengths().1.max(Duration::from_secs(60)) + 2 * BACKOFF;
    let (mut from, mut most, mut shrinks) = ((Instant::now(), load.finished()), gathered, false);
    loop {
        let backlog = away.backlog(fleet).await;
        shrinks |= backlog < most;
        if !shrinks {
            (from, most) = ((Instant::now(), load.finished()), backlog);
        }
        if backlog <= gathered / 20 {
            return (most + load.finished() - from.1 - backlog, from.0.elapsed());
        }
        assert!(Instant::now() < patience, "{away:?}: {backlog} of {gathered} are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn outage(away: Away) {
    let upstream = Upstream::start_keeping_ids(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    if !soak() {
        fleet.redeliver_after(ACK_WAIT).await.unwrap();
    }
    fleet.scale(2).await.unwrap();
    let token = fleet.token("acme").unwrap();
    let request = move |number: usize| {
        Request::get("/api/v1/documents").token(&token).header("X-Request-ID", &format!("outage-{number}"))
    };
    let plan = LoadPlan { clients: CLIENTS, pause: Duration::from_millis(8), requests: None };
    let load = SteadyLoad::start(fleet.address(), plan, request);
    let seen = watch(&mut fleet, away, &load).await;
    let asked = load.stop().await.unwrap();

    assess(away, &seen, &asked);
    fleet.relayed(lengths().1.max(Duration::from_secs(60))).await.unwrap();
    assert_eq!(fleet.stop_gateway().await.unwrap().code(), Some(0));
    fleet.recorded(Duration::from_secs(180)).await.unwrap();
    if soak() && matches!(away, Away::PostgresRefuses | Away::PostgresHangs) {
        let consumer = fleet.consumer().await.unwrap();
        let (deliveries, messages) = (&consumer["delivered"]["consumer_seq"], &consumer["delivered"]["stream_seq"]);
        assert_eq!(deliveries, messages, "what waits for the database is held, not delivered again: {consumer}");
    }
    judge(&fleet, &asked, &upstream, goldleaves_e2e::account::Unbilled::default()).await;
    fleet.scale(0).await.unwrap();
}

#[expect(clippy::cast_precision_loss, reason = "counts as rates")]
fn assess(away: Away, seen: &Seen, asked: &[LoadAnswer]) {
    let [start, end] = seen.away;
    let healthy = latencies(asked.iter().filter(|asked| asked.at + asked.took < start));
    let during: Vec<&LoadAnswer> = asked.iter().filter(|asked| asked.at >= start && asked.at < end).collect();
    let lasted = end - start;
    let came = during.len() as f64 / lasted.as_secs_f64();
    let drained = seen.drained.0 as f64 / seen.drained.1.as_secs_f64().max(0.001);
    let worse = latencies(during.iter().copied());
    println!(
        "{away:?} for {lasted:.0?}: {} requests, {came:.0} a second; drained at {drained:.0} a second",
        during.len()
    );
    println!("  median, p99, most: healthy {healthy:.1?}, away {worse:.1?}; {seen:?}");

    assert!(asked.iter().all(|asked| asked.broken.is_none()), "no request breaks");
    assert!(worse[0] <= 5 * healthy[0] + Duration::from_millis(50), "the median: {worse:?}, healthy {healthy:?}");
    assert!(worse[2] < lengths().1, "none waits for the end of it: {worse:?}");
    let [early, late] = seen.memory_kib;
    assert!(late <= early + MEMORY_KIB, "the gateway grew from {early} to {late} KiB");
    let [before, gathered] = seen.backlog;
    assert!(gathered > before && gathered as usize + 2_000 > during.len(), "what is served gathers: {seen:?}");
    if soak() {
        assert!(worse[1] <= 3 * healthy[1] + Duration::from_millis(20), "p99: {worse:?}, healthy {healthy:?}");
        assert!(drained >= DRAIN_TIMES * came, "drained at {drained:.0} a second, came at {came:.0}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_that_refuses_costs_no_request_anything() {
    outage(Away::NatsRefuses).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_that_hangs_costs_no_request_anything() {
    outage(Away::NatsHangs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_refuses_costs_no_request_anything() {
    outage(Away::PostgresRefuses).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_hangs_costs_no_request_anything() {
    outage(Away::PostgresHangs).await;
}
