//! The programs under callgrind, each given what the one before it left: spool, stream, ledger.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_record::spool_directory;
use goldleaves_spool::inspect;
use goldleaves_stream::{ConnectSettings, Connection, Lag, Topology};
use goldleaves_testkit::callgrind::Callgrind;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use rustix::process::Signal;

use crate::{Arguments, spooled};

/// The time that a program may take that callgrind runs.
const LIMIT: Duration = Duration::from_secs(1_200);
/// Between two looks at a spool or a stream.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SECRET: &str = "a-secret-for-counting-of-enough-bytes-0123456789";
pub(crate) const TOPOLOGY: Topology =
    Topology { replicas: 1, bytes_max: 32 << 30, bytes_min: 1 << 30, history: Duration::from_secs(86_400) };

/// A program that events pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Counts {
    /// `gateway`: its relay and publisher, from the spool into the stream.
    Gateway,
    /// `meter-worker`, from the stream into PostgreSQL.
    Worker,
    /// `goldleaves`, from the spool into SQLite.
    One,
}

impl Counts {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway: spool to stream",
            Self::Worker => "meter-worker: stream to PostgreSQL",
            Self::One => "goldleaves: spool to SQLite",
        }
    }
}

/// Instructions of a whole process.
#[derive(Debug, Clone, Copy)]
struct Instructions {
    all: u64,
    sha: u64,
}

impl Instructions {
    fn of(count: &Callgrind) -> Result<Self> {
        Ok(Self { all: count.all()?, sha: count.within("sha256")? + count.within("sha2::")? })
    }

    /// The instructions of each of so many more events.
    fn each(less: Self, more: Self, events: usize) -> [f64; 2] {
        let each = |less: u64, more: u64| more.saturating_sub(less) as f64 / events as f64;
        [each(less.all, more.all), each(less.sha, more.sha)]
    }
}

/// Counts and prints.
pub(crate) async fn measure(arguments: &Arguments) -> Result<()> {
    println!(
        "\n| program | tenants | instructions per event | of these SHA-256 | without it |\n|---|---:|---:|---:|---:|"
    );
    for tenants in &arguments.tenants {
        let less = run(arguments, arguments.events, *tenants).await?;
        let more = run(arguments, 2 * arguments.events, *tenants).await?;
        for ((counts, less), (_, more)) in less.into_iter().zip(more) {
            let [all, sha] = Instructions::each(less, more, arguments.events);
            println!("| {} | {tenants} | {all:.0} | {sha:.0} | {:.0} |", counts.name(), all - sha);
        }
    }
    Ok(())
}

/// One run of each program that is asked for.
async fn run(arguments: &Arguments, events: usize, tenants: usize) -> Result<Vec<(Counts, Instructions)>> {
    let wants = |counts| arguments.programs.is_empty() || arguments.programs.contains(&counts);
    let keep = |count: &Callgrind, counts: Counts| match &arguments.keep {
        Some(folder) if events > arguments.events => count.keep(&folder.join(format!("{counts:?}-{tenants}"))),
        _ => Ok(()),
    };
    let mut counted = Vec::new();
    if wants(Counts::Gateway) || wants(Counts::Worker) {
        let server = NatsServer::start().await?;
        if wants(Counts::Gateway) {
            let count = Callgrind::new()?;
            relay(&server, Load { events, tenants }, Some(&count)).await?;
            keep(&count, Counts::Gateway)?;
            counted.push((Counts::Gateway, Instructions::of(&count)?));
        } else {
            relay(&server, Load { events, tenants }, None).await?;
        }
        if wants(Counts::Worker) {
            let count = record(&server).await?;
            keep(&count, Counts::Worker)?;
            counted.push((Counts::Worker, Instructions::of(&count)?));
        }
    }
    if wants(Counts::One) {
        let count = in_one(events, tenants).await?;
        keep(&count, Counts::One)?;
        counted.push((Counts::One, Instructions::of(&count)?));
    }
    Ok(counted)
}

/// The events of one run.
#[derive(Debug, Clone, Copy)]
struct Load {
    events: usize,
    tenants: usize,
}

