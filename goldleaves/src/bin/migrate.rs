//! The program that makes the schema, the rate version and, with `NATS_URL`, the stream.

use std::process::ExitCode;

use clap::{Args, FromArgMatches};
use goldleaves::cli::{MigrateArguments, Program};
use goldleaves::migrate;
use goldleaves::migrate_config::MigrateConfig;
use goldleaves_runtime::process::Source;
use goldleaves_runtime::{Exit, process};

const PROGRAM: goldleaves_runtime::Program = goldleaves_runtime::Program {
    name: "migrate",
    about: "Makes Goldleaves' schema and rate version (and, with NATS_URL, its stream); undoes the schema; says where it stands.",
};

fn main() -> ExitCode {
    process::end(run().unwrap_or_else(|exit| exit))
}

fn run() -> Result<Exit, Exit> {
    let matches = process::begin(MigrateArguments::augment_args(PROGRAM.command()))?;
    let arguments = MigrateArguments::from_arg_matches(&matches).map_err(|error| {
        process::say(&error);
        Exit::Usage
    })?;
    let config = Source::of(&matches).settings(|values| MigrateConfig::read(values, Program::Migrate))?;
    Ok(migrate::run(&config, &arguments))
}
