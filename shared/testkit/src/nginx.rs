//! nginx serving files: a real HTTP server with ranges, conditional requests and compression.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use goldleaves_toolbox::Toolbox;
use tokio::net::TcpStream;

use crate::child::{Child, wait_for};
use crate::scratch::Scratch;
use crate::secure::TlsIdentity;

/// A running nginx. It ends with the value.
#[derive(Debug)]
pub struct Nginx {
    address: SocketAddr,
    _child: Child,
    scratch: Scratch,
}

impl Nginx {
    /// Serves files, given by name and content, from a folder of its own. Text is compressed for who accepts gzip.
    ///
    /// # Errors
    /// nginx is missing, or does not start.
    pub async fn serving(files: &[(&str, &[u8])]) -> Result<Self> {
        let site = "gzip on; gzip_proxied any; gzip_types text/plain; gzip_min_length 1; root files;";
        Self::start(site, files).await
    }

    /// Starts nginx with the inside of a `server` block.
    ///
    /// # Errors
    /// nginx is missing, or does not start.
    pub async fn start(server: &str, files: &[(&str, &[u8])]) -> Result<Self> {
        Self::listening("", server, files).await
    }

    /// Starts nginx with TLS and the inside of a `server` block.
    ///
    /// # Errors
    /// nginx is missing, or does not start.
    pub async fn start_secure(identity: &TlsIdentity, server: &str) -> Result<Self> {
        let (certificate, key) = (identity.certificate.display(), identity.key.display());
        Self::listening(" ssl", &format!("ssl_certificate {certificate}; ssl_certificate_key {key}; {server}"), &[])
            .await
    }

    async fn listening(how: &str, server: &str, files: &[(&str, &[u8])]) -> Result<Self> {
        let scratch = Scratch::new("nginx")?;
        std::fs::create_dir(scratch.join("files")).context("a folder for nginx's files")?;
        for (name, content) in files {
            std::fs::write(scratch.join("files").join(name), content).context("a file for nginx")?;
        }
        // nginx cannot choose its port. Another process may take ours in between: then the next one is tried.
        for _ in 0..20 {
            let port =
                TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("a port")?.port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            std::fs::write(scratch.join("nginx.conf"), configuration(address, how, server)).context("nginx.conf")?;
            if let Some(child) = launch(&scratch, address).await? {
                return Ok(Self { address, _child: child, scratch });
            }
        }
        bail!("no free port for nginx")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns what it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("error.log")).unwrap_or_default()
    }
}

/// Waits until it listens; none when the port was taken.
async fn launch(scratch: &Scratch, address: SocketAddr) -> Result<Option<Child>> {
    let log = scratch.join("error.log");
    let mut command = Command::new(Toolbox::of_target().nginx()?);
    command.arg("-p").arg(scratch.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Child::spawn(command, "nginx")?;
    let log_text = |log: &Path| std::fs::read_to_string(log).unwrap_or_default();
    let listening = wait_for("nginx to listen", Duration::from_secs(30), async || {
        if let Some(status) = child.ended()? {
            let text = log_text(&log);
            anyhow::ensure!(text.contains("Address already in use"), "nginx ended with {status}: {text}");
            return Ok(Some(false));
        }
        Ok(TcpStream::connect(address).await.is_ok().then_some(true))
    });
    Ok(listening.await?.then_some(child))
}

/// One process without a master, which dies with the kill that reaches it.
fn configuration(address: SocketAddr, how: &str, server: &str) -> String {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path temporary_{kind}; "))
        .concat();
    format!(
        "daemon off; master_process off; {user} pid nginx.pid; error_log error.log warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off; {temporary}\n  types {{ text/plain txt; text/html html; application/json json; }}\n  \
         default_type application/octet-stream;\n  server {{ listen {address}{how}; {server} }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Request;

    #[tokio::test]
    async fn it_serves_files_and_ranges() {
        let nginx = Nginx::serving(&[("a.txt", b"0123456789")]).await.unwrap();
        let response = Request::get("/a.txt").header("Range", "bytes=2-4").send(nginx.address()).await.unwrap();
        assert_eq!(response.status, 206, "{}", nginx.log());
        assert_eq!(response.text().as_str(), "234", "{}", nginx.log());
    }
}
