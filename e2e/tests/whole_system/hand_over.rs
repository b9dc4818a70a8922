//! A gateway that gives its listening socket to the next one: the test plays the service manager of the two units in
//! docs/DEPLOYMENT.md.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::program::Program;
use goldleaves_testkit::upstream::{Answer, Upstream};
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::soak;

const CLIENTS: usize = 32;
const PATH: &str = "/api/v1/documents";

/// The sockets that the gateways of one run listen at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sockets {
    /// One, which is handed from each to the next.
    One,
    /// One each, on one address (`SO_REUSEPORT`): what waits in a queue goes with its socket.
    OneEach,
}

/// The answers and errors that clients saw.
#[derive(Default)]
struct Seen {
    answered: usize,
    broken: Vec<String>,
}

/// One connection after the other, a request over each, without a pause.
async fn ask_on(gateway: SocketAddr, token: String, over: Arc<AtomicBool>) -> Seen {
    let request = Request::get(PATH).token(&token).header("Connection", "close");
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        match request.send(gateway).await {
            Ok(response) if response.status == 200 => seen.answered += 1,
            Ok(response) => seen.broken.push(format!("{} {}", response.status, response.text())),
            Err(error) => seen.broken.push(format!("{error:#}")),
        }
    }
    seen
}

fn shared(address: SocketAddr) -> Arc<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(1_024).unwrap();
    Arc::new(socket.into())
}

/// A gateway with a folder of its own, once it is ready.
async fn start(deployment: &Deployment, number: usize, socket: Arc<TcpListener>) -> Program {
    let data = deployment.folder().join(format!("gateway-{number}"));
    let launch = deployment.another("gateway").setting("DATA_DIR", data.to_str().unwrap());
    let address = socket.local_addr().unwrap().to_string();
    // To finish what is in flight and hand over what is recorded may take a minute; with much other work on the machine, longer.
    let launch = launch.setting("GATEWAY_ADDR", address).socket(socket).patient(PATIENCE * 5);
    let mut program = launch.start().unwrap();
    let ops = program.address("ops on").await.unwrap();
    wait_for("ready", PATIENCE, async || {
        let ready = Request::get("/health/ready").send(ops).await;
        Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
    })
    .await
    .unwrap();
    program
}

/// Stops one, and hands over what it may have left in its spool.
async fn stop(deployment: &Deployment, number: usize, mut program: Program) {
    program.signal(Signal::TERM).unwrap();
    let code = program.wait().await.unwrap().code();
    assert!(matches!(code, Some(0 | 75)), "{code:?}\n{}", program.output());
    let data = deployment.folder().join(format!("gateway-{number}"));
    let relay = deployment.command().setting("DATA_DIR", data.to_str().unwrap()).argument("spool").argument("relay");
    let relayed = relay.output().unwrap();
    let said = String::from_utf8_lossy(&relayed.stdout);
    assert!(relayed.status.success(), "{said}{}", String::from_utf8_lossy(&relayed.stderr));
    assert!(said.contains("the spool is empty"), "{said}");
}

