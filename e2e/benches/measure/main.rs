//! Measures the gateway beside its upstream and its peers, all interleaved in one run: what drifts drifts for all of them, and
//! the ratios hold.
//!
//! The server measured has one core to itself, the load and the upstream behind a proxy have the other. Started by
//! `cargo xtask bench`, which builds the programs first. It prints Markdown.

mod cpu;
mod http;
mod load;
mod server;
mod table;
mod upstream;

use std::time::Duration;

use clap::{Parser, Subcommand};

/// Describes what to measure.
#[derive(Parser)]
#[command(name = "cargo xtask bench --")]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// How often everything is measured; the medians are reported.
    #[arg(long, global = true, default_value_t = 5)]
    rounds: usize,
    /// How long one measurement of a server takes.
    #[arg(long, global = true, default_value_t = 1500)]
    millis: u64,
    /// Holds what Cargo passes to every benchmark.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// The upstream that the servers are measured with, as a process of its own.
    #[command(hide = true)]
    Upstream,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let effort = Effort { rounds: arguments.rounds, duration: Duration::from_millis(arguments.millis) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.what {
        Some(What::Upstream) => runtime.block_on(upstream::serve()),
        None => runtime.block_on(http::measure(&effort)),
    }
}

/// How thoroughly to measure.
struct Effort {
    rounds: usize,
    duration: Duration,
}
