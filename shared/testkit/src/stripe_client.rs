//! Stripe's own client for Python, as the judge of the double and as the signer of webhooks.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use goldleaves_toolbox::Toolbox;
use tokio::process::Command;

/// Runs a script with the client installed; what it prints.
///
/// # Errors
/// The client is missing, or the script failed: with its words.
pub async fn run(script: &str, arguments: &[&str]) -> Result<String> {
    let tool = Toolbox::of_target().stripe()?;
    let mut command = Command::new(tool.python);
    command.args(["-c", script]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.env("PYTHONPATH", tool.site).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().await.context("running Python")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the client of Stripe failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
