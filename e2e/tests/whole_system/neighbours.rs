//! An attacker beside honest tenants: who has no token takes neither the connections nor the descriptors that they need.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use goldleaves_e2e::account::{Unbilled, complaints};
use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::h2_wire::{self, HEADERS, WHOLE, frame};
use goldleaves_e2e::load::Receipt;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 33;
const STREAMS: usize = 128;
const UPSTREAM_CONNECTIONS_MAX: usize = 256;
/// The calls that one address may have open without a tenant: half of the connections to the upstream.
const PLACES: usize = UPSTREAM_CONNECTIONS_MAX / 2;
const CONNECTIONS_MAX: usize = 64;
/// The descriptors that the gateway keeps for itself, as docs/SETTINGS.md says.
const RESERVED: usize = 256;
const HONEST_CALLS: usize = 100;

/// Opens every stream at once, and counts the heads of answers until the connection ends.
async fn attack(gateway: SocketAddr, path: &str, answered: Arc<AtomicUsize>) -> Result<()> {
    let fields = h2_wire::head("GET", path, None);
    let mut bytes = h2_wire::preface(65_535);
    for stream in 0..u32::try_from(STREAMS)? {
        bytes.extend(frame(HEADERS, WHOLE, 2 * stream + 1, &fields));
    }
    let mut connection = TcpStream::connect(gateway).await?;
    connection.write_all(&bytes).await?;
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        connection.read_exact(&mut vec![0; usize::try_from(length)?]).await?;
        if head[3] == HEADERS {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn open_streams_without_a_token_leave_room_for_tenants(kind: Kind) {
    let upstream = Upstream::start(|received| match received.target().ends_with("held") {
        true => Answer::silence(),
        false => Answer::ok("hello"),
    });
    let upstream = upstream.await.unwrap();
    let mut deployment = Deployment::start_with(
        kind,
        &[
            ("UPSTREAM_URL", &upstream.url()),
            ("UPSTREAM_CONNECTIONS_MAX", &UPSTREAM_CONNECTIONS_MAX.to_string()),
            ("CONNECTIONS_MAX", &CONNECTIONS_MAX.to_string()),
        ],
    )
    .await
    .unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let mut attackers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (gateway, answered) = (deployment.gateway().unwrap(), Arc::clone(&answered));
        attackers.spawn(async move { attack(gateway, "/auth/held", answered).await });
    }

    let mut receipts = Vec::new();
    let mut most = 0;
    let folder = format!("/proc/{}/fd", deployment.program().unwrap().id());
    let mut honest = async |deployment: &Deployment| {
        for _ in 0..HONEST_CALLS {
            let number = receipts.len();
            let token = deployment.token(&format!("tenant-{}", number % 5)).unwrap();
            let request = Request::get("/api/v1/documents").header("X-Request-ID", &format!("honest-{number}"));
            let response = deployment.ask(&request.token(&token)).await.unwrap();
            assert_eq!(response.status, 200, "call {number}: {}", response.text());
            receipts.push(Receipt::of(&response).unwrap());
            most = most.max(std::fs::read_dir(&folder).unwrap().count());
        }
    };
    // While the attack begins, and when it has all that it gets.
    honest(&deployment).await;
    let refused = CONNECTIONS * STREAMS - PLACES;
    wait_for("refusals", PATIENCE, async || Ok((answered.load(Ordering::Relaxed) >= refused).then_some(())))
        .await
        .unwrap();
    honest(&deployment).await;
    assert_eq!(answered.load(Ordering::Relaxed), refused, "those that were let in wait for the upstream");
    let bound = UPSTREAM_CONNECTIONS_MAX + CONNECTIONS_MAX + RESERVED;
    assert!(most > PLACES && most <= bound, "{most} descriptors of {bound}");

    attackers.shutdown().await;
    // The gateway needs a moment to notice that they left; until then their address has no place for the summaries either.
    let free = async || {
        let health = deployment.ask(&Request::get("/billing/health")).await?;
        Ok((health.status == 200).then_some(()))
    };
    wait_for("places of the address", PATIENCE, free).await.unwrap();
    for tenant in 0..5_usize {
        let events = u64::try_from(receipts.len() / 5).unwrap();
        deployment.summary_of(&format!("tenant-{tenant}"), events).await.unwrap();
    }
    let contents = deployment.tables().await.unwrap().contents().await.unwrap();
    let served: Vec<String> =
        upstream.request_ids().into_iter().filter(|request| request.starts_with("honest-")).collect();
    assert_eq!(complaints(&contents, &receipts, &served, Unbilled::default()), Vec::<String>::new());
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

on_both!(open_streams_without_a_token_leave_room_for_tenants);
