//! Measures billing-api over a ledger in PostgreSQL with many events while a worker records more: report, event look-up, list of
//! tenants, a CSV of a million events and what it holds in memory; and what 10,000 overrides cost the insert.
//!
//! Started by `cargo xtask bench billing`, which builds the program first. It prints Markdown.

mod fill;
mod overrides;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use goldleaves_e2e::process::own_memory_kib;
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SECRET: &str = "a-secret-for-measuring-of-enough-bytes-0123456789";
/// Rows that a CSV holds at most.
const CSV_ROWS_MAX: u64 = 1_000_000;
/// The milliseconds that calls are to take at most with 10,000,000 events.
const AIMS: [(&str, &str); 2] = [("report", "< 15"), ("event by", "< 3")];
/// The text that each row of the CSV has once.
const IN_EACH_ROW: &[u8] = b",\"{\"\"method\"\"";
/// The end of a body that came whole.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// The arguments that say what to measure.
#[derive(Parser)]
#[command(name = "cargo xtask bench billing --")]
struct Arguments {
    /// Events in the ledger; the contract's aims are for 10,000,000.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// The number of times each call is made.
    #[arg(long, default_value_t = 1_000)]
    calls: usize,
    /// Rate cards of single tenants, for the cost of an insert.
    #[arg(long, default_value_t = 10_000)]
    overrides: u32,
    /// The flag that Cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let server = Postgres::start().await?;
    let url = server.database().await?;
    let started = Instant::now();
    let filled = fill::fill(&url, arguments.events).await?;
    let (seconds, mib) = (started.elapsed().as_secs_f64(), fill::disk_mib(&url).await?);
    println!("filled with {} events in {seconds:.0} s, {mib} MiB on disk", arguments.events);
    let api = Api::start(&url).await?;
    let recording = Recording::start(&url)?;
    let mut rows = Vec::new();
    for (name, paths) in calls(&filled) {
        // A list of all tenants takes as long as hundreds of the others.
        let count = if name.starts_with("tenants") { arguments.calls.div_ceil(20) } else { arguments.calls };
        let times = api.times(&paths, count).await.with_context(|| name.to_owned())?;
        let aim = AIMS.iter().find(|(of, _)| name.starts_with(of)).map_or("", |(_, aim)| aim);
        rows.push(vec![name.to_owned(), milliseconds(&times, 50), milliseconds(&times, 99), aim.to_owned()]);
    }
    let recorded = recording.recorded();
    print(
        &format!("billing-api, {} events, {recorded:.0} events per second recorded beside it", arguments.events),
        &["call", "p50 ms", "p99 ms", "aim of p99"],
        &rows,
    );
    let csv = api.csv(&filled).await?;
    recording.stop()?;
    let columns = ["rows", "seconds", "MiB", "more memory held, MiB (aim < 64)"];
    print("CSV of one tenant's events", &columns, &[csv]);
    drop(api);
    let rows = overrides::measure(&server, arguments.overrides).await?;
    print("µs per recorded event, medians of turns", &["rate cards of single tenants", "µs per event"], &rows);
    Ok(())
}

fn calls(filled: &fill::Filled) -> Vec<(&'static str, Vec<String>)> {
    let months =
        [format!("month={}", filled.month), "start_date=2026-01-03T10:20:00Z&end_date=2026-01-24T22:40:00Z".to_owned()];
    let tenants: Vec<String> = (1..20).map(|number| format!("tenant-{number}")).collect();
    let of = |what: &str, more: &str| {
        let paths = tenants.iter().map(|tenant| format!("/billing/{what}/{tenant}?{}{more}", months[0]));
        paths.collect::<Vec<_>>()
    };
    let cut = tenants.iter().map(|tenant| format!("/billing/usage-report/{tenant}?{}", months[1])).collect();
    let by_event = filled.samples.iter().map(|(tenant, event, _)| format!("/billing/usage-events/{tenant}/{event}"));
    let by_request =
        filled.samples.iter().map(|(tenant, _, request)| format!("/billing/usage-events/{tenant}/{request}"));
    vec![
        ("report of a month", of("usage-report", "")),
        ("report of a month, by day and route", of("usage-report", "&group_by=day,route")),
        ("report of a range that cuts hours", cut),
        ("report of the largest tenant", vec![format!("/billing/usage-report/{}?{}", filled.largest, months[0])]),
        ("summary", of("usage-summary", "")),
        ("event by its id", by_event.collect()),
        ("event by its request's id", by_request.collect()),
        ("page of events", of("usage-events", "&limit=100")),
        ("open invoice", tenants.iter().map(|tenant| format!("/billing/invoice/{tenant}")).collect()),
        ("tenants by cost, of a month", vec![format!("/billing/tenants?{}", months[0])]),
    ]
}

/// The program, and who asks it.
struct Api {
    program: Program,
    address: SocketAddr,
    token: String,
    _scratch: Scratch,
}

