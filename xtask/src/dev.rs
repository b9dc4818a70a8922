//! `cargo xtask dev`: the one-process program, built without optimisation, its data under the target directory.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Context;
use goldleaves_toolbox::target_directory;

use crate::cargo::cargo;

/// The arguments to pass on.
#[derive(clap::Args)]
pub(crate) struct DevArguments {
    /// Arguments of the program, for example `-- token --tenant acme --user ann`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds and becomes the program, so that Ctrl-C reaches it alone. Settings in the environment win over those set here.
pub(crate) fn run(arguments: &DevArguments) -> anyhow::Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--package", "goldleaves", "--bin", "goldleaves", "--"]).args(&arguments.rest);
    for (name, value) in [("DATA_DIR", target_directory().join("dev")), ("DEBUG", "true".into())] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    Err(command.exec()).context("cannot start cargo")
}
