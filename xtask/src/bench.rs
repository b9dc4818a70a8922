//! `cargo xtask bench`: builds what is measured with the release profile and starts the measuring program of `e2e`.

use std::process::ExitCode;

use anyhow::Context;
use goldleaves_toolbox::{GOLDLEAVES_BIN_DIR, target_directory};

use crate::cargo::cargo;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Arguments of the measuring program; `-- --help` lists them.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds and measures; the tables are printed as Markdown.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let built = cargo()
        .args(["build", "--release", "--package", "goldleaves", "--package", "goldleaves-gateway", "--bins"])
        .status();
    if !built.context("cannot start cargo")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut measure = cargo();
    measure.args(["bench", "--package", "goldleaves-e2e", "--bench", "measure", "--"]).args(&arguments.rest);
    measure.env(GOLDLEAVES_BIN_DIR, target_directory().join("release"));
    let measured = measure.status().context("cannot start cargo")?;
    Ok(if measured.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
