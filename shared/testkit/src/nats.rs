//! Real nats-servers with JetStream as child processes: started on free ports, killed without mercy, stopped with their
//! data on drop.
//!
//! The binary is `NATS_SERVER_BIN`, else `nats-server` on the `PATH`, else what `cargo xtask test` installed; it must be
//! 2.10 or newer. Nothing is downloaded here.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use goldleaves_toolbox::Toolbox;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::child::die_with_parent;
use crate::lent_disk::LentDisk;

/// The longest time a server may take to answer on its port.
const START_SECS_MAX: u64 = 30;

/// The bytes that JetStream may reserve for its streams. Unset it is three quarters of the free disk, and whether a
/// stream can be made would depend on the machine; nothing is allocated before it is stored.
const STORE_BYTES_MAX: u64 = 64 << 30;

/// One nats-server with JetStream on file storage. Keeps its port and its data over restarts.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    /// The file system that its data is on, where that is its own.
    disk: Option<LentDisk>,
    directory: TempDir,
    settings: Settings,
}

/// Three nats-servers that replicate.
#[derive(Debug)]
pub struct NatsCluster {
    /// The servers, in no particular order.
    pub servers: Vec<NatsServer>,
}

#[derive(Debug)]
struct Settings {
    name: String,
    port: u16,
    /// Further lines of the server's own configuration language.
    extra: String,
}

impl NatsServer {
    /// Starts a server that needs no credentials.
    ///
    /// # Errors
    /// No usable binary, or the server does not come up.
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// Starts a server with further lines of configuration, such as `authorization { token: "t" }`.
    ///
    /// # Errors
    /// No usable binary, or the server does not come up with this configuration.
    pub async fn start_with(extra: &str) -> Result<Self> {
        let mut server = Self::prepare("single", free_port()?, extra.to_owned())?;
        server.launch().await?;
        Ok(server)
    }

    /// Starts a server whose data is on a disk of its own, of so many MiB.
    ///
    /// # Errors
    /// No usable binary, no right to mount, or the server does not come up.
    pub async fn start_on_disk(mib: u32) -> Result<Self> {
        let mut server = Self::prepare("single", free_port()?, String::new())?;
        server.disk = Some(LentDisk::mount(&server.disk_path(), mib)?);
        server.launch().await?;
        Ok(server)
    }

    /// The disk of its own that its data is on.
    pub fn disk(&self) -> Option<&LentDisk> {
        self.disk.as_ref()
    }

