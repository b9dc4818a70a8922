//! How many events per second the ledger records and replays, on both databases, from one worker and from several; without and with one
//! event in a hundred that the upstream broke off. Run with
//! `cargo run --release -p goldleaves-ledger --example ledger_throughput [batches] [events per batch]`.

use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use goldleaves_domain::wire::encode_event;
use goldleaves_domain::{Epoch, Fingerprint, Outcome, Timestamp, UsageEvent};
use goldleaves_ledger::{Incoming, Ledger, StoreOptions, sqlite_url};
use goldleaves_testkit::migrations;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::usage;
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|number| number.parse::<usize>().ok());
    let (batches, size) = (numbers.next().unwrap_or(100), numbers.next().unwrap_or(1_000));
    let directory = tempfile::tempdir()?;
    let sqlite = sqlite_url(&directory.path().join("goldleaves.db"));
    migrations::up(&sqlite, &|_| ()).await?;
    measure("SQLite, one worker", &sqlite, Load { workers: 1, batches, size, broken_off: 0 }).await?;
    let server = Postgres::start().await?;
    for workers in [1, 2, 4] {
        for broken_off in [0, 100] {
            let url = server.database().await?;
            let one_in = if broken_off == 0 { String::new() } else { format!(", one in {broken_off} broken off") };
            let name = format!("PostgreSQL without fsync, {workers} at once{one_in}");
            measure(&name, &url, Load { workers, batches, size, broken_off }).await?;
        }
    }
    Ok(())
}

/// The load: what is recorded, by how many; of `broken_off` events one is, where that is not 0.
#[derive(Clone, Copy)]
struct Load {
    workers: usize,
    batches: usize,
    size: usize,
    broken_off: usize,
}

async fn measure(name: &str, url: &str, Load { workers, batches, size, broken_off }: Load) -> Result<()> {
    let ledger = Ledger::connect(url, StoreOptions::default()).await?;
    ledger.set_rate("25".parse()?, "2026-01-01".parse()?).await?;
    let epoch = Epoch::new(Uuid::now_v7());
    let mut pieces = Vec::new();
    for batch in 0..batches {
        let first = batch * size;
        let encode = |number| {
            let mut event = event(number, epoch)?;
            if broken_off > 0 && number % broken_off == 0 {
                event.outcome = Outcome::UpstreamAborted;
            }
            Ok(encode_event(&event))
        };
        let piece: Result<Vec<Bytes>> = (first..first + size).map(encode).collect();
        pieces.push(piece?);
    }
    for pass in ["recorded", "replayed"] {
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..workers {
            let mine: Vec<Vec<Bytes>> = pieces.iter().skip(worker).step_by(workers).cloned().collect();
            let ledger = ledger.clone();
            tasks.spawn(async move {
                for piece in mine {
                    let batch: Vec<Incoming> = piece.into_iter().map(Incoming::parse).collect();
                    ledger.record(&batch).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let seconds = start.elapsed().as_secs_f64();
        let events = batches * size;
        println!("{name}: {events} {pass} in batches of {size}: {:.0} a second", events as f64 / seconds);
    }
    Ok(())
}

fn event(number: usize, epoch: Epoch) -> Result<UsageEvent> {
    let routes = ["/api/v1/documents", "/api/v1/ai", "/api/v1/search"];
    Ok(UsageEvent {
        tenant_id: format!("tenant-{}", number % 50).parse()?,
        user_id: format!("user-{}", number % 5_000).parse()?,
        ts: Timestamp::from_unix_micros(1_773_136_800_000_000 + i64::try_from(number)? * 10_000)?,
        route: routes.get(number % 3).context("three routes")?.parse()?,
        fingerprint: Some(format!("v1:{number:064x}").parse::<Fingerprint>()?),
        epoch,
        seq: u64::try_from(number)? + 1,
        ..usage::event()
    })
}
