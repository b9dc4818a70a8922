//! Each kind of attacker beside honest tenants: every honest call is answered, recorded and billed, whatever the others do.
//!
//! How much longer honest calls take beside each is measured in the long form, where a run without an attacker stands beside.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::h2_wire::{DATA, GET, HEAD, HEADERS, PING, RESET, WHOLE, frame, head, preface};
use goldleaves_e2e::load::{LoadAnswer, LoadPlan, SteadyLoad, latencies, receipts};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::soak;

const TENANTS: usize = 5;
/// Frames that an attacker sends before it lets others have the processor.
const BURST: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);
const HELD: &str = "/api/v1/documents/held";
const WIDE: u32 = 0x7fff_ffff;

/// The gateway under attack, and the tokens that attackers need.
#[derive(Clone)]
struct Target {
    gateway: SocketAddr,
    token: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    None,
    OpenStreams,
    SlowReaders,
    Descriptors,
    InterimFlood,
    ResetsAndPings,
    CutUploads,
    WithoutToken,
}

impl Attack {
    const ALL: [Self; 8] = [
        Self::None,
        Self::OpenStreams,
        Self::SlowReaders,
        Self::Descriptors,
        Self::InterimFlood,
        Self::ResetsAndPings,
        Self::CutUploads,
        Self::WithoutToken,
    ];

    /// One of the attackers, until it is stopped. What the gateway refuses or closes is begun again.
    async fn go_on(self, target: Target) {
        loop {
            let _ = match self {
                Self::None => return,
                Self::OpenStreams => held(&target, HELD, Some(&target.token)).await,
                Self::Descriptors => held(&target, "/auth/held", None).await,
                Self::SlowReaders => read_nothing(&target).await,
                Self::InterimFlood => ask(&target, "/api/v1/documents/interim").await,
                Self::ResetsAndPings => resets_and_pings(&target).await,
                Self::CutUploads => cut_upload(&target).await,
                Self::WithoutToken => without_token(&target).await,
            };
            tokio::time::sleep(PAUSE).await;
        }
    }

    const fn attackers(self) -> usize {
        match self {
            Self::None => 0,
            Self::InterimFlood => 2,
            Self::WithoutToken | Self::ResetsAndPings | Self::CutUploads => 4,
            Self::Descriptors | Self::OpenStreams => 16,
            Self::SlowReaders => 100,
        }
    }
}

/// Holds as many streams as a connection may have, none of which is ever answered.
async fn held(target: &Target, path: &str, token: Option<&str>) -> Result<()> {
    let fields = head("GET", path, token);
    let streams = (0..128).flat_map(|stream| frame(HEADERS, WHOLE, 2 * stream + 1, &fields));
    let mut connection = TcpStream::connect(target.gateway).await?;
    connection.write_all(&[preface(65_535), streams.collect()].concat()).await?;
    while connection.read(&mut [0; 4_096]).await? > 0 {}
    Ok(())
}

/// A long answer of which nothing is read.
async fn read_nothing(target: &Target) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    let mut connection = socket.connect(target.gateway).await?;
    connection.write_all(&Request::get("/api/v1/documents/long").token(&target.token).wire("a")).await?;
    std::future::pending::<()>().await;
    Ok(())
}

async fn ask(target: &Target, path: &str) -> Result<()> {
    let _ = Request::get(path).token(&target.token).send(target.gateway).await?;
    Ok(())
}

