//! Settings that change while the programs serve: what is taken is taken whole, what is wrong changes nothing and is named,
//! and no call notices. The long form takes two hours in each deployment, since readings lie a second apart; `GOLDLEAVES_EDITS` says how many
//! edits, `GOLDLEAVES_CHAOS_SEED` which.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE, SECRET};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::token::{Claims, now_secs};
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::soak;

mod files;
mod others;

const PATH: &str = "/api/v1/documents";
const CLIENTS: usize = 3;

on_both!(
    random_edits_drop_no_call_and_bill_each_by_what_admitted_it,
    a_changed_file_is_taken_where_that_is_wanted,
    a_secret_in_a_file_of_its_own_is_taken_when_it_changes,
    what_is_known_of_an_address_outlives_a_reload,
);

/// A deployment that reads a file.
struct World {
    deployment: Deployment,
    file: PathBuf,
}

impl World {
    async fn start(kind: Kind, text: &str, settings: &[(&str, &str)]) -> Self {
        let mut deployment = Deployment::prepare(kind, settings).unwrap();
        let file = deployment.folder().join("settings.toml");
        std::fs::write(&file, text).unwrap();
        deployment.set("CONFIG_FILE", file.to_str().unwrap());
        deployment.start_again().await.unwrap();
        Self { deployment, file }
    }

