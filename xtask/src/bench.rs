//! `cargo xtask bench`: builds what is measured with the release profile and starts the measuring programs, that of the spool
//! and that of `e2e`.

use std::process::ExitCode;

use anyhow::Context;
use goldleaves_toolbox::{GOLDLEAVES_BIN_DIR, target_directory};

use crate::cargo::cargo;

/// Describes what to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this; both when left out.
    what: Option<What>,
    /// Arguments of the measuring programs: `--rounds N`, `--millis N`.
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The spool beside a bare loop.
    Spool,
    /// The gateway beside its upstream and its peers.
    Http,
    /// A worker beside the bare statement. Only when it is named.
    Ingest,
}

/// Builds and measures; the tables are printed as Markdown.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.what == Some(What::Ingest) {
        let done = build("goldleaves-meter-worker")? && measure(("goldleaves-e2e", "ingest"), &arguments.rest)?;
        return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let wants = |what| arguments.what.is_none_or(|only| only == what);
    let done = (!wants(What::Spool) || measure(("goldleaves-spool", "measure"), &arguments.rest)?)
        && (!wants(What::Http)
            || (build("goldleaves")?
                && build("goldleaves-gateway")?
                && measure(("goldleaves-e2e", "measure"), &arguments.rest)?));
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build(package: &str) -> anyhow::Result<bool> {
    let built = cargo().args(["build", "--release", "--package", package, "--bins"]).status();
    Ok(built.context("cannot start cargo")?.success())
}

fn measure((package, bench): (&str, &str), rest: &[String]) -> anyhow::Result<bool> {
    let mut measure = cargo();
    measure.args(["bench", "--package", package, "--bench", bench, "--"]).args(rest);
    measure.env(GOLDLEAVES_BIN_DIR, target_directory().join("release"));
    Ok(measure.status().context("cannot start cargo")?.success())
}
