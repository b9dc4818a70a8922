//! CPU time of events in spools that nobody emptied for long: what the first tenth of one costs beside the last.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::program::Program;
use goldleaves_testkit::scratch::Scratch;
use rustix::process::Signal;

use crate::counted::{TOPOLOGY, connection, gateway};
use crate::{Arguments, spooled};

/// The bytes that both records of a call take in the spool, about.
const CALL_BYTES: usize = 900;
/// Between two looks at how much is left.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The time that the longest spool may take.
const LIMIT: Duration = Duration::from_secs(1_800);

/// The events that were left at a moment, and the CPU time used so far.
#[derive(Debug, Clone, Copy)]
struct Look {
    unsent: u64,
    ticks: u64,
}

/// Measures and prints.
pub(crate) async fn measure(arguments: &Arguments) -> Result<()> {
    let tenants = arguments.tenants.first().copied().context("a number of tenants")?;
    println!("\n### Spools of {tenants} tenants, handed over by a gateway that starts with them\n");
    println!(
        "| spool | events | until it listens | µs of CPU per event | of the first tenth | of the last | memory, MiB |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for mib in &arguments.backlog {
        hand_over(*mib, tenants).await?;
    }
    Ok(())
}

async fn hand_over(mib: usize, tenants: usize) -> Result<()> {
    let scratch = Scratch::new("backlog")?;
    let events = (mib << 20) / CALL_BYTES;
    spooled::fill(&scratch.join("data"), events, tenants).await?;
    let server = NatsServer::start().await?;
    TOPOLOGY.declare(&connection(&server).await?).await?;
    let began = Instant::now();
    let mut gateway = gateway(&scratch, &server).start()?;
    let ops = gateway.address("ops on").await?;
    let listens = began.elapsed();
    let (mut looks, mut memory) = (Vec::new(), 0);
    loop {
        let text = Request::get("/metrics").send(ops).await.context("asking for metrics")?.text();
        let unsent = text.lines().find_map(|line| line.strip_prefix("goldleaves_spool_unsent_records "));
        let unsent = unsent.and_then(|count| count.parse().ok()).context("no count of what is unsent")?;
        looks.push(Look { unsent, ticks: ticks(&gateway)? });
        memory = memory.max(resident(&gateway)?);
        if unsent == 0 {
            break;
        }
        if began.elapsed() > LIMIT {
            bail!("{unsent} events of {events} are left: {}", gateway.output());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    gateway.signal(Signal::TERM)?;
    gateway.wait().await?;
    let total = looks.first().map_or(0, |look| look.unsent);
    let [all, first, last] = [0.0..1.0, 0.0..0.1, 0.9..1.0].map(|part| micros_each(&looks, total, part));
    println!(
        "| {mib} MiB | {events} | {:.1} s | {all:.1} | {first:.1} | {last:.1} | {} |",
        listens.as_secs_f64(),
        memory >> 10
    );
    Ok(())
}

/// The CPU time of each event between two parts of all that was handed over.
fn micros_each(looks: &[Look], total: u64, part: Range<f64>) -> f64 {
    let at = |part: f64| looks.iter().find(|look| (total - look.unsent.min(total)) as f64 >= total as f64 * part);
    let (Some(begin), Some(end)) = (at(part.start), at(part.end)) else { return 0.0 };
    let events = begin.unsent.saturating_sub(end.unsent).max(1);
    (end.ticks - begin.ticks) as f64 * 1e4 / events as f64
}

/// The CPU time of a process, in ticks of a hundredth of a second.
fn ticks(program: &Program) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", program.id())).context("the CPU time of a process")?;
    let (_, rest) = text.rsplit_once(')').context("stat")?;
    let times = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Ok(times.sum())
}

/// The memory that a process holds, in KiB.
fn resident(program: &Program) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", program.id())).context("the memory of a process")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().context("no VmRSS")?.parse().context("VmRSS")
}
