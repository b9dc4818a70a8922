//! Measures the gateway beside its upstream and its peers, all interleaved in one run: what drifts drifts for all of them, and
//! the ratios hold.
//!
//! The server measured has one core to itself, the load and the upstream behind a proxy have the other. Started by
//! `cargo xtask bench`, which builds the programs first. It prints Markdown.

mod cpu;
mod edge;
mod growth;
mod h2c;
mod http;
mod latency;
mod load;
mod memory;
mod server;
mod table;
mod upstream;

use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::load::Size;

/// The arguments that say what to measure.
#[derive(Parser)]
#[command(name = "cargo xtask bench gateway --")]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// The number of times everything is measured; the medians are reported.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// The time that one measurement of a server takes.
    #[arg(long, global = true, default_value_t = 1000)]
    millis: u64,
    /// Only these parts.
    #[arg(long, global = true, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Only the gateway program in mode `available`, beside its peers.
    #[arg(long, global = true)]
    short: bool,
    /// The flag that Cargo passes to every benchmark.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// The upstream that the servers are measured with, as a process of its own.
    #[command(hide = true)]
    Upstream,
    /// The same in HTTP/2, with answers of 200 B alone.
    #[command(hide = true)]
    UpstreamOfH2,
}

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Memory, idle and with large answers in flight.
    Memory,
    /// Answers of 200 B.
    Small,
    /// Answers of 16 KiB, chunked.
    Medium,
    /// Answers of 1 MiB, chunked.
    Large,
    /// Answers of 200 B over HTTP/2.
    H2c,
    /// Many routes, and an upstream of HTTP/2, beside a few routes and one of HTTP/1.1.
    Edge,
    /// Latency at a fixed rate.
    Latency,
    /// 100 to 100,000 tenants. Only when it is named.
    Tenants,
    /// 10 to 9,000 connections. Only when it is named.
    Connections,
}

impl Part {
    const fn size(self) -> Size {
        match self {
            Self::Medium => Size::Medium,
            Self::Large => Size::Large,
            Self::Memory | Self::Small | Self::H2c | Self::Edge | Self::Latency | Self::Tenants | Self::Connections => {
                Size::Small
            }
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Memory => "Memory",
            Self::Small => "Answers of 200 B",
            Self::Medium => "Answers of 16 KiB, chunked",
            Self::Large => "Answers of 1 MiB, chunked",
            Self::H2c => "Answers of 200 B over HTTP/2",
            Self::Edge => "Answers of 200 B, by the gateway's settings",
            Self::Latency => "Answers of 200 B at 2,000/s, from the intended moment",
            Self::Tenants => "Answers of 200 B, metered, for more and more tenants",
            Self::Connections => "Answers of 200 B, metered, over more and more connections, 64 of them at once",
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Arguments { rounds, millis, parts, short, .. } = arguments;
    match arguments.what {
        Some(What::Upstream) => runtime.block_on(upstream::serve()),
        Some(What::UpstreamOfH2) => runtime.block_on(upstream::serve_h2()),
        None => {
            let effort = Effort { rounds, duration: Duration::from_millis(millis), parts, short };
            let grows = |part: &Part| matches!(part, Part::Tenants | Part::Connections);
            if effort.parts.iter().any(grows) {
                cpu::pin_to(server::LOAD_CORE)?;
                runtime.block_on(growth::measure(&effort))?;
            }
            if effort.parts.is_empty() || !effort.parts.iter().all(grows) {
                runtime.block_on(http::measure(&effort))?;
            }
            Ok(())
        }
    }
}

/// The thoroughness of a measurement, and its parts.
struct Effort {
    rounds: usize,
    duration: Duration,
    /// Empty = all.
    parts: Vec<Part>,
    short: bool,
}

impl Effort {
    fn measures(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}