/// Has a gateway hand a spool over to the stream, counted or not.
async fn relay(server: &NatsServer, load: Load, count: Option<&Callgrind>) -> Result<()> {
    let scratch = Scratch::new("events")?;
    let data = scratch.join("data");
    spooled::fill(&data, load.events, load.tenants).await?;
    TOPOLOGY.declare(&connection(server).await?).await?;
    let launch = gateway(&scratch, server);
    let mut gateway = count.map_or_else(|| Ok(launch.clone()), |count| count.counted(launch.clone()))?.start()?;
    empty(&data).await?;
    gateway.signal(Signal::TERM)?;
    gateway.wait().await?;
    Ok(())
}

/// A gateway that stands in front of nothing.
pub(crate) fn gateway(scratch: &Scratch, server: &NatsServer) -> Launch {
    Launch::new("gateway", scratch.path())
        .settings(["GATEWAY_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned())))
        .setting("DATA_DIR", scratch.join("data"))
        .setting("SPOOL_BYTES_MAX", "64GiB")
        .setting("JWT_SECRET", SECRET)
        .setting("UPSTREAM_URL", "http://127.0.0.1:1")
        .setting("NATS_URL", server.url())
        .on_core(0)
}

/// Waits until everything in the spool of a data directory was handed over.
pub(crate) async fn empty(data: &Path) -> Result<()> {
    wait_for("the spool to be handed over", LIMIT, async || {
        tokio::time::sleep(LOOK_EVERY).await;
        // A segment may go between two readings of the folder.
        let unsent = inspect(&spool_directory(data)).map_or(u64::MAX, |found| found.unsent_records);
        Ok((unsent == 0).then_some(()))
    })
    .await
}

/// Has a worker record all that the stream holds.
async fn record(server: &NatsServer) -> Result<Callgrind> {
    let postgres = Postgres::start().await?;
    let url = postgres.database().await?;
    let ledger = Ledger::connect(&url, StoreOptions::default()).await?;
    ledger.set_rate("25".parse()?, "2026-01-01".parse()?).await?;
    let scratch = Scratch::new("events")?;
    let count = Callgrind::new()?;
    let launch = Launch::new("meter-worker", scratch.path())
        .setting("NATS_URL", server.url())
        .setting("DATABASE_URL", &url)
        .setting("OPS_ADDR", "127.0.0.1:0");
    let connection = connection(server).await?;
    let mut worker = count.counted(launch)?.start()?;
    wait_for("everything to be recorded", LIMIT, async || {
        tokio::time::sleep(LOOK_EVERY).await;
        let lag = Lag::read(&connection).await?;
        Ok(lag.filter(|lag| lag.pending == 0 && lag.ack_pending == 0).map(drop))
    })
    .await?;
    worker.signal(Signal::TERM)?;
    worker.wait().await?;
    Ok(count)
}

/// Has the one process record a spool in its SQLite.
async fn in_one(events: usize, tenants: usize) -> Result<Callgrind> {
    let scratch = Scratch::new("events")?;
    let data = scratch.join("data");
    spooled::fill(&data, events, tenants).await?;
    let addresses = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
    let launch = Launch::new("goldleaves", scratch.path())
        .settings(addresses)
        .setting("DATA_DIR", &data)
        .setting("JWT_SECRET", SECRET)
        .setting("UPSTREAM_URL", "http://127.0.0.1:1")
        .on_core(0);
    let count = Callgrind::new()?;
    let mut one = count.counted(launch)?.start()?;
    empty(&data).await?;
    one.signal(Signal::TERM)?;
    ensure!(one.wait().await?.success(), "the one process did not end well: {}", one.output());
    Ok(count)
}

pub(crate) async fn connection(server: &NatsServer) -> Result<Connection> {
    let servers = server.url().parse().context("the server's address")?;
    let settings = ConnectSettings { servers, credentials_file: None, ca_file: None, name: "bench".to_owned() };
    let connection = Connection::connect(&settings).await?;
    connection.connected().await;
    Ok(connection)
}
