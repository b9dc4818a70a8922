//! The product, running: as one process, or as its programs over a real nats-server and PostgreSQL.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::disk::SmallDisk;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use rustix::process::Signal;

use crate::nats_wire::NatsWire;
pub use crate::patience::PATIENCE;
use crate::tables::Tables;

/// The secret that tests sign with.
pub const SECRET: &str = "a-secret-for-whole-system-tests-of-64-bytes-0123456789abcdefghij";

/// One of the two deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One process, SQLite.
    Embedded,
    /// gateway, meter-worker and billing-api over nats-server and PostgreSQL.
    Distributed,
}

/// A deployment with its data. What runs ends with the value; data of a failed test is kept.
#[derive(Debug)]
pub struct Deployment {
    kind: Kind,
    settings: BTreeMap<String, String>,
    /// A disk that holds the data alone.
    disk: Option<Disk>,
    /// A disk that outlives the programs that use it.
    kept: Option<SmallDisk>,
    /// True if the one process prints what it prints on a terminal.
    banner: bool,
    running: Option<RunningServices>,
    backing: Option<Backing>,
    scratch: Scratch,
}

#[derive(Debug, Clone, Copy)]
enum Disk {
    Small { mib: u32 },
    Full { mib: u32 },
}

#[derive(Debug)]
struct RunningServices {
    /// The gateway first, then what else runs.
    programs: Vec<Program>,
    gateway: SocketAddr,
    billing: SocketAddr,
    ops: SocketAddr,
}

/// The servers that the distributed deployment stands on.
#[derive(Debug)]
struct Backing {
    nats: NatsServer,
    database: String,
}

impl Deployment {
    /// A deployment in front of `upstream`, started.
    ///
    /// # Errors
    /// A program was not built, or does not come up.
    pub async fn start(kind: Kind, upstream: &str) -> Result<Self> {
        Self::start_with(kind, &[("UPSTREAM_URL", upstream)]).await
    }

    /// A deployment with these settings besides addresses, folder and secret.
    ///
    /// # Errors
    /// A program was not built, or does not come up.
    pub async fn start_with(kind: Kind, settings: &[(&str, &str)]) -> Result<Self> {
        let mut deployment = Self::prepare(kind, settings)?;
        deployment.start_again().await?;
        Ok(deployment)
    }

