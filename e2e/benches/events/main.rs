//! Counts what an event costs behind its request: from the spool into the stream, from the stream into PostgreSQL, and from the
//! spool into the SQLite of the one process.
//!
//! Started by `cargo xtask bench events`, which builds the programs first. Instructions are those of the whole process, by
//! valgrind's callgrind: of two runs, of which one has twice as many events, so that starting and stopping count for nothing. They
//! know neither the kernel nor caches, and SHA-256 is counted in software, which a processor has instructions for: so it is
//! shown by itself. `--backlog` measures CPU time instead, of a gateway that finds a long spool. It prints Markdown.

mod backlog;
mod counted;
mod spooled;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// The arguments that say what to measure.
#[derive(Parser)]
#[command(name = "cargo xtask bench events --")]
struct Arguments {
    /// The events of the shorter of two runs.
    #[arg(long, default_value_t = 8_000)]
    events: usize,
    /// The number of tenants that they are of, in turn: as many as there are events, and no two share a message.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 200])]
    tenants: Vec<usize>,
    /// Only these programs.
    #[arg(long, value_delimiter = ',')]
    programs: Vec<counted::Counts>,
    /// Keeps the counts of the longer runs there, for `callgrind_annotate`.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Measures what events cost at the end of spools of so many MiB instead.
    #[arg(long, value_delimiter = ',')]
    backlog: Vec<usize>,
    /// The flag that Cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if arguments.backlog.is_empty() {
        runtime.block_on(counted::measure(&arguments))
    } else {
        runtime.block_on(backlog::measure(&arguments))
    }
}