    fn prepare(name: &str, port: u16, extra: String) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("goldleaves-nats-").tempdir().context("a directory for NATS")?;
        Ok(Self { child: None, disk: None, directory, settings: Settings { name: name.to_owned(), port, extra } })
    }

    /// `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.settings.port)
    }

    /// The port clients use.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// The name the server calls itself, which is what cluster reports use.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Returns what the server has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// The process can't be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("killing nats-server")?;
        }
        Ok(())
    }

    /// Starts the server again on the same port with the same data; a running one is killed first.
    ///
    /// # Errors
    /// The server does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch().await
    }

    /// Forgets all data of a server that was killed.
    ///
    /// # Errors
    /// The server runs, or the data can't be removed.
    pub fn wipe(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "kill the server before wiping its data");
        match std::fs::remove_dir_all(self.store_path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("wiping JetStream's data"),
            _ => Ok(()),
        }
    }

    /// Copies all data of a server that was killed, as a backup would; [`Self::restore`] puts it back.
    ///
    /// # Errors
    /// The server runs, or the data can't be copied.
    pub fn back_up(&self) -> Result<TempDir> {
        ensure!(self.child.is_none(), "kill the server before copying its data");
        let copy = tempfile::tempdir().context("a directory for the backup")?;
        copy_directory(&self.store_path(), copy.path())?;
        Ok(copy)
    }

    /// Copies all data of a running server as it is at this moment (`SIGSTOP`, copy, `SIGCONT`): what a power cut a little
    /// later would have left of it; [`Self::restore`] puts it back.
    ///
    /// # Errors
    /// The server does not run, or the data can't be copied.
    pub fn copy_at_this_moment(&self) -> Result<TempDir> {
        let copy = tempfile::tempdir().context("a directory for the copy")?;
        self.suspend()?;
        let copied = copy_directory(&self.store_path(), copy.path());
        self.resume()?;
        copied.map(|()| copy)
    }

    /// Puts a backup in the place of the data of a server that was killed.
    ///
    /// # Errors
    /// The server runs, or the data can't be copied.
    pub fn restore(&mut self, backup: &TempDir) -> Result<()> {
        self.wipe()?;
        copy_directory(backup.path(), &self.store_path())
    }

    /// `SIGSTOP`: the server hangs, its connections stay open.
    ///
    /// # Errors
    /// The server does not run.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// `SIGCONT`: undoes [`Self::suspend`].
    ///
    /// # Errors
    /// The server does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// `SIGUSR2`: lame duck mode, the server asks its clients to go elsewhere.
    ///
    /// # Errors
    /// The server does not run.
    pub fn lame_duck(&self) -> Result<()> {
        self.signal(Signal::USR2)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().and_then(Child::id).context("nats-server is not running")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("nats-server has no process id")?;
        kill_process(pid, signal).context("signalling nats-server")
    }

    async fn launch(&mut self) -> Result<()> {
        let config = self.directory.path().join("nats.conf");
        let Settings { name, port, extra } = &self.settings;
        let store = self.store_path();
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nserver_name: \"{name}\"\n\
             jetstream {{ store_dir: \"{}\", max_file_store: {STORE_BYTES_MAX} }}\n{extra}\n",
            store.display()
        );
        std::fs::write(&config, text).context("writing nats.conf")?;
        let log =
            std::fs::File::options().create(true).append(true).open(self.log_path()).context("opening the log")?;
        let mut command = Command::new(binary()?);
        command.arg("-c").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        die_with_parent(command.as_std_mut());
        self.child = Some(command.spawn().context("starting nats-server")?);
        self.wait_until_listening().await
    }

    async fn wait_until_listening(&mut self) -> Result<()> {
        let port = self.settings.port;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(START_SECS_MAX);
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().context("waiting for nats-server")?
            {
                bail!("nats-server ended with {status}:\n{}", self.log());
            }
            ensure!(tokio::time::Instant::now() < deadline, "nats-server does not listen:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn store_path(&self) -> PathBuf {
        if self.disk.is_some() { self.disk_path().join("store") } else { self.directory.path().join("store") }
    }

    fn disk_path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("nats.log")
    }
}

impl NatsCluster {
    /// Starts three servers that know one another.
    ///
    /// # Errors
    /// No usable binary, or a server does not come up.
    pub async fn start() -> Result<Self> {
        let ports = free_ports(6)?;
        let (clients, routes) = ports.split_at(3);
        let urls: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let mut servers = Vec::new();
        for (index, (client, route)) in clients.iter().zip(routes).enumerate() {
            let extra = format!(
                "cluster {{ name: goldleaves, listen: \"127.0.0.1:{route}\", no_advertise: true, routes: [{}] }}",
                urls.join(", ")
            );
            let mut server = NatsServer::prepare(&format!("n{index}"), *client, extra)?;
            server.launch().await?;
            servers.push(server);
        }
        Ok(Self { servers })
    }

    /// All three URLs, separated by commas.
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// The server of this name.
    pub fn server(&mut self, name: &str) -> Option<&mut NatsServer> {
        self.servers.iter_mut().find(|server| server.name() == name)
    }
}

/// Where nats-server is.
///
/// # Errors
/// It is nowhere, or too old.
pub fn binary() -> Result<PathBuf> {
    Ok(Toolbox::of_target().nats_server()?)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .context("a free port")?
        .port())
}

/// Distinct ports: all are held before the first is given back.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let sockets: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()
        .context("free ports")?;
    sockets.iter().map(|socket| Ok(socket.local_addr().context("a free port")?.port())).collect()
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).context("making a directory")?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.context("reading a directory")?;
        let target = to.join(entry.file_name());
        if entry.file_type().context("reading a file type")?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).context("copying a file")?;
        }
    }
    Ok(())
}
