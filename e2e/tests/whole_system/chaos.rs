//! Everything dies, hangs and is cut off under load, at random: what was served is recorded once, whatever it was.
//!
//! Each fault once as a rule; `GOLDLEAVES_SOAK=1` goes on until 100,000 requests (or `GOLDLEAVES_SOAK_REQUESTS`) are
//! answered.

use std::time::{Duration, Instant};

use goldleaves_e2e::account::{self, Unbilled};
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::{LoadAnswer, LoadPlan, SteadyLoad, receipts};
use goldleaves_e2e::tables::TableContents;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use crate::soak;

/// The longest time that servers that are well again may take to let everything through.
const RECOVERY: Duration = Duration::from_secs(180);
/// In place of production's minute, so that a run of seconds sees redelivery.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(2);

/// The faults, each with its victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillGateway,
    KillWorker,
    /// All of them, while what they have in hand waits for the database.
    KillWorkersInABatch,
    KillNats,
    KillPostgres,
    HangNats,
    HangPostgres,
    CutGatewayFromNats,
    CutWorkersFromNats,
    CutWorkersFromPostgres,
    StallGatewayFromNats,
    StallWorkersFromNats,
    StallWorkersFromPostgres,
    Scale(usize),
}

const FAULTS: [Fault; 16] = [
    Fault::Scale(4),
    Fault::KillGateway,
    Fault::KillWorker,
    Fault::KillWorkersInABatch,
    Fault::KillNats,
    Fault::KillPostgres,
    Fault::HangNats,
    Fault::HangPostgres,
    Fault::CutGatewayFromNats,
    Fault::CutWorkersFromNats,
    Fault::CutWorkersFromPostgres,
    Fault::StallGatewayFromNats,
    Fault::StallWorkersFromNats,
    Fault::StallWorkersFromPostgres,
    Fault::KillGateway,
    Fault::Scale(2),
];

/// Every kind of end a response of the upstream can have here, all of them 2xx.
pub(crate) fn answer(received: &Received) -> Answer {
    match received.target().rsplit('/').next() {
        Some("chunked") => Answer::chunked([b"one".to_vec(), b"two".to_vec()]),
        Some("trailers") => Answer::chunked([b"one".to_vec()]).trailer("X-Usage-Units", "2"),
        Some("empty") => Answer::head_only(204),
        Some("drip") => Answer::chunked(vec![b"x".to_vec(); 4]).dripping(Duration::from_millis(5)),
        Some("large") => Answer::ok(vec![b'x'; 100_000]),
        _ => Answer::ok("hello"),
    }
}

pub(crate) const KINDS: [&str; 6] = ["length", "chunked", "trailers", "empty", "drip", "large"];

/// The n-th request; one in fifty is asked twice under one id, by two clients.
fn request(tokens: &[String; 2], number: usize) -> Request {
    let number = if number % 50 == 49 { number - 10 } else { number };
    let [kind, token] = [KINDS[number % KINDS.len()], &tokens[number % 2]];
    let target = format!("/api/v1/documents/{kind}");
    Request::get(&target).token(token).header("X-Request-ID", &format!("chaos-{number}"))
}

/// Does something to the fleet and undoes it after a moment.
async fn inflict(fleet: &mut Fleet, fault: Fault, lasts: Duration, random: &mut StdRng) {
    let rest = tokio::time::sleep(lasts);
    match fault {
        Fault::KillGateway => {
            fleet.kill_gateway().unwrap();
            fleet.start_gateway().await.unwrap();
        }
        Fault::KillWorker => {
            fleet.kill_worker(random.random_range(0..fleet.workers())).unwrap();
            fleet.start_worker().await.unwrap();
        }
        Fault::KillWorkersInABatch => {
            fleet.wires.worker_postgres.stall();
            rest.await;
            let workers = fleet.workers();
            (0..workers).for_each(|_| fleet.kill_worker(0).unwrap());
            fleet.wires.worker_postgres.mend();
            fleet.scale(workers).await.unwrap();
        }
        Fault::KillNats => {
            fleet.server(0).unwrap().kill().await.unwrap();
            rest.await;
            fleet.server(0).unwrap().restart().await.unwrap();
        }
        Fault::KillPostgres => {
            fleet.postgres.kill().unwrap();
            rest.await;
            fleet.postgres.restart().await.unwrap();
        }
        Fault::HangNats => {
            fleet.server(0).unwrap().suspend().unwrap();
            rest.await;
            fleet.server(0).unwrap().resume().unwrap();
        }
        Fault::HangPostgres => {
            fleet.postgres.pause().unwrap();
            rest.await;
            fleet.postgres.resume().unwrap();
        }
        Fault::Scale(workers) => fleet.scale(workers).await.unwrap(),
        Fault::CutGatewayFromNats | Fault::CutWorkersFromNats | Fault::CutWorkersFromPostgres => {
            wire(fleet, fault).cut();
            rest.await;
            wire(fleet, fault).mend();
        }
        Fault::StallGatewayFromNats | Fault::StallWorkersFromNats | Fault::StallWorkersFromPostgres => {
            wire(fleet, fault).stall();
            rest.await;
            wire(fleet, fault).mend();
        }
    }
}

