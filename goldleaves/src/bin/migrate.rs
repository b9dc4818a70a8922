//! The program that makes the schema, the rate version and, with `NATS_URL`, the stream.

use std::process::ExitCode;

use clap::Parser;
use goldleaves::cli::{MigrateArguments, Program};
use goldleaves::migrate::{self, MigrateConfig};
use goldleaves_runtime::process;

/// Makes Goldleaves' schema and rate version (and, with NATS_URL, its stream); undoes the schema; says where it stands.
#[derive(Debug, Parser)]
#[command(name = "migrate", version)]
struct Arguments {
    #[command(flatten)]
    migrate: MigrateArguments,
}

fn main() -> ExitCode {
    let direction = Arguments::parse().migrate.direction;
    let exit = process::settings(|values| MigrateConfig::read(values, Program::Migrate))
        .map(|config| migrate::run(&config, direction));
    process::end(exit.unwrap_or_else(|exit| exit))
}
