//! The distributed deployment as parts that fail apart: a gateway, any number of workers and a billing API over a
//! nats-server (or three) and a PostgreSQL of its own, with wires between them that can be cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::proxy::WireProxy;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;

use crate::deployment::SECRET;
use crate::nats_wire::NatsWire;
use crate::patience::PATIENCE;
use crate::tables::Tables;

/// The longest time a nats-server may take to answer; one without a leader never does.
const ANSWER_SECS: u64 = 3;

/// The proxies through which the programs reach their servers.
#[derive(Debug)]
pub struct Wires {
    /// From the gateway to NATS.
    pub gateway_nats: WireProxy,
    /// From the workers to NATS.
    pub worker_nats: WireProxy,
    /// From the workers to PostgreSQL.
    pub worker_postgres: WireProxy,
}

/// A running deployment. What runs ends with the value; data of a failed test is kept.
#[derive(Debug)]
pub struct Fleet {
    /// One nats-server, behind wires that can be cut, or three that replicate.
    pub nats: Vec<NatsServer>,
    /// The database server.
    pub postgres: Postgres,
    /// The wires.
    pub wires: Wires,
    gateway: Option<FleetGateway>,
    workers: Vec<FleetWorker>,
    address: watch::Sender<Option<SocketAddr>>,
    settings: BTreeMap<String, String>,
    database: String,
    scratch: Scratch,
}

#[derive(Debug)]
struct FleetGateway {
    program: Program,
    ops: SocketAddr,
}

#[derive(Debug)]
struct FleetWorker {
    program: Program,
    ops: SocketAddr,
}

impl Fleet {
    /// Starts servers, gateway and one worker in front of `upstream`.
    ///
    /// # Errors
    /// A program was not built, or something does not come up.
    pub async fn start(nats: Vec<NatsServer>, upstream: &str) -> Result<Self> {
        Self::start_with(nats, upstream, &[]).await
    }

