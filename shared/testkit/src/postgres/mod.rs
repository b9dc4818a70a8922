//! A real PostgreSQL as a child process: private, on a free port, gone when the test process is, however that ends.
//!
//! The programs are those of `POSTGRES_BIN_DIR`, else of the `PATH`, else the newest of `/usr/lib/postgresql/*/bin`; 14
//! or newer. Nothing is downloaded here: `cargo xtask test` does that. `initdb` refuses root, so under root everything
//! runs as `postgres` or `nobody`. Data is not synced to the disk: a test survives no power cut, but any kill.

mod copies;

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::lent_disk::LentDisk;

/// The longest time a server may take to take connections.
const START_SECS_MAX: u64 = 60;
/// The number of free ports that are tried; somebody else may take one before the server does.
const PORTS_TRIED: usize = 5;
/// The migrated database that each test's own is a copy of.
const TEMPLATE: &str = "goldleaves_template";

/// Starts the server and waits for the pipe on its standard input to close, which happens when the test process ends,
/// whatever ends it. Then the server and its data go, unless the pipe said to keep the data.
const KEEPER: &str = r#"
"$1"/postgres -D "$2"/data -p "$3" -h 127.0.0.1 -k "$2" -F -c full_page_writes=off -c max_connections=200 \
    -c shared_buffers=64MB -c log_line_prefix='%m %p %d ' >>"$2"/log 2>&1 </dev/null &
server=$!
echo $server >"$2"/pid.new && mv "$2"/pid.new "$2"/pid
order=$(cat)
kill -QUIT $server 2>/dev/null
wait
[ "$order" = keep ] || rm -rf "$2"
"#;

/// One server. Keeps its port and its data when it is killed and started again.
#[derive(Debug)]
pub struct Postgres {
    keeper: Option<Child>,
    programs: PathBuf,
    /// The file system that all of it is on, where that is its own.
    disk: Option<LentDisk>,
    directory: TempDir,
    port: u16,
    owner: Option<(u32, u32)>,
    databases: AtomicU32,
    template: OnceCell<()>,
}

impl Postgres {
    /// The server that all tests of this process share.
    ///
    /// # Errors
    /// No usable programs, or the server does not come up.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// A server of one's own, to be killed and started again.
    ///
    /// # Errors
    /// As [`Postgres::shared`].
    pub async fn start() -> Result<Self> {
        Self::prepare()?.first_launch().await
    }

    /// A server of one's own, on a disk of its own of so many MiB.
    ///
    /// # Errors
    /// As [`Postgres::shared`], or no right to mount.
    pub async fn start_on_disk(mib: u32) -> Result<Self> {
        let mut server = Self::prepare()?;
        server.lend_disk(mib)?;
        server.first_launch().await
    }

    fn prepare() -> Result<Self> {
        let programs = find_programs()?;
        let (directory, owner) = home()?;
        let (databases, template) = (AtomicU32::new(0), OnceCell::new());
        Ok(Self { keeper: None, programs, disk: None, directory, port: 0, owner, databases, template })
    }

    async fn first_launch(self) -> Result<Self> {
        let mut server = self;
        server.make_data()?;
        for _ in 0..PORTS_TRIED {
            server.port = free_port()?;
            if server.launch().await? {
                return Ok(server);
            }
        }
        bail!("PostgreSQL does not come up: {}", server.log())
    }

    /// A fresh database with the ledger's schema, as an URL.
    ///
    /// # Errors
    /// The server is gone, or the migration fails.
    pub async fn database(&self) -> Result<String> {
        self.template
            .get_or_try_init(|| async {
                self.execute(&format!("CREATE DATABASE {TEMPLATE}")).await?;
                goldleaves_migrations::up(&self.url(TEMPLATE), &|_| ()).await.context("migrating the template")
            })
            .await?;
        self.create(&format!(" TEMPLATE {TEMPLATE}")).await
    }

