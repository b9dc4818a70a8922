//! haproxy as an upstream that nobody here wrote: it answers by itself, over HTTP/1.1 or over HTTP/2 with prior knowledge.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use goldleaves_toolbox::Toolbox;
use tokio::net::TcpStream;

use crate::child::{Child, wait_for};
use crate::scratch::Scratch;

/// The protocol that it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    One,
    /// HTTP/2, and nothing else.
    Two,
}

/// A running haproxy. It ends with the value.
#[derive(Debug)]
pub struct Haproxy {
    address: SocketAddr,
    _child: Child,
    scratch: Scratch,
}

impl Haproxy {
    /// Starts it with these rules of its frontend, such as `http-request return status 200`.
    ///
    /// # Errors
    /// haproxy is missing, or does not start.
    pub async fn start(protocol: Protocol, rules: &[&str]) -> Result<Self> {
        let scratch = Scratch::new("haproxy")?;
        // haproxy cannot choose its port. Another process may take ours in between: then the next one is tried.
        for _ in 0..20 {
            let port =
                TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("a port")?.port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            std::fs::write(scratch.join("haproxy.cfg"), configuration(address, protocol, rules))
                .context("haproxy.cfg")?;
            if let Some(child) = launch(&scratch, address).await? {
                return Ok(Self { address, _child: child, scratch });
            }
        }
        bail!("no free port for haproxy")
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns its complaints.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("output")).unwrap_or_default()
    }
}

/// Waits until it listens; none when the port was taken.
async fn launch(scratch: &Scratch, address: SocketAddr) -> Result<Option<Child>> {
    let output = scratch.join("output");
    let log = std::fs::File::create(&output).context("haproxy's output")?;
    let mut command = Command::new(Toolbox::of_target().haproxy()?);
    command.args(["-db", "-f", "haproxy.cfg"]).current_dir(scratch.path()).stdin(Stdio::null());
    command.stdout(log.try_clone().context("haproxy's output")?).stderr(log);
    let mut child = Child::spawn(command, "haproxy")?;
    let listening = wait_for("haproxy to listen", Duration::from_secs(30), async || {
        if let Some(status) = child.ended()? {
            let text = std::fs::read_to_string(&output).unwrap_or_default();
            anyhow::ensure!(text.contains("cannot bind"), "haproxy ended with {status}: {text}");
            return Ok(Some(false));
        }
        Ok(TcpStream::connect(address).await.is_ok().then_some(true))
    });
    Ok(listening.await?.then_some(child))
}

fn configuration(address: SocketAddr, protocol: Protocol, rules: &[&str]) -> String {
    let how = if protocol == Protocol::Two { " proto h2" } else { "" };
    let rules: String = rules.iter().map(|rule| format!("  {rule}\n")).collect();
    format!(
        "global\n  nbthread 1\n  maxconn 500\ndefaults\n  mode http\n  option http-keep-alive\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 60s\nfrontend upstream\n  bind {address}{how}\n{rules}"
    )
}
