//! Measures how a worker records what the stream holds, beside the bare statement that writes the same rows: in turns within
//! one run, CPU by process, so that the ratios hold on a busy machine too.
//!
//! Started by `cargo xtask bench ingest`, which builds the worker first. It prints Markdown.

mod bare;
mod cpu;
mod events;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use goldleaves_domain::{Delivery, Publisher as _};
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_stream::{ConnectSettings, Connection, Lag, PublisherOptions, StreamPublisher, Topology};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::Launch;

use cpu::Cpu;
use events::Packing;

const LIMIT: Duration = Duration::from_secs(300);
/// Between two questions whether everything is recorded.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const TOPOLOGY: Topology =
    Topology { replicas: 1, bytes_max: 4 << 30, bytes_min: 1 << 30, history: Duration::from_secs(86_400) };

/// The arguments that say what to measure.
#[derive(Parser)]
#[command(name = "cargo xtask bench ingest --")]
struct Arguments {
    /// The number of times everything is measured; the medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The number of events each measurement has.
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// The number of tenants they belong to.
    #[arg(long, default_value_t = 200)]
    tenants: usize,
    /// The number of workers that share them.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The flag that Cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One measurement: seconds, and CPU microseconds an event.
#[derive(Clone, Copy)]
struct Measured {
    events_per_second: f64,
    publish_nats: f64,
    worker: f64,
    nats: f64,
    postgres: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut rows: Vec<(&str, Vec<Measured>)> =
        vec![("bare statement", Vec::new()), ("one event a message", Vec::new()), ("packed", Vec::new())];
    for _ in 0..arguments.rounds {
        for (name, measured) in &mut rows {
            measured.push(match *name {
                "bare statement" => bare::measure(&postgres, arguments).await?,
                "packed" => through_the_stream(&postgres, arguments, Packing::Packed).await?,
                _ => through_the_stream(&postgres, arguments, Packing::Alone).await?,
            });
        }
    }
    println!(
        "\n### {} events of {} tenants, {} worker(s), CPU µs an event\n",
        arguments.events, arguments.tenants, arguments.workers
    );
    println!("| | events/s | nats-server, publishing | nats-server, consuming | worker | PostgreSQL |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, measured) in &rows {
        let of = |value: fn(&Measured) -> f64| median(measured.iter().map(value).collect());
        let (rate, publish) = (of(|one| one.events_per_second), of(|one| one.publish_nats));
        let (nats, worker, postgres) = (of(|one| one.nats), of(|one| one.worker), of(|one| one.postgres));
        println!("| {name} | {rate:.0} | {publish:.2} | {nats:.2} | {worker:.2} | {postgres:.2} |");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Fills a stream of its own, then has workers record it into a database of its own.
async fn through_the_stream(postgres: &Postgres, arguments: &Arguments, packing: Packing) -> Result<Measured> {
    let server = NatsServer::start().await?;
    let servers = server.url().parse()?;
    let settings = ConnectSettings { servers, credentials_file: None, ca_file: None, name: "bench".to_owned() };
    let connection = Connection::connect(&settings).await?;
    connection.connected().await;
    TOPOLOGY.declare(&connection).await?;
    let messages = events::messages(arguments, packing)?;
    let nats = server.id().context("nats-server runs")?;
    let before = Cpu::of(nats)?;
    publish(&connection, messages).await?;
    let publish_nats = (Cpu::of(nats)? - before).micros_each(arguments.events);

    let url = postgres.database().await?;
    let ledger = Ledger::connect(&url, StoreOptions::default()).await?;
    ledger.set_rate("25".parse()?, "2026-01-01".parse()?).await?;
    let folder = tempfile::tempdir()?;
    let before = (Cpu::of(nats)?, Cpu::of_children(postgres)?);
    let start = Instant::now();
    let launch = || {
        Launch::new("meter-worker", folder.path())
            .setting("NATS_URL", server.url())
            .setting("DATABASE_URL", &url)
            .setting("OPS_ADDR", "127.0.0.1:0")
    };
    let workers = (0..arguments.workers).map(|_| launch().start()).collect::<Result<Vec<_>>>()?;
    wait_for("everything to be recorded", LIMIT, async || {
        // Each question costs the server as much as some fifty events.
        tokio::time::sleep(LOOK_EVERY).await;
        let lag = Lag::read(&connection).await?;
        Ok(lag.filter(|lag| lag.pending == 0 && lag.ack_pending == 0).map(drop))
    })
    .await?;
    let seconds = start.elapsed().as_secs_f64();
    let of_workers = workers.iter().map(|worker| Cpu::of(worker.id())).sum::<Result<Cpu>>()?;
    let (nats, postgres) = (Cpu::of(nats)? - before.0, Cpu::of_children(postgres)? - before.1);
    Ok(Measured {
        events_per_second: arguments.events as f64 / seconds,
        publish_nats,
        worker: of_workers.micros_each(arguments.events),
        nats: nats.micros_each(arguments.events),
        postgres: postgres.micros_each(arguments.events),
    })
}

async fn publish(connection: &Connection, messages: Vec<Delivery>) -> Result<()> {
    let publisher = StreamPublisher::new(connection.clone(), TOPOLOGY, PublisherOptions::default());
    for window in messages.chunks(8_000) {
        publisher.publish(window.to_vec()).await?;
    }
    Ok(())
}
