//! Clients and servers that nobody here wrote, driven by scripts in Python: gRPC (grpcio) and WebSocket (websockets).

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use goldleaves_toolbox::Toolbox;

use crate::child::{Child, wait_for};
use crate::scratch::Scratch;

/// A running script. It ends with the value.
#[derive(Debug)]
pub struct Server {
    port: u16,
    _child: Child,
    scratch: Scratch,
}

impl Server {
    /// Starts a script that prints its port in a line of its own.
    ///
    /// # Errors
    /// Python or a package is missing, or the script ends.
    pub async fn start(script: &str) -> Result<Self> {
        let scratch = Scratch::new("peer")?;
        let (stdout, stderr) = (scratch.join("stdout"), scratch.join("stderr"));
        let mut command = python(script)?;
        command.current_dir(scratch.path()).stdout(std::fs::File::create(&stdout).context("a peer's output")?);
        command.stderr(std::fs::File::create(&stderr).context("a peer's output")?);
        let mut child = Child::spawn(command, "peer")?;
        let text = |file: &Path| std::fs::read_to_string(file).unwrap_or_default();
        let port = wait_for("a peer to print its port", Duration::from_secs(120), async || {
            if let Some(status) = child.ended()? {
                bail!("a peer ended with {status}: {}", text(&stderr));
            }
            let text = text(&stdout);
            Ok(text.ends_with('\n').then(|| text.trim().parse::<u16>().ok()).flatten())
        })
        .await?;
        Ok(Self { port, _child: child, scratch })
    }

    /// Where it listens, on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns what it printed to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("stderr")).unwrap_or_default()
    }
}

/// Runs a script to its end; what it prints.
///
/// # Errors
/// Python or a package is missing, or the script failed: with its words.
pub async fn run(script: &str, arguments: &[&str]) -> Result<String> {
    let mut command = tokio::process::Command::from(python(script)?);
    command.args(arguments).kill_on_drop(true);
    let output = command.output().await.context("running Python")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a peer failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn python(script: &str) -> Result<Command> {
    let tool = Toolbox::of_target().peers()?;
    let mut command = Command::new(tool.python);
    command.args(["-c", script]).stdin(Stdio::null());
    command.env("PYTHONPATH", tool.site).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}
