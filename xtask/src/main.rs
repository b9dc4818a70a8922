//! The one developer command: `cargo xtask test`, `tidy`, `bench`, `dist` and `dev`.
//!
//! It needs nothing but a Rust toolchain; what the tests need besides is found or installed by `goldleaves-toolbox`.

mod bench;
mod cargo;
mod dev;
mod dist;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Goldleaves.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct XtaskArguments {
    #[command(subcommand)]
    command: XtaskCommand,
}

#[derive(Subcommand)]
enum XtaskCommand {
    /// Find or install what the tests need, then run every test.
    Test(test::TestArguments),
    /// Check the rules of the repository: edges between crates, lengths, docs, lints, words.
    Tidy,
    /// Measure the gateway beside its upstream and its peers, and the spool beside a bare loop.
    Bench(bench::BenchArguments),
    /// Build the programs that are installed, for speed: under `target/dist`.
    Dist,
    /// Build and run the one-process program with data under the target directory.
    Dev(dev::DevArguments),
}

fn main() -> ExitCode {
    let done = match XtaskArguments::parse().command {
        XtaskCommand::Test(arguments) => test::run(&arguments),
        XtaskCommand::Tidy => tidy::run(),
        XtaskCommand::Bench(arguments) => bench::run(&arguments),
        XtaskCommand::Dist => dist::run(),
        XtaskCommand::Dev(arguments) => dev::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