    /// The same, not started.
    ///
    /// # Errors
    /// No folder could be made.
    pub fn prepare(kind: Kind, settings: &[(&str, &str)]) -> Result<Self> {
        let scratch = Scratch::new("system")?;
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Self { kind, settings, disk: None, kept: None, banner: false, running: None, backing: None, scratch })
    }

    /// The same, whose one process prints what it prints on a terminal.
    #[must_use]
    pub fn with_banner(mut self) -> Self {
        self.banner = true;
        self
    }

    /// Starts what was stopped or killed, on the same data.
    ///
    /// # Errors
    /// A program does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.start_until(200).await
    }

    /// Starts it where it serves, but cannot do all it should.
    ///
    /// # Errors
    /// A program does not come up, or is ready all the same.
    pub async fn start_unready(&mut self) -> Result<()> {
        self.start_until(503).await
    }

    /// Starts, until the readiness is asked and answers with this status.
    async fn start_until(&mut self, status: u16) -> Result<()> {
        ensure!(self.running.is_none(), "it runs already");
        let mut running = match self.kind {
            Kind::Embedded => self.start_embedded().await?,
            Kind::Distributed => self.start_distributed().await?,
        };
        wait_for("the gateway's readiness", PATIENCE, async || {
            for program in &mut running.programs {
                ensure!(program.is_running()?, "it ended\n{}", program.output());
            }
            let ready = Request::get("/health/ready").send(running.ops).await;
            Ok(ready.is_ok_and(|response| response.status == status).then_some(()))
        })
        .await?;
        self.running = Some(running);
        Ok(())
    }

    async fn start_embedded(&self) -> Result<RunningServices> {
        let launch = if self.banner { self.launch().argument("--banner") } else { self.launch() };
        let mut program = launch.start()?;
        let (gateway, billing) = (program.address("gateway listens on").await?, program.address("billing on").await?);
        let ops = program.address("ops on").await?;
        Ok(RunningServices { programs: vec![program], gateway, billing, ops })
    }

    async fn start_distributed(&mut self) -> Result<RunningServices> {
        match &mut self.backing {
            Some(backing) => backing.nats.restart().await?,
            None => {
                let database = Postgres::shared().await?.empty_database().await?;
                self.backing = Some(Backing { nats: NatsServer::start().await?, database });
                let migrated = self.launch_program("migrate").output()?;
                ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
            }
        }
        let worker = self.launch_program("meter-worker").start()?;
        let mut billing_api = self.launch_program("billing-api").start()?;
        let billing = billing_api.address("billing listens on").await?;
        let launch = self.launch().setting("BILLING_URL", format!("http://{billing}"));
        let mut program = launch.start()?;
        let (gateway, ops) = (program.address("gateway listens on").await?, program.address("ops on").await?);
        Ok(RunningServices { programs: vec![program, worker, billing_api], gateway, billing, ops })
    }

    /// The program that clients meet, as it would be started now.
    pub fn launch(&self) -> Launch {
        let launch = match self.kind {
            Kind::Embedded => self.launch_program("goldleaves"),
            Kind::Distributed => self.launch_program("gateway"),
        };
        match self.disk {
            Some(Disk::Small { mib }) => launch.on_small_disk(&self.data_folder(), mib),
            Some(Disk::Full { mib }) => launch.on_full_disk(&self.data_folder(), mib),
            None => launch,
        }
    }

    /// One more of these programs beside those that run, for as long as its value lives.
    pub fn another(&self, program: &str) -> Launch {
        self.launch_program(program)
    }

    /// The URL of the database.
    ///
    /// # Errors
    /// It is not there yet.
    pub fn database(&self) -> Result<String> {
        match (&self.backing, self.kind) {
            (Some(backing), _) => Ok(backing.database.clone()),
            (None, Kind::Embedded) => Ok(format!("sqlite://{}", self.data_folder().join("goldleaves.db").display())),
            (None, Kind::Distributed) => bail!("nothing was started yet"),
        }
    }

    /// The program `goldleaves` on this deployment's data, for a command.
    pub fn command(&self) -> Launch {
        self.launch_program("goldleaves")
    }

    fn launch_program(&self, program: &str) -> Launch {
        let addresses = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
        let data = self.data_folder().display().to_string();
        let own = [("DATA_DIR", data), ("JWT_SECRET", SECRET.to_owned()), ("LOG_LEVEL", "info".to_owned())];
        let backing = self
            .backing
            .iter()
            .flat_map(|backing| [("NATS_URL", backing.nats.url()), ("DATABASE_URL", backing.database.clone())]);
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let mut launch = Launch::new(program, self.scratch.path()).settings(addresses).settings(own);
        if let Some(disk) = &self.kept {
            launch = launch.on_disk(disk);
        }
        launch.settings(backing).settings(given)
    }

    /// Puts the data on a disk of its own, from the next start on; what it holds goes with the process.
    pub fn on_small_disk(&mut self, mib: u32) {
        self.disk = Some(Disk::Small { mib });
    }

    /// The same, with the data that is there now, and full; the file `filler` in the data folder takes all that is left.
    pub fn on_full_disk(&mut self, mib: u32) {
        self.disk = Some(Disk::Full { mib });
    }

    /// The same, with a disk that is there when no program is: whatever was written stays.
    ///
    /// # Errors
    /// It can't be mounted.
    pub async fn on_kept_disk(&mut self, mib: u32) -> Result<&SmallDisk> {
        let disk = SmallDisk::mount(&self.data_folder(), mib).await?;
        Ok(self.kept.insert(disk))
    }

    /// The disk of [`Self::on_kept_disk`].
    ///
    /// # Errors
    /// There is none.
    pub fn kept_disk(&self) -> Result<&SmallDisk> {
        self.kept.as_ref().context("no disk of its own")
    }

    /// The folder of the programs' output, kept when the test fails.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// Where spool, database and secret are.
    pub fn data_folder(&self) -> PathBuf {
        self.scratch.join("data")
    }

    /// The program behind the gateway's address.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn program(&mut self) -> Result<&mut Program> {
        self.running.as_mut().and_then(|running| running.programs.first_mut()).context("nothing runs")
    }

    /// Every program that runs, the gateway first.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn programs(&mut self) -> Result<&mut [Program]> {
        self.running.as_mut().map(|running| running.programs.as_mut_slice()).context("nothing runs")
    }

    /// Where the gateway listens.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn gateway(&self) -> Result<SocketAddr> {
        self.running.as_ref().map(|running| running.gateway).context("nothing runs")
    }

    /// Where the billing API listens.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn billing(&self) -> Result<SocketAddr> {
        self.running.as_ref().map(|running| running.billing).context("nothing runs")
    }

    /// Where metrics and health are.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn ops(&self) -> Result<SocketAddr> {
        self.running.as_ref().map(|running| running.ops).context("nothing runs")
    }

    /// A token of a user of a tenant.
    ///
    /// # Errors
    /// Signing fails.
    pub fn token(&self, tenant: &str) -> Result<String> {
        Claims::new(tenant, "ann").sign(SECRET)
    }

    /// Asks the gateway.
    ///
    /// # Errors
    /// Nothing runs, or no whole response came.
    pub async fn ask(&self, request: &Request) -> Result<Response> {
        request.send(self.gateway()?).await
    }

    /// `kill -9` of the gateway first, then of every other program; distributed, of nats-server too.
    ///
    /// # Errors
    /// Nothing runs.
    pub async fn kill(&mut self) -> Result<()> {
        for program in &mut self.running.take().context("nothing runs")?.programs {
            program.kill()?;
        }
        self.kill_nats().await
    }

    /// `kill -9` of nats-server alone. Embedded there is none.
    ///
    /// # Errors
    /// It can't be waited for.
    pub async fn kill_nats(&mut self) -> Result<()> {
        match &mut self.backing {
            Some(backing) => backing.nats.kill().await,
            None => Ok(()),
        }
    }

    /// Starts nats-server again on its data, and nothing else.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn restart_nats(&mut self) -> Result<()> {
        match &mut self.backing {
            Some(backing) => backing.nats.restart().await,
            None => Ok(()),
        }
    }

    /// Ctrl-C for the gateway alone (embedded: for everything), and waits for its end.
    ///
    /// # Errors
    /// Nothing runs, or it does not end.
    pub async fn stop_gateway(&mut self) -> Result<ExitStatus> {
        let programs = &mut self.running.as_mut().context("nothing runs")?.programs;
        ensure!(!programs.is_empty(), "the gateway does not run");
        let mut gateway = programs.remove(0);
        gateway.signal(Signal::INT)?;
        gateway.wait().await
    }

    /// Lets JetStream redeliver a dead worker's messages after `ack_wait` instead of production's minute. The embedded
    /// form has none.
    ///
    /// # Errors
    /// JetStream does not take it.
    pub async fn redeliver_after(&self, ack_wait: Duration) -> Result<()> {
        match &self.backing {
            Some(backing) => NatsWire::connect(backing.nats.port(), "", "").await?.redeliver_after(ack_wait).await,
            None => Ok(()),
        }
    }

    /// Ctrl-C for the gateway, and once it has ended for the others; the worst exit status of them.
    ///
    /// # Errors
    /// Nothing runs, or it does not end.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.stop_with(Signal::INT).await
    }

    /// The same with another signal.
    ///
    /// # Errors
    /// Nothing runs, or it does not end.
    pub async fn stop_with(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut worst = ExitStatus::default();
        for program in &mut self.running.take().context("nothing runs")?.programs {
            program.signal(signal)?;
            let status = program.wait().await?;
            if !status.success() {
                worst = status;
            }
        }
        Ok(worst)
    }

    /// The sum of all samples of a metric.
    ///
    /// # Errors
    /// Nothing runs, or it has no metrics.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = Request::get("/metrics").send(self.ops()?).await?.text();
        Ok(crate::metrics::sum(&text, name))
    }

    /// The ledger's tables; not those of SQLite on a disk of its own, which only the program sees.
    ///
    /// # Errors
    /// The database can't be opened.
    pub async fn tables(&self) -> Result<Tables> {
        match &self.backing {
            Some(backing) => Tables::open(&backing.database).await,
            None => {
                Tables::open(&format!("sqlite://{}?mode=ro", self.data_folder().join("goldleaves.db").display())).await
            }
        }
    }

    /// Returns the usage summary of a tenant for this month, once it counts so many events.
    ///
    /// # Errors
    /// It never does; the last answer is in the error.
    pub async fn summary_of(&self, tenant: &str, events: u64) -> Result<serde_json::Value> {
        let target = format!("/billing/usage-summary/{tenant}");
        let request = Request::get(&target).token(&self.token(tenant)?);
        let mut last = String::new();
        let found = wait_for("the summary", PATIENCE, async || {
            let response = self.ask(&request).await?;
            last = response.text();
            ensure!(response.status == 200, "the summary: {} {last}", response.status);
            let summary = response.json()?;
            let count = summary.get("total_events").and_then(serde_json::Value::as_u64);
            Ok((count == Some(events)).then_some(summary))
        });
        found.await.with_context(|| format!("{events} events of {tenant}; it says {last}"))
    }
}