    /// The same with further settings.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(nats: Vec<NatsServer>, upstream: &str, further: &[(&str, &str)]) -> Result<Self> {
        Self::start_over(nats, Postgres::start().await?, upstream, further).await
    }

    /// The same over a PostgreSQL that was started for it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_over(
        nats: Vec<NatsServer>,
        postgres: Postgres,
        upstream: &str,
        further: &[(&str, &str)],
    ) -> Result<Self> {
        let database = postgres.empty_database().await?;
        let (port, replicas) = (nats.first().context("no nats-server")?.port(), nats.len().to_string());
        let host = format!("127.0.0.1:{port}");
        let wires = Wires {
            gateway_nats: WireProxy::start(&host).await?,
            worker_nats: WireProxy::start(&host).await?,
            worker_postgres: WireProxy::start(&format!("127.0.0.1:{}", postgres.port())).await?,
        };
        let settings = [("UPSTREAM_URL", upstream), ("STREAM_REPLICAS", &replicas), ("STREAM_BYTES_MAX", "4GiB")];
        let settings =
            settings.iter().chain(further).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (address, _) = watch::channel(None);
        let scratch = Scratch::new("fleet")?;
        let (gateway, workers) = (None, Vec::new());
        let mut fleet = Self { nats, postgres, wires, gateway, workers, address, settings, database, scratch };
        fleet.migrate().await?;
        fleet.start_gateway().await?;
        fleet.start_worker().await?;
        Ok(fleet)
    }

    /// Declares what is missing; tries on while three servers are still electing.
    ///
    /// # Errors
    /// It can't be declared.
    pub async fn migrate(&self) -> Result<()> {
        let mut said = String::new();
        let migrated = wait_for("migrate", PATIENCE, async || {
            let done = self.launch("migrate", &self.nats_urls(None)).output()?;
            said = String::from_utf8_lossy(&done.stderr).into_owned();
            Ok(done.status.success().then_some(()))
        });
        migrated.await.with_context(|| said.clone())
    }

    /// One server is reached through the wire, three directly.
    fn nats_urls(&self, wire: Option<&WireProxy>) -> String {
        match wire.filter(|_| self.nats.len() == 1) {
            Some(wire) => format!("nats://{}", wire.address()),
            None => self.nats.iter().map(NatsServer::url).collect::<Vec<_>>().join(","),
        }
    }

    /// A program of this deployment, not started.
    fn launch(&self, program: &str, nats: &str) -> Launch {
        let any_port = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
        let own = [
            ("DATA_DIR", self.scratch.join("data").display().to_string()),
            ("JWT_SECRET", SECRET.to_owned()),
            ("NATS_URL", nats.to_owned()),
            ("DATABASE_URL", self.database.clone()),
        ];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        Launch::new(program, self.scratch.path()).settings(any_port).settings(own).settings(given)
    }

    /// A program of this deployment that reaches its servers directly, not started; the last setting of a name holds.
    pub fn program(&self, program: &str) -> Launch {
        self.launch(program, &self.nats_urls(None))
    }

    /// The database that the workers record into.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// A folder for files of the test, kept when it fails.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Changes a setting for the next start of a program.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// Where the gateway listens now, and wherever it listens later.
    pub fn address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }

    /// A token of a user of a tenant.
    ///
    /// # Errors
    /// Signing fails.
    pub fn token(&self, tenant: &str) -> Result<String> {
        Claims::new(tenant, "ann").sign(SECRET)
    }

    // === the gateway ===

    /// Starts the gateway on its data, and waits until it serves.
    ///
    /// # Errors
    /// It runs already, or does not come up.
    pub async fn start_gateway(&mut self) -> Result<()> {
        ensure!(self.gateway.is_none(), "the gateway runs");
        let mut program = self.launch("gateway", &self.nats_urls(Some(&self.wires.gateway_nats))).start()?;
        let (address, ops) = (program.address("gateway listens on").await?, program.address("ops on").await?);
        self.gateway = Some(FleetGateway { program, ops });
        self.address.send_replace(Some(address));
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_gateway(&mut self) -> Result<()> {
        self.address.send_replace(None);
        self.gateway.take().context("the gateway does not run")?.program.kill()
    }

    /// `SIGTERM`, and how it ended. Clients are not told that it goes.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub async fn stop_gateway(&mut self) -> Result<ExitStatus> {
        let mut program = self.gateway.take().context("the gateway does not run")?.program;
        program.signal(Signal::TERM)?;
        let status = program.wait().await?;
        self.address.send_replace(None);
        Ok(status)
    }

    /// The gateway's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn gateway(&mut self) -> Result<&mut Program> {
        self.gateway.as_mut().map(|gateway| &mut gateway.program).context("the gateway does not run")
    }

    /// A count the gateway shows: the sum of all samples of a metric, or the one whose labels are written out.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    pub async fn count(&self, name: &str) -> Result<u64> {
        let ops = self.gateway.as_ref().context("the gateway does not run")?.ops;
        let text = Request::get("/metrics").send(ops).await?.text();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = crate::metrics::sum(&text, name) as u64;
        Ok(count)
    }

    /// Waits until the gateway has handed over everything it holds.
    ///
    /// # Errors
    /// It does not.
    pub async fn relayed(&self, limit: Duration) -> Result<()> {
        let relayed = wait_for("the spool to be handed over", limit, async || {
            Ok((self.count("goldleaves_spool_unsent_records").await? == 0).then_some(()))
        });
        relayed.await
    }

    // === the workers ===

    /// Starts one more worker, and waits until it works or waits for what it needs.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_worker(&mut self) -> Result<()> {
        let through = self.wires.worker_postgres.address().port();
        let database = self.database.replace(&format!(":{}/", self.postgres.port()), &format!(":{through}/"));
        let launch = self.launch("meter-worker", &self.nats_urls(Some(&self.wires.worker_nats)));
        let mut worker = launch.setting("DATABASE_URL", database).start()?;
        let ops = worker.address("ops listens on").await?;
        self.workers.push(FleetWorker { program: worker, ops });
        Ok(())
    }

    /// Returns the number of workers that run.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// `kill -9` of one of them.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn kill_worker(&mut self, index: usize) -> Result<()> {
        ensure!(index < self.workers.len(), "there is no worker {index}");
        self.workers.swap_remove(index).program.kill()
    }

    /// Starts or stops (`SIGTERM`) workers until so many run.
    ///
    /// # Errors
    /// One does not start, does not end, or says that it left something undone.
    pub async fn scale(&mut self, workers: usize) -> Result<()> {
        while self.workers.len() < workers {
            self.start_worker().await?;
        }
        while self.workers.len() > workers
            && let Some(FleetWorker { program: mut worker, .. }) = self.workers.pop()
        {
            worker.signal(Signal::TERM)?;
            let status = worker.wait().await?;
            ensure!(status.success(), "a worker ended with {status}\n{}", worker.output());
        }
        Ok(())
    }

    /// A metric of each worker: the sum of all samples, or the one whose labels are written out.
    ///
    /// # Errors
    /// One does not answer.
    pub async fn of_workers(&self, name: &str) -> Result<Vec<f64>> {
        let mut found = Vec::new();
        for worker in &self.workers {
            let text = Request::get("/metrics").send(worker.ops).await?.text();
            found.push(crate::metrics::sum(&text, name));
        }
        Ok(found)
    }

    // === what they stand on ===

    /// Another server takes the place of the database's, which is gone: new connections of the workers go there.
    pub fn fail_over(&mut self, to: Postgres) {
        self.wires.worker_postgres.aim(&format!("127.0.0.1:{}", to.port()));
        self.database = self.database.replace(&format!(":{}/", self.postgres.port()), &format!(":{}/", to.port()));
        self.postgres = to;
    }

    /// A nats-server by its place.
    ///
    /// # Errors
    /// There are not so many.
    pub fn server(&mut self, index: usize) -> Result<&mut NatsServer> {
        self.nats.get_mut(index).context("no such nats-server")
    }

    /// Asks the first nats-server that answers, in NATS's own words.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ask_nats(&self, subject: &str, payload: &Value) -> Result<Value> {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        let mut last = Err(anyhow::anyhow!("no server"));
        for server in &self.nats {
            let asking = async { NatsWire::connect(server.port(), "", "").await?.ask(subject, &payload).await };
            let answer = tokio::time::timeout(Duration::from_secs(ANSWER_SECS), asking).await;
            last = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("{} does not answer", server.name())));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Makes what a dead worker was handed come back sooner than production does, as operations may.
    ///
    /// # Errors
    /// JetStream does not take it.
    pub async fn redeliver_after(&self, ack_wait: Duration) -> Result<()> {
        let port = self.nats.first().context("no nats-server")?.port();
        NatsWire::connect(port, "", "").await?.redeliver_after(ack_wait).await
    }

    /// Returns what JetStream says of the workers' consumer.
    ///
    /// # Errors
    /// It does not answer, or there is none.
    pub async fn consumer(&self) -> Result<Value> {
        let found = self.ask_nats("$JS.API.CONSUMER.INFO.USAGE.meter", &Value::Null).await?;
        ensure!(found.get("error").is_none(), "{found}");
        Ok(found)
    }

    /// Waits until the workers have acknowledged everything the stream holds by now. What comes meanwhile is not waited for: where
    /// clients go on there is always something.
    ///
    /// # Errors
    /// They do not.
    pub async fn recorded(&self, limit: Duration) -> Result<()> {
        let (mut last, mut wanted) = (Value::Null, None);
        let done = wait_for("the workers to be done", limit, async || {
            if wanted.is_none() {
                let stream = self.ask_nats("$JS.API.STREAM.INFO.USAGE", &Value::Null).await.unwrap_or_default();
                wanted = stream.pointer("/state/last_seq").and_then(Value::as_u64);
            }
            // A server that is busy answers late, and a consumer that was deleted is made again.
            let Ok(found) = self.consumer().await else { return Ok(None) };
            last = found;
            let number = |name: &str| last.get(name).and_then(Value::as_u64);
            let is_idle = number("num_pending") == Some(0) && number("num_ack_pending") == Some(0);
            let floor = last.pointer("/ack_floor/stream_seq").and_then(Value::as_u64);
            Ok((is_idle || wanted.is_some_and(|wanted| floor >= Some(wanted))).then_some(()))
        });
        done.await.with_context(|| format!("wanted {wanted:?}: {last}"))
    }

    /// The ledger's tables, over a wire of their own.
    ///
    /// # Errors
    /// The database can't be opened.
    pub async fn tables(&self) -> Result<Tables> {
        Tables::open(&self.database).await
    }
}
