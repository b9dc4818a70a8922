//! `cargo xtask dist`: builds what is installed, with the profile `dist`. It makes no archive and no image.

use std::process::ExitCode;

use anyhow::Context;
use goldleaves_toolbox::target_directory;

use crate::cargo::cargo;

/// The profile of what is shipped, and the folder of its programs.
pub(crate) const DIST: &str = "dist";

/// The packages whose programs are installed.
const SHIPPED: [&str; 4] = ["goldleaves", "goldleaves-gateway", "goldleaves-meter-worker", "goldleaves-billing-api"];

/// Builds every program that is shipped and says where they are.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    if !build_programs(&SHIPPED)? {
        return Ok(ExitCode::FAILURE);
    }
    let folder = target_directory().join(DIST);
    for program in ["goldleaves", "migrate", "gateway", "meter-worker", "billing-api"] {
        println!("{}", folder.join(program).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs of these packages as they are shipped. Returns whether they compile.
pub(crate) fn build_programs(packages: &[&str]) -> anyhow::Result<bool> {
    let mut build = cargo();
    build.args(["build", "--profile", DIST, "--locked", "--bins"]);
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    Ok(build.status().context("cannot start cargo")?.success())
}