fn wire(fleet: &Fleet, fault: Fault) -> &goldleaves_testkit::proxy::WireProxy {
    match fault {
        Fault::CutGatewayFromNats | Fault::StallGatewayFromNats => &fleet.wires.gateway_nats,
        Fault::CutWorkersFromNats | Fault::StallWorkersFromNats => &fleet.wires.worker_nats,
        _ => &fleet.wires.worker_postgres,
    }
}

/// Reads what the gateway's numbers add to the account; they end with it, so they are read before it is killed.
pub(crate) async fn unbilled(fleet: &Fleet) -> Unbilled {
    let count = async |name| fleet.count(name).await.unwrap();
    let void = count("goldleaves_voided_calls_total").await;
    Unbilled { void, retries: count("goldleaves_upstream_retries_total").await, unrecorded: 0 }
}

/// Faults, one after the other, while the load runs. How many, and what the gateways said before they died.
async fn rage(fleet: &mut Fleet, load: &SteadyLoad, random: &mut StdRng, requests: u64) -> (usize, Unbilled) {
    let (mut count, mut said) = (0, Unbilled::default());
    let mut faults = FAULTS.to_vec();
    // The first scales up and the last down; what lies between comes in any order.
    faults[1..FAULTS.len() - 1].shuffle(random);
    while !faults.is_empty() || (soak() && load.finished() < requests) {
        let fault = if faults.is_empty() { *FAULTS.choose(random).unwrap() } else { faults.remove(0) };
        let lasts = Duration::from_millis(random.random_range(50..if soak() { 6_000 } else { 700 }));
        if fault == Fault::KillGateway {
            said += unbilled(fleet).await;
        }
        let before = load.finished();
        inflict(fleet, fault, lasts, random).await;
        count += 1;
        // Each fault meets requests: the gateway serves whatever else is away.
        let some = before + if soak() { 100 } else { 10 };
        let enough = some.min(requests);
        wait_for("requests during a fault", RECOVERY, async || Ok((load.finished() >= enough).then_some(())))
            .await
            .unwrap_or_else(|error| panic!("after {fault:?}: {error:#}"));
    }
    (count, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_under_load_lose_and_double_nothing() {
    let seed = std::env::var("GOLDLEAVES_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("GOLDLEAVES_CHAOS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let upstream = Upstream::start_keeping_ids(answer).await.unwrap();
    let nats = vec![NatsServer::start().await.unwrap()];
    let mut fleet = Fleet::start(nats, &upstream.url()).await.unwrap();
    if !soak() {
        fleet.redeliver_after(ACK_WAIT).await.unwrap();
    }
    let tokens = [fleet.token("acme").unwrap(), fleet.token("zeta").unwrap()];
    let wanted = std::env::var("GOLDLEAVES_SOAK_REQUESTS").ok().and_then(|count| count.parse().ok());
    let requests = if soak() { wanted.unwrap_or(100_000) } else { 600 };
    let plan = LoadPlan {
        clients: if soak() { 16 } else { 4 },
        pause: Duration::from_millis(if soak() { 40 } else { 60 }),
        requests: soak().then_some(requests),
    };
    let start = Instant::now();
    let load = SteadyLoad::start(fleet.address(), plan, move |number| request(&tokens, number));
    let (faults, mut said) = rage(&mut fleet, &load, &mut random, requests as u64).await;
    let asked = if soak() { load.done().await } else { load.stop().await }.unwrap();
    let served_secs = start.elapsed().as_secs();

    fleet.relayed(RECOVERY).await.unwrap();
    said += unbilled(&fleet).await;
    assert_eq!(fleet.stop_gateway().await.unwrap().code(), Some(0));
    fleet.recorded(RECOVERY).await.unwrap();
    println!("{faults} faults in {served_secs} s, all recorded after {} s, {said:?}", start.elapsed().as_secs());
    let contents = judge(&fleet, &asked, &upstream, said).await;
    assert!(!contents.duplicates.is_empty(), "some ids were used twice");
    fleet.scale(0).await.unwrap();
}

/// Compares what clients read, what the upstream served and what the ledger holds, both ways, and receipts with seals.
pub(crate) async fn judge(fleet: &Fleet, asked: &[LoadAnswer], upstream: &Upstream, said: Unbilled) -> TableContents {
    let tables = fleet.tables().await.unwrap();
    let contents = tables.contents().await.unwrap();
    let (receipts, served) = (receipts(asked).unwrap(), upstream.request_ids());
    println!(
        "{} responses read, {} broken, {} served by the upstream, {} billed, {} repeats, {} set aside",
        receipts.len(),
        asked.len() - receipts.len(),
        served.len(),
        contents.events.len(),
        contents.duplicates.len(),
        contents.dead_letters.len()
    );
    let complaints = account::complaints(&contents, &receipts, &served, said);
    assert!(complaints.is_empty(), "{} complaints: {:#?}", complaints.len(), &complaints[..complaints.len().min(20)]);
    assert!(contents.dead_letters.iter().all(|letter| letter.reason == "unknown"), "{:?}", contents.dead_letters);
    assert_eq!(tables.disagreements().await.unwrap(), Vec::<String>::new(), "what was sealed is what was received");
    contents
}
