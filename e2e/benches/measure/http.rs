//! CPU per request, memory and latency of every server, each part in turns: what drifts drifts for all of a round.

use std::time::Duration;

use anyhow::{Result, ensure};
use goldleaves_testkit::token::Claims;

use crate::cpu::{self, Used};
use crate::load::{self, Requests, Seen};
use crate::server::{
    self, BILLED, HAPROXY_DUTIES, LOAD_CORE, METERED, NGINX, NOT_METERED, Ours, SECRET, SERVER_CORE, Server, UPSTREAM,
};
use crate::table::{median, number, print};
use crate::{Effort, Part, edge, h2c, latency, memory};

/// Callers, each of a tenant of its own.
const CALLERS: usize = 1_000;

/// Our programs. In one process the ledger's writing is on the server's core too.
const OURS: [Ours; 3] = [
    Ours { name: METERED, program: "gateway", durability: "available" },
    Ours { name: "gateway, strict", program: "gateway", durability: "strict" },
    Ours { name: "all in one process", program: "goldleaves", durability: "available" },
];

/// The ratios that are aims, and between whom.
const RATIOS: [(&str, &str); 8] = [
    (METERED, HAPROXY_DUTIES),
    (METERED, NGINX),
    (METERED, NOT_METERED),
    (NOT_METERED, HAPROXY_DUTIES),
    (NOT_METERED, NGINX),
    ("all in one process", NOT_METERED),
    (edge::MANY, edge::FEW),
    (edge::OF_H2, edge::FEW),
];

/// One measurement of one server.
struct Sample {
    per_second: f64,
    /// The CPU time per request of the whole process, work after the response included.
    cpu_micros: f64,
    /// The same, by what threads of the process do.
    by_thread: Vec<(&'static str, f64)>,
    p50_micros: f64,
    p99_micros: f64,
}

/// Measures and prints.
pub(crate) async fn measure(effort: &Effort) -> Result<()> {
    cpu::pin_to(LOAD_CORE)?;
    let servers = start(effort).await?;
    let tokens: Vec<String> = (0..CALLERS)
        .map(|caller| Claims::new(&format!("tenant-{caller:04}"), &format!("user-{caller:04}")).sign(SECRET))
        .collect::<Result<_>>()?;
    if effort.measures(Part::Memory) {
        let programs: Vec<&Server> = servers.iter().filter(|server| server.is_program()).collect();
        memory::measure(&programs, &tokens).await?;
    }
    for part in [Part::Small, Part::Medium, Part::Large, Part::H2c, Part::Edge, Part::Latency] {
        if effort.measures(part) {
            let servers: Vec<&Server> = servers.iter().filter(|server| server.takes(part)).collect();
            measure_part(part, &servers, &tokens, effort).await?;
        }
    }
    Ok(())
}

async fn start(effort: &Effort) -> Result<Vec<Server>> {
    let behind = server::upstream(LOAD_CORE).await?;
    let url = format!("http://{}", behind.address);
    let mut servers = vec![server::upstream(SERVER_CORE).await?];
    servers.extend(server::peers(behind.address).await?);
    for ours in OURS {
        if ours.name == METERED || !effort.short {
            let server = server::ours(ours, ("UPSTREAM_URL", url.clone()), "").await?;
            servers.extend((ours.name == METERED).then(|| server.not_metered()));
            servers.push(server);
        }
    }
    if effort.measures(Part::Edge) {
        servers.extend(edge::start(behind.address).await?);
    }
    servers.push(behind);
    Ok(servers)
}

async fn measure_part(part: Part, servers: &[&Server], tokens: &[String], effort: &Effort) -> Result<()> {
    let mut samples: Vec<Vec<Sample>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.rounds {
        for (server, samples) in servers.iter().zip(&mut samples) {
            samples.push(sample(part, server, tokens, effort.duration).await?);
        }
    }
    report(part, servers, &samples);
    Ok(())
}

async fn sample(part: Part, server: &Server, tokens: &[String], duration: Duration) -> Result<Sample> {
    // Connections, pools and caches first.
    load(part, server, tokens, Duration::from_millis(300)).await?;
    rest(server).await?;
    let recorded = server.recorded().await?;
    let before = cpu::used(server.process)?;
    let seen = load(part, server, tokens, duration).await?;
    rest(server).await?;
    let after = cpu::used(server.process)?;
    if let (Some(before), Some(after)) = (recorded, server.recorded().await?) {
        let expected = if server.path == BILLED { seen.answers } else { 0 };
        ensure!(after - before == expected, "{}: {} events of {expected} answers", server.name, after - before);
    }
    Ok(Sample::of(&seen, &cpu::between(&before, &after)))
}

async fn load(part: Part, server: &Server, tokens: &[String], duration: Duration) -> Result<Seen> {
    let size = part.size();
    let requests = Requests::new(server.path, tokens, size);
    match part {
        Part::H2c => h2c::run(server.address, server.path, tokens, duration).await,
        Part::Latency => {
            let address = server.address;
            tokio::task::spawn_blocking(move || latency::run(address, &requests, duration)).await?
        }
        _ => load::run(server.address, &requests, size.connections(), size, duration).await,
    }
}

/// Waits until the process rests and everything that it recorded was handed over: that belongs to the load before.
pub(crate) async fn rest(server: &Server) -> Result<()> {
    let mut before: u64 = cpu::used(server.process)?.values().sum();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let after: u64 = cpu::used(server.process)?.values().sum();
        if after.saturating_sub(before) < 2_000_000 && server.has_handed_over().await? {
            return Ok(());
        }
        before = after;
    }
}