    /// One whose secret is in a file of its own.
    async fn with_secret_file(kind: Kind, text: &str) -> (Self, PathBuf) {
        let mut deployment = Deployment::prepare(kind, &[]).unwrap();
        let (file, secret) = (deployment.folder().join("settings.toml"), deployment.folder().join("secret"));
        std::fs::write(&file, text).unwrap();
        std::fs::write(&secret, SECRET).unwrap();
        deployment.set("CONFIG_FILE", file.to_str().unwrap());
        deployment.set("JWT_SECRET", "");
        deployment.set("JWT_SECRET_FILE", secret.to_str().unwrap());
        deployment.start_again().await.unwrap();
        (Self { deployment, file }, secret)
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    fn hang_up(&mut self) {
        self.deployment.program().unwrap().signal(Signal::HUP).unwrap();
    }

    /// Returns how much the program has logged so far.
    fn said(&mut self) -> u64 {
        self.deployment.program().unwrap().logged()
    }

    /// Returns what it logged after that. Not all of it each time: a long test logs more than can be read again and again.
    fn said_since(&mut self, before: u64) -> String {
        self.deployment.program().unwrap().logged_since(before).unwrap()
    }

    /// Returns the numbers of readings that were taken and refused.
    async fn readings(&self) -> (u64, u64) {
        let ops = self.deployment.ops().unwrap();
        // A machine that has other work may keep a request waiting until nobody waits for it any more.
        let asked = wait_for("metrics", PATIENCE, async || Ok(Request::get("/metrics").send(ops).await.ok()));
        let text = asked.await.unwrap().text();
        let of = |result: &str| {
            let line = format!("goldleaves_config_reloads_total{{result=\"{result}\"}} ");
            text.lines().find_map(|shown| shown.strip_prefix(&line)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        (of("taken") as u64, of("refused") as u64)
    }

    /// Reads the file again; `true` when it was taken.
    async fn read_again(&mut self) -> bool {
        let before = self.readings().await;
        self.hang_up();
        let after = wait_for("a reading", PATIENCE, async || {
            let now = self.readings().await;
            Ok((now != before).then_some(now))
        });
        let after = after.await.unwrap();
        assert_eq!(after.0 + after.1, before.0 + before.1 + 1, "one signal, one reading");
        after.0 > before.0
    }
}

/// Says under which path it was asked; a stream drips for as long as any test takes.
fn answer(received: &Received) -> Answer {
    match received.target().ends_with("/stream") {
        true => Answer::chunked(vec![b"data: x\n\n".to_vec(); 20_000])
            .dripping(Duration::from_millis(500))
            .header("Content-Type", "text/event-stream"),
        false => Answer::ok(received.target().to_owned()),
    }
}

/// Switches protocols and sends everything back.
async fn echoing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                head(&mut stream).await;
                let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(switched.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    address
}

async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

/// The kinds of edit.
enum Edit {
    Valid(String),
    /// With the beginning of the line that names what is wrong.
    Wrong(String, &'static str),
}

/// The file of one moment: what is billed and where calls go both say its number.
fn settings(number: u32, upstream: &Upstream, tunnels: SocketAddr) -> String {
    format!(
        "[[upstreams]]\nname = \"docs\"\naddresses = [\"{}\"]\n[[upstreams]]\nname = \"ws\"\naddresses = [\"http://{tunnels}\"]\n\
         [[routes]]\npath = \"{PATH}\"\nupstream = \"docs\"\nbillable = true\nunits = \"{number}\"\nprefix = \"/g{number}\"\n\
         [[routes]]\npath = \"/api/v1/cases\"\nupstream = \"ws\"\nbillable = true\nunits = \"{number}\"\n",
        upstream.url(),
    )
}

fn edit(dice: &mut StdRng, whole: &str) -> Edit {
    let lines: [&str; 10] = [
        "",
        "[limits]\nrate_per_second = 1000000\n",
        "[limits]\nconnections_max = 500\nheader_fields_max = 200\n",
        "[limits]\ncalls_per_tenant_max = 300\nupstream_connections_max = 100\n",
        "[limits]\nupstream_connect_timeout_secs = 4\nbody_idle_timeout_secs = 50\nheaders_timeout_secs = 50\n",
        "[log]\nformat = \"json\"\n",
        "[log]\nlevel = \"debug\"\n",
        "[public]\nroutes = [\"/static\"]\n",
        "[event]\nclient_info = false\n",
        "[config]\nwatch_secs = 3600\n",
    ];
    let wrong: [(String, &str); 9] = [
        (whole.replace("prefix =", "prefx ="), "routes[0].prefx: is no key here"),
        (whole.replace("upstream = \"ws\"", "upstream = \"wss\""), "routes[1].upstream: "),
        (whole.replace("http://", "ftp://"), "upstreams[0].addresses[0]: "),
        (format!("{whole}[limits]\nconnections_max = 0\n"), "CONNECTIONS_MAX: "),
        (format!("{whole}[[routes]]\npath = \"/api/v1/cases\"\nupstream = \"docs\"\n"), "routes[2]"),
        (whole.get(..whole.len() - 3).unwrap().to_owned(), "settings.toml: is not TOML"),
        (format!("{whole}[spool]\nretain_hours = 23\n"), "SPOOL_RETAIN_HOURS: has changed, which takes a restart"),
        (format!("{whole}[meter]\ndurability = \"strict\"\n"), "METER_DURABILITY: has changed, which takes a restart"),
        (format!("{whole}[otel]\nservice_name = \"x\"\n"), "OTEL_SERVICE_NAME: has changed, which takes a restart"),
    ];
    if dice.random_bool(0.5) {
        return Edit::Valid(format!("{whole}{}", lines[dice.random_range(0..lines.len())]));
    }
    let (text, line) = &wrong[dice.random_range(0..wrong.len())];
    Edit::Wrong(text.clone(), line)
}

/// Asks on and on over one connection; the number that each call was answered under, by its id.
async fn ask_on(gateway: SocketAddr, client: usize, token: String, over: Arc<AtomicBool>) -> BTreeMap<String, u32> {
    let mut connection = Connection::open(gateway).await.unwrap();
    let mut seen = BTreeMap::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("c{client}-{number}");
        let request = Request::get(&format!("{PATH}/x")).token(&token).header("X-Request-ID", &id);
        let response = connection.ask(&request).await.unwrap();
        assert_eq!(response.status, 200, "{id}: {}", response.text());
        seen.insert(id, generation(&response.text()));
        // All that is billed is read at the end: a long test asks less often.
        tokio::time::sleep(Duration::from_millis(if soak() { 50 } else { 10 })).await;
    }
    seen
}

/// `7` of `/g7/x`.
fn generation(target: &str) -> u32 {
    target.trim_start_matches("/g").split('/').next().unwrap().parse().unwrap()
}

async fn random_edits_drop_no_call_and_bill_each_by_what_admitted_it(kind: Kind) {
    let wanted = std::env::var("GOLDLEAVES_EDITS").ok().and_then(|edits| edits.parse().ok());
    let edits = wanted.unwrap_or(if soak() { 5_000 } else { 60 });
    let seed = std::env::var("GOLDLEAVES_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("GOLDLEAVES_CHAOS_SEED={seed}, {edits} edits");
    let (upstream, tunnels) = (Upstream::start_keeping_ids(answer).await.unwrap(), echoing().await);
    // The long form is longer than calls and tokens are by default, with which its tunnel and its stream would end.
    let long = [("CALL_TIMEOUT_SECS", "86400")];
    let mut world = World::start(kind, &settings(1, &upstream, tunnels), &long).await;
    let token = Claims::new("acme", "ann").with("exp", (now_secs() + 86_400).into()).sign(SECRET).unwrap();
    let gateway = world.deployment.gateway().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(ask_on(gateway, client, token.clone(), Arc::clone(&over)));
    }
    // One tunnel and one event stream, from the first reading to the end.
    let mut tunnel = TcpStream::connect(gateway).await.unwrap();
    let upgrade = Request::get("/api/v1/cases/ws").token(&token).header("X-Request-ID", "tunnel");
    let upgrade = upgrade.header("Connection", "Upgrade").header("Upgrade", "websocket");
    tunnel.write_all(&upgrade.wire("a")).await.unwrap();
    assert!(head(&mut tunnel).await.starts_with("HTTP/1.1 101 "));
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let events = Request::get(&format!("{PATH}/stream")).token(&token).header("X-Request-ID", "stream");
    stream.write_all(&events.wire("a")).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));

    let mut dice = StdRng::seed_from_u64(seed);
    let (mut number, mut taken) = (1, 1);
    for turn in 0..edits {
        let (text, wrong) = match edit(&mut dice, &settings(number + 1, &upstream, tunnels)) {
            Edit::Valid(text) => (text, None),
            Edit::Wrong(text, line) => (text, Some(line)),
        };
        world.write(&text);
        let before = world.said();
        let was_taken = world.read_again().await;
        assert_eq!(was_taken, wrong.is_none(), "edit {turn}\n{text}\n{}", world.said_since(before));
        match wrong {
            None => (number, taken) = (number + 1, taken + 1),
            // Logs are written beside what they tell of.
            Some(line) => {
                let named =
                    wait_for(line, PATIENCE, async || Ok(world.said_since(before).contains(line).then_some(())));
                named.await.unwrap_or_else(|_| panic!("edit {turn}: {line} is not in\n{}", world.said_since(before)));
            }
        }
        let stale = world.deployment.metric("goldleaves_config_stale").await.unwrap();
        assert_eq!(stale > 0.0, wrong.is_some());
        assert_eq!(world.deployment.metric("goldleaves_config_generation").await.unwrap(), f64::from(taken));
        // A call that begins now is served by what was taken last, and what was open stays open.
        let response = world.deployment.ask(&Request::get(&format!("{PATH}/now")).token(&token)).await.unwrap();
        assert_eq!(response.text(), format!("/g{number}/now"), "edit {turn}");
        tunnel.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        tunnel.read_exact(&mut back).await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let mut expected = BTreeMap::from([("tunnel".to_owned(), 1), ("stream".to_owned(), 1)]);
    while let Some(seen) = clients.join_next().await {
        expected.extend(seen.unwrap());
    }
    assert!(world.deployment.metric("goldleaves_config_snapshots").await.unwrap() <= 3.0, "the first, and the last");
    drop((tunnel, stream));
    let tables = world.deployment.tables().await.unwrap();
    let count = expected.len() + edits;
    let contents = tables.wait("every call", |contents| contents.events.len() == count).await.unwrap();
    let billed: BTreeMap<&str, i64> =
        contents.events.iter().filter_map(|row| Some((row.client_request_id.as_deref()?, row.units_micro))).collect();
    for (id, number) in &expected {
        assert_eq!(billed.get(id.as_str()), Some(&(i64::from(*number) * 1_000_000)), "{id}");
    }
    assert_eq!((contents.duplicates.len(), contents.dead_letters.len()), (0, 0));
}

/// A secret that is not the one of the start, and a token that it verifies.
fn other_secret() -> (String, String) {
    let secret = SECRET.chars().rev().collect::<String>();
    let token = Claims::new("acme", "ann").sign(&secret).unwrap();
    (secret, token)
}

async fn a_changed_file_is_taken_where_that_is_wanted(kind: Kind) {
    let (upstream, tunnels) = (Upstream::start(answer).await.unwrap(), echoing().await);
    let watching = |number| settings(number, &upstream, tunnels) + "[config]\nwatch_secs = 0.2\n";
    let (mut world, secret) = World::with_secret_file(kind, &settings(1, &upstream, tunnels)).await;
    let (new_secret, token) = other_secret();
    let request = Request::get(&format!("{PATH}/x")).token(&token);
    // Nobody asked for it: a changed file alone changes nothing, also when something else that came later was taken. A signal
    // takes it.
    world.write(&watching(2));
    std::fs::write(&secret, &new_secret).unwrap();
    let answer = wait_for("the new secret", PATIENCE, async || {
        Ok(Some(world.deployment.ask(&request).await?).filter(|answer| answer.status == 200))
    });
    assert_eq!(answer.await.unwrap().text(), "/g1/x");
    assert!(world.read_again().await);
    assert_eq!(world.deployment.ask(&request).await.unwrap().text(), "/g2/x");
    let is_at = async |target: &str| {
        wait_for(target, PATIENCE, async || Ok((world.deployment.ask(&request).await?.text() == target).then_some(())))
            .await
            .unwrap();
    };
    world.write(&watching(3));
    is_at("/g3/x").await;
    // A file that is swapped in whole, as a symbolic link, is seen too.
    let other = world.file.with_extension("new");
    std::fs::write(&other, watching(4)).unwrap();
    let link = world.file.with_extension("link");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    std::fs::rename(&link, &world.file).unwrap();
    is_at("/g4/x").await;
    std::fs::remove_file(&world.file).unwrap();
    world.write(&settings(5, &upstream, tunnels));
    is_at("/g5/x").await;
    let (taken, refused) = world.readings().await;
    assert!(taken >= 4, "{taken} taken, {refused} refused");
}

async fn a_secret_in_a_file_of_its_own_is_taken_when_it_changes(kind: Kind) {
    let (upstream, tunnels) = (Upstream::start(answer).await.unwrap(), echoing().await);
    let (World { deployment, file }, secret) = World::with_secret_file(kind, &settings(1, &upstream, tunnels)).await;
    let (new_secret, new) = other_secret();
    let old = Claims::new("acme", "ann").sign(SECRET).unwrap();
    let status = async |path: &str, token: &str| deployment.ask(&Request::get(path).token(token)).await.unwrap().status;
    assert_eq!((status(PATH, &old).await, status(PATH, &new).await), (200, 401));
    // The file of settings changes meanwhile, too; nobody asked for that.
    std::fs::write(&file, settings(2, &upstream, tunnels)).unwrap();
    std::fs::write(&secret, &new_secret).unwrap();
    wait_for("the new secret", PATIENCE, async || Ok((status(PATH, &new).await == 200).then_some(()))).await.unwrap();
    assert_eq!(status(PATH, &old).await, 401);
    if kind == Kind::Embedded {
        assert_eq!(status("/billing/usage-summary/acme", &new).await, 200, "the billing API of the same process");
    }
    let answer = deployment.ask(&Request::get(PATH).token(&new)).await.unwrap();
    assert_eq!(answer.text(), "/g1", "the file as it was");
}

async fn what_is_known_of_an_address_outlives_a_reload(kind: Kind) {
    let upstream = Upstream::start(answer).await.unwrap();
    let dead = crate::contract_edge::free();
    let text = |timeout: u32| {
        format!(
            "[[upstreams]]\nname = \"docs\"\naddresses = [\"http://{dead}\", \"{}\"]\nconnect_timeout_secs = {timeout}\n\
             [[routes]]\npath = \"{PATH}\"\nupstream = \"docs\"\n",
            upstream.url()
        )
    };
    let mut world = World::start(kind, &text(5), &[]).await;
    let token = world.deployment.token("acme").unwrap();
    let state = async |world: &World| {
        let page = Request::get("/upstreams").send(world.deployment.ops().unwrap()).await.unwrap().json().unwrap();
        let docs = page.as_array().unwrap().iter().find(|upstream| upstream["name"] == "docs").unwrap().clone();
        let dead = docs["addresses"].as_array().unwrap().iter().find(|one| one["address"] == dead.to_string()).cloned();
        dead.unwrap()["state"].as_str().unwrap().to_owned()
    };
    wait_for("the dead address to be noticed", PATIENCE, async || {
        assert_eq!(world.deployment.ask(&Request::get(PATH).token(&token)).await?.status, 200);
        Ok((state(&world).await == "connect").then_some(()))
    })
    .await
    .unwrap();
    let failed = world.deployment.metric("goldleaves_upstream_ejections_total").await.unwrap();
    for timeout in [5, 4] {
        world.write(&text(timeout));
        assert!(world.read_again().await);
        assert_eq!(state(&world).await, "connect");
    }
    assert_eq!(world.deployment.metric("goldleaves_upstream_ejections_total").await.unwrap(), failed);
}
