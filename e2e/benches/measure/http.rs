//! Requests per second and CPU per request, of every server, for every size of answer.

use std::time::Duration;

use anyhow::Result;
use goldleaves_testkit::token::Claims;

use crate::Effort;
use crate::cpu::{self, Used};
use crate::load::{self, Seen, Size};
use crate::server::{self, BILLED, LOAD_CORE, Ours, SECRET, SERVER_CORE, Server, UNBILLED};
use crate::table::{median, number, print};

/// Holds what later ratios are made against: the gateway that meters nothing.
const BASE: &str = "gateway, not metered";

/// Our programs. In one process the ledger's writing is on the server's core too; in a program of its own the gateway
/// records, relays and seals.
const OURS: [Ours; 5] = [
    Ours { name: BASE, program: "goldleaves", path: UNBILLED, durability: "available" },
    Ours { name: "gateway program, available", program: "gateway", path: BILLED, durability: "available" },
    Ours { name: "gateway program, strict", program: "gateway", path: BILLED, durability: "strict" },
    Ours { name: "all in one process, available", program: "goldleaves", path: BILLED, durability: "available" },
    Ours { name: "all in one process, strict", program: "goldleaves", path: BILLED, durability: "strict" },
];

/// One measurement of one server.
struct Sample {
    per_second: f64,
    /// The CPU time per request of the whole process, work after the response included.
    cpu_micros: f64,
    /// The CPU time per request of the threads that serve requests.
    path_micros: f64,
    p50_micros: f64,
    p99_micros: f64,
}

/// Measures and prints.
pub(crate) async fn measure(effort: &Effort) -> Result<()> {
    cpu::pin_to(LOAD_CORE)?;
    let alone = server::upstream(SERVER_CORE).await?;
    let behind = server::upstream(LOAD_CORE).await?;
    let url = format!("http://{}", behind.address);
    let mut servers = vec![alone];
    servers.extend(server::peers(behind.address).await?);
    for ours in OURS {
        servers.push(server::ours(ours, &url).await?);
    }
    print_memory(&servers)?;
    let token = Claims::new("acme", "ann").sign(SECRET)?;
    for size in Size::ALL {
        let mut samples: Vec<Vec<Sample>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..effort.rounds {
            for (server, samples) in servers.iter().zip(&mut samples) {
                samples.push(sample(server, size, &token, effort.duration).await?);
            }
        }
        report(size, &servers, &samples);
    }
    Ok(())
}

async fn sample(server: &Server, size: Size, token: &str, duration: Duration) -> Result<Sample> {
    let request = load::request(server.path, token, size);
    // Connections, pools and caches first.
    load::run(server.address, &request, size, Duration::from_millis(200)).await?;
    settle(server).await?;
    let before = cpu::used(server.process)?;
    let seen = load::run(server.address, &request, size, duration).await?;
    let under_load = cpu::used(server.process)?;
    settle(server).await?;
    let after = cpu::used(server.process)?;
    Ok(Sample::of(&seen, &cpu::between(&before, &under_load), &cpu::between(&before, &after)))
}

/// Waits until the process rests: what it records and relays after the load belongs to that load.
async fn settle(server: &Server) -> Result<()> {
    let mut before: u64 = cpu::used(server.process)?.values().sum();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let after: u64 = cpu::used(server.process)?.values().sum();
        if after.saturating_sub(before) < 2_000_000 {
            return Ok(());
        }
        before = after;
    }
}

impl Sample {
    fn of(seen: &Seen, under_load: &Used, in_all: &Used) -> Self {
        let answers = seen.answers.max(1) as f64;
        // The busiest threads of one name are those that serve: with one core there is one of them.
        let path = under_load.iter().filter(|(name, _)| serves(name)).map(|(_, nanos)| nanos).sum::<u64>();
        Self {
            per_second: answers / seen.elapsed.as_secs_f64(),
            cpu_micros: in_all.values().sum::<u64>() as f64 / 1000.0 / answers,
            path_micros: path as f64 / 1000.0 / answers,
            p50_micros: seen.p50_micros,
            p99_micros: seen.p99_micros,
        }
    }
}

/// Returns whether threads of this name serve requests. Peers do nothing else.
fn serves(thread: &str) -> bool {
    ["gateway", "nginx", "haproxy", "measure"].iter().any(|name| thread.starts_with(name))
}

fn report(size: Size, servers: &[Server], samples: &[Vec<Sample>]) {
    let of = |samples: &[Sample], value: fn(&Sample) -> f64| median(&samples.iter().map(value).collect::<Vec<_>>());
    let base = servers.iter().position(|server| server.name == BASE).and_then(|at| samples.get(at));
    let rows = servers.iter().zip(samples).map(|(server, samples)| {
        // Ratios are made within a round, where both saw the same machine.
        let ratio = |value: fn(&Sample) -> f64| {
            let pairs = samples.iter().zip(base.into_iter().flatten());
            median(&pairs.map(|(sample, base)| value(sample) / value(base)).collect::<Vec<_>>())
        };
        vec![
            server.name.to_owned(),
            number(of(samples, |sample| sample.per_second)),
            number(ratio(|sample| sample.per_second)),
            number(of(samples, |sample| sample.cpu_micros)),
            number(ratio(|sample| sample.cpu_micros)),
            number(of(samples, |sample| sample.path_micros)),
            number(of(samples, |sample| sample.p50_micros)),
            number(of(samples, |sample| sample.p99_micros)),
        ]
    });
    let columns = [
        "server",
        "requests/s",
        "ratio",
        "CPU µs/request",
        "ratio",
        "of it serving",
        "p50 µs under load",
        "p99 µs under load",
    ];
    print(&format!("Answers of {}", size.name()), &columns, &rows.collect::<Vec<_>>());
}

fn print_memory(servers: &[Server]) -> Result<()> {
    let ours = servers.iter().filter(|server| OURS.iter().any(|ours| ours.name == server.name));
    let rows = ours.map(|server| Ok(vec![server.name.to_owned(), number(cpu::resident_mib(server.process)?)]));
    print("Resident memory, idle", &["server", "MiB"], &rows.collect::<Result<Vec<_>>>()?);
    Ok(())
}