    /// A fresh database with nothing in it, as an URL.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn empty_database(&self) -> Result<String> {
        self.create("").await
    }

    /// The URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://goldleaves@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where its data, its log and its socket are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The server's own log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Runs statements in the server's maintenance database.
    ///
    /// # Errors
    /// What the server says.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.execute_in("postgres", sql).await
    }

    /// Runs statements in one of its databases.
    ///
    /// # Errors
    /// What the server says.
    pub async fn execute_in(&self, database: &str, sql: &str) -> Result<()> {
        let connection = self.connect(database).await?;
        let done = connection.execute_unprepared(sql).await.with_context(|| format!("running {sql}"));
        connection.close().await?;
        done.map(drop)
    }

    /// Kills the server and every process of it, as a crash would.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.signal_all(Signal::STOP)?;
        self.signal_all(Signal::KILL)?;
        self.wait_gone();
        self.dismiss_keeper(b"keep");
        Ok(())
    }

    /// Stops the server's main process and all its children in their tracks, as if the machine hung.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Ends a [`Postgres::pause`].
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// Starts a killed server again, with its data, on its port.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.launch().await?, "PostgreSQL does not come up again: {}", self.log());
        Ok(())
    }

    async fn create(&self, from: &str) -> Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name}{from}")).await?;
        Ok(self.url(&name))
    }

    async fn connect(&self, database: &str) -> Result<DatabaseConnection> {
        let mut options = sea_orm::ConnectOptions::new(self.url(database));
        options.max_connections(1).sqlx_logging(false);
        Ok(Database::connect(options).await?)
    }

    fn make_data(&self) -> Result<()> {
        let mut initdb = self.command(&self.programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=goldleaves", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        let done = initdb.arg(self.directory.path().join("data")).output().context("running initdb")?;
        ensure!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        if self.disk.is_some() {
            let settings = self.directory.path().join("data/postgresql.auto.conf");
            let mut file = std::fs::File::options().append(true).open(settings).context("the server's settings")?;
            file.write_all(b"max_wal_size = '128MB'\nmin_wal_size = '32MB'\n").context("the server's settings")?;
        }
        Ok(())
    }

    /// Starts the server; `false` when it gave up, as it does when somebody else took the port.
    async fn launch(&mut self) -> Result<bool> {
        let _ = std::fs::remove_file(self.directory.path().join("pid"));
        let mut keeper = self.command(Path::new("/bin/sh"));
        keeper.args(["-c", KEEPER, "postgres-of-a-test"]).arg(&self.programs).arg(self.directory.path());
        keeper.arg(self.port.to_string()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.keeper = Some(keeper.spawn().context("starting the server")?);
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while Instant::now() < deadline {
            if let Ok(connection) = self.connect("postgres").await {
                connection.close().await?;
                return Ok(true);
            }
            if self.postmaster().is_ok_and(|pid| test_kill_process(pid).is_err()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.dismiss_keeper(b"keep");
        Ok(false)
    }

    fn dismiss_keeper(&mut self, order: &[u8]) {
        if let Some(mut keeper) = self.keeper.take() {
            // A keeper that is gone has done its work.
            let _ = keeper.stdin.take().map(|mut pipe| pipe.write_all(order));
            let _ = keeper.wait();
        }
    }

    /// A command that runs as whoever may run a server.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("LC_ALL", "C");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn postmaster(&self) -> Result<Pid> {
        let pid = std::fs::read_to_string(self.directory.path().join("pid")).context("the server does not run")?;
        Pid::from_raw(pid.trim().parse()?).context("no process id")
    }

    fn signal_all(&self, signal: Signal) -> Result<()> {
        let postmaster = self.postmaster()?;
        let id = postmaster.as_raw_nonzero();
        // Stopped first and killed last, the postmaster forks nothing that is not in the list.
        if signal == Signal::STOP {
            kill_process(postmaster, signal)?;
        }
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        for child in children.split_whitespace() {
            if let Some(child) = Pid::from_raw(child.parse()?) {
                // One that has ended meanwhile needs no signal.
                let _ = kill_process(child, signal);
            }
        }
        if signal != Signal::STOP {
            kill_process(postmaster, signal)?;
        }
        Ok(())
    }

    /// Waits until no process of the server is left; each works in the data directory.
    fn wait_gone(&self) {
        let data = self.directory.path().join("data");
        let is_there = || {
            let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            processes
                .map(|entry| std::fs::read_link(entry.path().join("cwd")))
                .any(|cwd| cwd.is_ok_and(|cwd| cwd == data))
        };
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while is_there() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A paused server hears nothing else.
        let _ = self.signal_all(Signal::CONT);
        self.dismiss_keeper(b"");
    }
}

/// A folder that belongs to whom the server is to run as.
fn home() -> Result<(TempDir, Option<(u32, u32)>)> {
    let owner = unprivileged()?;
    let directory = tempfile::Builder::new().prefix("goldleaves-postgres-").tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    if let Some((user, group)) = owner {
        chown(directory.path(), Some(user), Some(group))?;
    }
    Ok((directory, owner))
}

fn find_programs() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("POSTGRES_BIN_DIR") {
        let directory = PathBuf::from(directory);
        ensure!(directory.join("initdb").exists(), "POSTGRES_BIN_DIR={} has no initdb", directory.display());
        return Ok(directory);
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    installed.sort();
    std::env::split_paths(&on_path)
        .chain(installed.into_iter().rev().filter(|(version, _)| *version >= 14).map(|(_, path)| path))
        .find(|directory| directory.join("initdb").exists() && directory.join("postgres").exists())
        .context("no PostgreSQL of 14 or newer: set POSTGRES_BIN_DIR, or run `cargo xtask test`, which installs one")
}

/// Under root, whom the server is to run as.
pub(crate) fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let mut fields = users.lines().find(|line| line.starts_with(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let user = find("postgres:").or_else(|| find("nobody:"));
    user.map(Some).context("root may not run PostgreSQL, and there is neither a user postgres nor nobody")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