async fn resets_and_pings(target: &Target) -> Result<()> {
    let mut connection = TcpStream::connect(target.gateway).await?;
    connection.write_all(&preface(WIDE)).await?;
    for stream in (1..).step_by(2) {
        let mut bytes = frame(PING, u8::from(stream % 4 == 1), 0, b"nonsense");
        bytes.extend(frame(HEADERS, WHOLE, stream, GET));
        bytes.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
        connection.write_all(&bytes).await?;
        // What comes back is thrown away; the end of the connection ends this.
        let _ = connection.try_read(&mut [0; 4_096])?;
        if stream % BURST == 1 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// A request of which a part is sent.
async fn cut_upload(target: &Target) -> Result<()> {
    let head = format!(
        "POST /api/v1/documents HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 1000000\r\n\r\n",
        target.token
    );
    let mut connection = TcpStream::connect(target.gateway).await?;
    connection.write_all(&[head.into_bytes(), vec![b'x'; 64 << 10]].concat()).await?;
    let fields = self::head("POST", "/api/v1/documents", Some(&target.token));
    let upload = [preface(65_535), frame(HEADERS, HEAD, 1, &fields), frame(DATA, 0, 1, &[b'x'; 16 << 10])].concat();
    let mut other = TcpStream::connect(target.gateway).await?;
    Ok(other.write_all(&upload).await?)
}

async fn without_token(target: &Target) -> Result<()> {
    let mut connection = TcpStream::connect(target.gateway).await?;
    let request = Request::get("/api/v1/documents").wire("a").repeat(50);
    for _ in 0..20 {
        connection.write_all(&request).await?;
        let _ = connection.read(&mut [0; 16 << 10]).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn answer(received: &Received) -> Answer {
    match received.target().rsplit('/').next() {
        Some("held") => Answer::silence(),
        Some("long") => Answer::ok(vec![b'x'; 1 << 20]),
        Some("interim") => Answer::raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(50_000)),
        _ => Answer::ok("hello"),
    }
}

/// Honest calls beside an attack that has begun; all of them were answered.
async fn beside(attack: Attack, deployment: &Deployment, round: usize) -> Vec<LoadAnswer> {
    let (gateway, token) = (deployment.gateway().unwrap(), deployment.token("greedy").unwrap());
    let mut attackers = JoinSet::new();
    for _ in 0..attack.attackers() {
        attackers.spawn(attack.go_on(Target { gateway, token: token.clone() }));
    }
    let open = async || {
        let open = deployment.metric("goldleaves_connections_open").await?;
        Ok((open >= attack.attackers() as f64 / 2.0).then_some(()))
    };
    wait_for("attackers", PATIENCE, open).await.unwrap();
    let tokens: Vec<String> =
        (0..TENANTS).map(|tenant| deployment.token(&format!("honest-{tenant}")).unwrap()).collect();
    let plan = LoadPlan {
        clients: TENANTS,
        pause: Duration::from_millis(4),
        requests: Some(if soak() { 5_000 } else { 150 }),
    };
    let address = watch::channel(Some(gateway));
    let load = SteadyLoad::start(address.1, plan, move |number| {
        let id = format!("honest-{round}-{number}");
        Request::get("/api/v1/documents").token(&tokens[number % TENANTS]).header("X-Request-ID", &id)
    });
    let asked = load.done().await.unwrap();
    attackers.shutdown().await;
    asked
}

async fn honest_calls_are_answered_and_billed(kind: Kind) {
    let upstream = Upstream::start_keeping_ids(answer).await.unwrap();
    let mut deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let (mut all, mut alone) = (Vec::new(), Duration::ZERO);
    for (round, attack) in Attack::ALL.into_iter().enumerate() {
        let asked = beside(attack, &deployment, round).await;
        let broken = asked.iter().find(|asked| asked.broken.is_some());
        assert!(broken.is_none(), "beside {attack:?}: {broken:?}");
        let answered = receipts(&asked).unwrap();
        let without = answered.iter().find(|receipt| receipt.event_id.is_none());
        assert!(without.is_none(), "beside {attack:?}: {without:?}");
        let [p50, p99, most] = latencies(&asked);
        println!("beside {attack:?}: p50 {p50:?}, p99 {p99:?}, slowest {most:?}");
        if attack == Attack::None {
            alone = p99;
        }
        // Below that it is the load's own noise.
        let allowed = 2 * alone.max(Duration::from_millis(5));
        assert!(!soak() || p99 <= allowed, "beside {attack:?}: {p99:?} where {allowed:?} is allowed");
        all.extend(answered);
    }
    for tenant in 0..TENANTS {
        let events = u64::try_from(all.len() / TENANTS).unwrap();
        deployment.summary_of(&format!("honest-{tenant}"), events).await.unwrap();
    }
    let contents = deployment.tables().await.unwrap().contents().await.unwrap();
    let found = contents.occurrences();
    for receipt in &all {
        let event = receipt.event_id.as_deref().unwrap_or_default();
        assert_eq!(found.get(event), Some(&1), "{receipt:?}");
    }
    assert_eq!(deployment.metric("goldleaves_unrecorded_calls_total").await.unwrap(), 0.0);
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

on_both!(honest_calls_are_answered_and_billed);