impl Sample {
    fn of(seen: &Seen, used: &Used) -> Self {
        let answers = seen.answers.max(1) as f64;
        let micros = |nanos: u64| nanos as f64 / 1000.0 / answers;
        let of_kind = |kind| used.iter().filter(|(name, _)| kind_of(name) == kind).map(|(_, nanos)| nanos).sum();
        Self {
            per_second: answers / seen.elapsed.as_secs_f64(),
            cpu_micros: micros(used.values().sum()),
            by_thread: KINDS.map(|kind| (kind, micros(of_kind(kind)))).to_vec(),
            p50_micros: seen.p50_micros,
            p99_micros: seen.p99_micros,
        }
    }
}

pub(crate) const KINDS: [&str; 4] = ["serving", "spool", "SQLite", "other"];

/// Returns the work that threads of this name do. Peers only serve.
pub(crate) fn kind_of(thread: &str) -> &'static str {
    let begins = |names: &[&str]| names.iter().any(|name| thread.starts_with(name));
    match thread {
        _ if begins(&["gateway-", "nginx", "haproxy", "measure"]) => "serving",
        _ if begins(&["spool"]) => "spool",
        _ if begins(&["sqlx-sqlite"]) => "SQLite",
        _ => "other",
    }
}

fn report(part: Part, servers: &[&Server], samples: &[Vec<Sample>]) {
    let of = |samples: &[Sample], value: &dyn Fn(&Sample) -> f64| {
        number(median(&samples.iter().map(value).collect::<Vec<_>>()))
    };
    let rows = servers.iter().zip(samples).map(|(server, samples)| {
        let kind = |index: usize| of(samples, &|sample| sample.by_thread.get(index).map_or(0.0, |(_, micros)| *micros));
        let mut row = vec![server.name.to_owned(), of(samples, &|sample| sample.per_second)];
        row.push(of(samples, &|sample| sample.cpu_micros));
        row.extend((0..KINDS.len()).map(kind));
        row.extend([of(samples, &|sample| sample.p50_micros), of(samples, &|sample| sample.p99_micros)]);
        row
    });
    let columns = [&["server", "requests/s", "CPU µs/request"][..], &KINDS, &["p50 µs", "p99 µs"]].concat();
    print(part.title(), &columns, &rows.collect::<Vec<_>>());
    let (what, value): (&str, fn(&Sample, &Sample) -> f64) = match part {
        Part::Latency => ("added p50", |sample, alone| sample.p50_micros - alone.p50_micros),
        _ => ("CPU per request", |sample, _| sample.cpu_micros),
    };
    let named = |name| servers.iter().position(|server| server.name == name).and_then(|at| samples.get(at));
    let Some(alone) = named(UPSTREAM) else { return };
    let rows = RATIOS.iter().filter_map(|(one, other)| {
        // Ratios are made within a round, where both saw the same machine.
        let rounds = named(one)?.iter().zip(named(other)?).zip(alone);
        let mut ratios: Vec<f64> =
            rounds.map(|((one, other), alone)| value(one, alone) / value(other, alone)).collect();
        ratios.sort_by(f64::total_cmp);
        let spread = [ratios.first(), ratios.last()].map(|end| number(end.copied().unwrap_or_default()));
        Some(vec![format!("{one} ÷ {other}"), number(median(&ratios)), spread.join(" to ")])
    });
    print(&format!("{}: {what}", part.title()), &["ratio", "median", "rounds"], &rows.collect::<Vec<_>>());
}