/// Upgrades so many times under clients that never wait; what they saw, and how many events the ledger has then.
async fn upgrades(rounds: usize, sockets: Sockets) -> (Seen, Deployment) {
    let upstream = Upstream::start_keeping_ids(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(Kind::Distributed, &upstream.url()).await.unwrap();
    let mut socket = shared(crate::contract_edge::free());
    let (address, token) = (socket.local_addr().unwrap(), deployment.token("acme").unwrap());
    let mut running = start(&deployment, 0, Arc::clone(&socket)).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(ask_on(address, token.clone(), Arc::clone(&over)));
    }
    for number in 1..=rounds {
        if sockets == Sockets::OneEach {
            // The one before is closed with the gateway that has it.
            socket = shared(address);
        }
        let next = start(&deployment, number, Arc::clone(&socket)).await;
        stop(&deployment, number - 1, std::mem::replace(&mut running, next)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let Seen { answered, broken } = seen.unwrap();
        all.answered += answered;
        all.broken.extend(broken);
    }
    stop(&deployment, rounds, running).await;
    (all, deployment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_over_one_socket_cost_no_client_an_answer() {
    let rounds = if soak() { 50 } else { 4 };
    let (seen, deployment) = upgrades(rounds, Sockets::One).await;
    assert_eq!(seen.broken, Vec::<String>::new(), "{} were answered", seen.answered);
    assert!(seen.answered > rounds * CLIENTS, "{} were answered", seen.answered);
    let tables = deployment.tables().await.unwrap();
    let contents = tables.wait("every call", |contents| contents.events.len() == seen.answered).await.unwrap();
    assert_eq!((contents.duplicates.len(), contents.dead_letters.len()), (0, 0));
}

/// The control: it shows that the clients of the test above would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_over_a_socket_each_do_cost_answers() {
    let mut answered = 0;
    // A stop costs something only where it meets a connection that nobody has accepted.
    for _ in 0..20 {
        let (seen, _deployment) = upgrades(6, Sockets::OneEach).await;
        if !seen.broken.is_empty() {
            return;
        }
        answered += seen.answered;
    }
    panic!("none of {answered} was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_listening_socket_ends_the_start_and_is_named() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::prepare(Kind::Embedded, &[("UPSTREAM_URL", &upstream.url())]).unwrap();
    // A socket that is bound and does not listen.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let mut program = deployment.launch().socket(Arc::new(socket.into())).start().unwrap();
    assert_eq!(program.wait().await.unwrap().code(), Some(70));
    let said = program.stderr();
    assert!(said.contains("LISTEN_FDS: socket 0 (gateway) is no listening TCP socket"), "{said}");
}

/// Lets what is left be handed over for so many seconds; the exit code, and what was said.
fn relay(deployment: &Deployment, secs: &str) -> (Option<i32>, String) {
    let command = deployment.command().argument("spool").argument("relay").argument("--timeout-secs").argument(secs);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), said.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_handed_over_in_time_is_counted_and_stays() {
    let upstream = Upstream::start_keeping_ids(|_| Answer::ok("hello")).await.unwrap();
    let mut deployment = Deployment::start(Kind::Distributed, &upstream.url()).await.unwrap();
    let token = deployment.token("acme").unwrap();
    // No broker from here on; what is recorded stays in the spool.
    deployment.kill_nats().await.unwrap();
    for _ in 0..5 {
        assert_eq!(deployment.ask(&Request::get(PATH).token(&token)).await.unwrap().status, 200);
    }
    deployment.kill().await.unwrap();
    for _ in 0..2 {
        let (code, said) = relay(&deployment, "1");
        assert_eq!(code, Some(75), "{said}");
        let left =
            said.lines().find_map(|line| line.split_once("relay: ")?.1.split_once(" records are left in the spool"));
        let left: u32 = left.unwrap_or_else(|| panic!("{said}")).0.parse().unwrap();
        assert!(left >= 5, "{said}");
    }
    deployment.restart_nats().await.unwrap();
    let (code, said) = relay(&deployment, "60");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the spool is empty"), "{said}");
    deployment.start_again().await.unwrap();
    let tables = deployment.tables().await.unwrap();
    let contents = tables.wait("every call", |contents| contents.events.len() == 5).await.unwrap();
    assert_eq!((contents.duplicates.len(), contents.dead_letters.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_sockets_and_makes_no_sense_is_logged() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::prepare(Kind::Embedded, &[("UPSTREAM_URL", &upstream.url())]).unwrap();
    for (number, (count, process, said)) in [
        ("1", "1", "LISTEN_PID is 1, another process: the sockets of LISTEN_FDS are not this one's; listening at the addresses"),
        ("1", "none", "LISTEN_PID is \"none\", which is the id of no process: no socket is taken; listening"),
        ("1", "", "LISTEN_FDS is set, and LISTEN_PID is not: no socket is taken"),
        ("", "1", "LISTEN_PID is set, and LISTEN_FDS is not: no socket is taken"),
    ]
    .into_iter()
    .enumerate()
    {
        let data = deployment.folder().join(format!("data-{number}"));
        let launch = deployment.launch().setting("LISTEN_FDS", count).setting("LISTEN_PID", process);
        let mut program = launch.setting("DATA_DIR", data).start().unwrap();
        let plain = |text: &str| (text.replace('\\', "").matches(said).count() == 1).then_some(());
        program.printed(said, plain).await.unwrap();
        let gateway = program.address("gateway listens on").await.unwrap();
        assert_eq!(Request::get("/health").send(gateway).await.unwrap().status, 200, "it serves all the same");
    }
}
