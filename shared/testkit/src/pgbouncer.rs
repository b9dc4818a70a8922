//! A real PgBouncer before a PostgreSQL: private, on a free port, gone with the value. It refuses to run as root.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use goldleaves_toolbox::Toolbox;
use tokio::net::TcpStream;

use crate::child::{Child, wait_for};
use crate::postgres::{Postgres, unprivileged};
use crate::scratch::Scratch;

/// The number of free ports that are tried; somebody else may take one before it does.
const PORTS_TRIED: usize = 20;

/// A running PgBouncer. It ends with the value.
#[derive(Debug)]
pub struct PgBouncer {
    address: SocketAddr,
    _child: Child,
    scratch: Scratch,
}

impl PgBouncer {
    /// Starts one with further lines for its section `[pgbouncer]`, such as `pool_mode = session`, and else its defaults.
    ///
    /// # Errors
    /// PgBouncer is missing, or does not start.
    pub async fn start(server: &Postgres, lines: &str) -> Result<Self> {
        let scratch = Scratch::new("pgbouncer")?;
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).context("its folder")?;
        let owner = unprivileged()?;
        if let Some((user, group)) = owner {
            chown(scratch.path(), Some(user), Some(group)).context("its folder")?;
        }
        for _ in 0..PORTS_TRIED {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (text, file) = (configuration(server, address, lines), scratch.join("pgbouncer.ini"));
            std::fs::write(file, text).context("pgbouncer.ini")?;
            if let Some(child) = launch(&scratch, address, owner).await? {
                return Ok(Self { address, _child: child, scratch });
            }
        }
        bail!("no free port for PgBouncer")
    }

    /// The same database as that of an URL of the server, through it.
    ///
    /// # Errors
    /// It is no URL of a database.
    pub fn through(&self, url: &str) -> Result<String> {
        let (_, database) = url.rsplit_once('/').context("an URL of a database")?;
        Ok(format!("postgresql://goldleaves@{}/{database}", self.address))
    }

    /// Returns what it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }
}

/// Waits until it listens; none when the port was taken.
async fn launch(scratch: &Scratch, address: SocketAddr, owner: Option<(u32, u32)>) -> Result<Option<Child>> {
    let mut command = Command::new(Toolbox::of_target().pgbouncer()?);
    command.arg(scratch.join("pgbouncer.ini")).current_dir(scratch.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    let mut child = Child::spawn(command, "pgbouncer")?;
    let log = scratch.join("log");
    let listening = wait_for("PgBouncer to listen", Duration::from_secs(30), async || {
        if let Some(status) = child.ended()? {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            ensure!(text.contains("Address already in use"), "PgBouncer ended with {status}: {text}");
            return Ok(Some(false));
        }
        Ok(TcpStream::connect(address).await.is_ok().then_some(true))
    });
    Ok(listening.await?.then_some(child))
}

fn configuration(server: &Postgres, address: SocketAddr, lines: &str) -> String {
    format!(
        "[databases]\n* = host=127.0.0.1 port={} user=goldleaves\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
         unix_socket_dir =\nauth_type = any\nlogfile = log\n{lines}\n",
        server.port(),
        address.ip(),
        address.port(),
    )
}
