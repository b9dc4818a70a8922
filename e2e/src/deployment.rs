//! The product, running: as one process, or as its programs over a real nats-server and PostgreSQL.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use rustix::process::Signal;

use crate::tables::Tables;

/// The secret that tests sign with.
pub const SECRET: &str = "a-secret-for-whole-system-tests-of-64-bytes-0123456789abcdefghij";
/// How long anything that happens by itself may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Which of the two deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One process, SQLite.
    Embedded,
}

/// A deployment with its data. What runs ends with the value; data of a failed test is kept.
#[derive(Debug)]
pub struct Deployment {
    kind: Kind,
    settings: BTreeMap<String, String>,
    /// The size of a disk that holds the data alone.
    disk_mib: Option<u32>,
    running: Option<Running>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Running {
    gateway: Program,
    gateway_address: SocketAddr,
    billing_address: SocketAddr,
    ops_address: SocketAddr,
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
        Ok(Self { kind, settings, disk_mib: None, running: None, scratch })
    }

    /// Starts what was stopped or killed, on the same data.
    ///
    /// # Errors
    /// A program does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "it runs already");
        let mut gateway = self.launch().start()?;
        let gateway_address = gateway.address("gateway").await?;
        let billing_address = gateway.address("billing").await?;
        let ops_address = gateway.address("ops").await?;
        let mut running = Running { gateway, gateway_address, billing_address, ops_address };
        wait_for("the gateway to be ready", PATIENCE, async || {
            ensure!(running.gateway.is_running()?, "it ended\n{}", running.gateway.output());
            let ready = Request::get("/health/ready").send(running.ops_address).await;
            Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
        })
        .await?;
        self.running = Some(running);
        Ok(())
    }

    /// The one process, or the gateway, as it would be started now.
    pub fn launch(&self) -> Launch {
        let Kind::Embedded = self.kind;
        let addresses = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
        let data = self.data_folder().display().to_string();
        let own = [("DATA_DIR", data), ("JWT_SECRET", SECRET.to_owned()), ("LOG_LEVEL", "info".to_owned())];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let launch = Launch::new("goldleaves", self.scratch.path()).settings(addresses).settings(own).settings(given);
        match self.disk_mib {
            Some(mib) => launch.on_small_disk(&self.data_folder(), mib),
            None => launch,
        }
    }

    /// Puts the data on a disk of its own, from the next start on; what it holds goes with the process.
    pub fn on_small_disk(&mut self, mib: u32) {
        self.disk_mib = Some(mib);
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
        self.running.as_mut().map(|running| &mut running.gateway).context("nothing runs")
    }

    /// Where the gateway listens.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn gateway(&self) -> Result<SocketAddr> {
        self.running.as_ref().map(|running| running.gateway_address).context("nothing runs")
    }

    /// Where the billing API listens.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn billing(&self) -> Result<SocketAddr> {
        self.running.as_ref().map(|running| running.billing_address).context("nothing runs")
    }

    /// Where metrics and health are.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn ops(&self) -> Result<SocketAddr> {
        self.running.as_ref().map(|running| running.ops_address).context("nothing runs")
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

    /// `kill -9` of the gateway's process (embedded: of everything).
    ///
    /// # Errors
    /// Nothing runs.
    pub fn kill(&mut self) -> Result<()> {
        self.running.take().context("nothing runs")?.gateway.kill()
    }

    /// Ctrl-C, and waits for the end.
    ///
    /// # Errors
    /// Nothing runs, or it does not end.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let mut running = self.running.take().context("nothing runs")?;
        running.gateway.signal(Signal::INT)?;
        running.gateway.wait().await
    }

    /// The sum of all samples of a metric.
    ///
    /// # Errors
    /// Nothing runs, or it has no metrics.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = Request::get("/metrics").send(self.ops()?).await?.text();
        let samples =
            text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with([' ', '{']));
        Ok(samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The ledger's tables.
    ///
    /// # Errors
    /// The database can't be opened.
    pub async fn tables(&self) -> Result<Tables> {
        let Kind::Embedded = self.kind;
        let file = self.data_folder().join("goldleaves.db");
        Tables::open(&format!("sqlite://{}?mode=ro", file.display())).await
    }

    /// What the usage summary of this month says of a tenant, once it counts so many events.
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