impl Api {
    async fn start(url: &str) -> Result<Self> {
        let scratch = Scratch::new("bench-billing")?;
        let settings = [
            ("DATABASE_URL", url.to_owned()),
            ("JWT_SECRET", SECRET.to_owned()),
            ("BILLING_ADDR", "127.0.0.1:0".to_owned()),
            ("OPS_ADDR", "127.0.0.1:0".to_owned()),
        ];
        let mut program = Launch::new("billing-api", scratch.path()).settings(settings).start()?;
        let address = program.address("billing listens on").await?;
        let token = Claims::new("ops", "ann").role("billing:read").sign(SECRET)?;
        Ok(Self { program, address, token, _scratch: scratch })
    }

    /// Returns the times that each call took, over one connection.
    async fn times(&self, paths: &[String], count: usize) -> Result<Vec<Duration>> {
        ensure!(!paths.is_empty(), "there is nothing to ask for");
        let mut connection = Connection::open(self.address).await?;
        let mut times = Vec::new();
        // A tenth more than is counted: the first find cold pages.
        for path in paths.iter().cycle().take(count + count / 10) {
            let request = Request::get(path).token(&self.token);
            let started = Instant::now();
            let answer = connection.ask(&request).await?;
            times.push(started.elapsed());
            ensure!(answer.status == 200, "{path} answers {} {}", answer.status, answer.text());
        }
        Ok(times.split_off(count / 10))
    }

    /// Reads the events of the largest tenant as CSV.
    async fn csv(&self, filled: &fill::Filled) -> Result<Vec<String>> {
        let before = own_memory_kib(self.program.id())?;
        let path = format!("/billing/usage-events/{}?month={}&format=csv", filled.largest, filled.month);
        let request = Request::get(&path).token(&self.token).header("Connection", "close").wire("billing");
        let (mut connection, started) = (TcpStream::connect(self.address).await?, Instant::now());
        connection.write_all(&request).await?;
        let (mut unread, mut bytes, mut rows, mut most) = (Vec::with_capacity(1 << 17), 0, 0, before);
        let mut head = String::new();
        loop {
            let count = connection.read_buf(&mut unread).await?;
            if count == 0 {
                break;
            }
            if bytes == 0 {
                head = String::from_utf8_lossy(&unread).into_owned();
            }
            bytes += count;
            rows += unread.windows(IN_EACH_ROW.len()).filter(|word| *word == IN_EACH_ROW).count();
            // The end may be the beginning of another one.
            unread.drain(..unread.len().saturating_sub(IN_EACH_ROW.len() - 1));
            most = most.max(own_memory_kib(self.program.id())?);
        }
        ensure!(head.starts_with("HTTP/1.1 200 "), "no CSV came: {head}");
        ensure!(unread.ends_with(LAST_CHUNK), "the CSV broke off after {rows} rows of {}", filled.of_largest);
        ensure!(rows as u64 == filled.of_largest, "{rows} rows of {}: {head}", filled.of_largest);
        let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
        Ok(vec![
            filled.of_largest.to_string(),
            format!("{:.1}", started.elapsed().as_secs_f64()),
            mib(bytes as f64),
            mib((most - before) as f64 * 1024.0),
        ])
    }
}

/// A worker that records all the while.
struct Recording {
    stop: Arc<AtomicBool>,
    events: Arc<AtomicU64>,
    started: Instant,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Recording {
    fn start(url: &str) -> Result<Self> {
        let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&events));
        // On a thread of its own: a batch that is made on the clients' runtime would be counted as theirs.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let url = url.to_owned();
        let thread = std::thread::spawn(move || runtime.block_on(record_on(&url, &stopped, &counted)));
        Ok(Self { stop, events, started: Instant::now(), thread })
    }

    /// Events per second until now.
    fn recorded(&self) -> f64 {
        self.events.load(Ordering::Relaxed) as f64 / self.started.elapsed().as_secs_f64()
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| bail!("the thread that records panicked"))
    }
}

/// Records batches until it is stopped, and counts their events.
async fn record_on(url: &str, stopped: &AtomicBool, counted: &AtomicU64) -> Result<()> {
    let ledger = Ledger::connect(url, StoreOptions::default()).await?;
    while !stopped.load(Ordering::Relaxed) {
        let batch = fill::batch(100, 50);
        ledger.record(&batch).await?;
        counted.fetch_add(batch.len() as u64, Ordering::Relaxed);
        // As much as a worker that is not behind has to do.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn milliseconds(times: &[Duration], percentile: usize) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percentile / 100).min(sorted.len().saturating_sub(1));
    format!("{:.2}", sorted.get(at).copied().unwrap_or_default().as_secs_f64() * 1_000.0)
}

fn print(heading: &str, columns: &[&str], rows: &[Vec<String>]) {
    println!("\n### {heading}\n\n| {} |\n|{}|", columns.join(" | "), vec!["---"; columns.len()].join("|"));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}
