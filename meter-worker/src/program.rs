//! The meter-worker as a program of its own: from JetStream into the ledger. It serves nothing but its ops endpoints.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use goldleaves_ledger::{Ledger, PoolUse, StoreOptions};
use goldleaves_runtime::reload::{Reloads, Taken, is_of_all, read_watch};
use goldleaves_runtime::settings::{Again, Common, File, Fingerprints, Values, parse, table};
use goldleaves_runtime::telemetry::{Logs, TRACED};
use goldleaves_runtime::{
    Exit, LogSwitch, Metrics, OnCancel, OnFailure, Secret, Shutdown, Stage, Supervisor, TaskRule, process,
};
use goldleaves_trace::{TraceSettings, TracedSpans};
use goldleaves_web::{Check, CheckState, ListenerOptions, Ops, Stop, bind, serve_ops};
use tracing::{Instrument as _, info_span};

use crate::Meter;
use crate::worker::{ConsumerSettings, StreamMetrics, StreamWatch, Worker};

const READY_HELP: &str = "Whether /health/ready says yes: 1 or 0";
const OPS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9092);

/// The settings of the program.
#[derive(Debug)]
pub struct Config {
    common: Common,
    stream: ConsumerSettings,
    ops_addr: SocketAddr,
    database_url: Secret,
    traces: TraceSettings,
    again: Option<Again>,
    read: Fingerprints,
    taken: Taken,
}

impl Config {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let common = Common::read(values);
        let environment = common.as_ref().map(|common| common.environment);
        let stream = ConsumerSettings::read(values);
        let ops_addr = values.or_default(table::OPS_ADDR, parse::socket_address, OPS_ADDR);
        let database_url =
            values.required_discreet(table::DATABASE_URL, |text| goldleaves_ledger::database_url(text, environment));
        let traces = TraceSettings::read(values);
        let (common, watch_every) = (common?, read_watch(values)?);
        Some(Self {
            taken: Taken::of(values, common.logs, watch_every, []),
            again: values.again(),
            read: values.fingerprints(),
            common,
            stream: stream?,
            ops_addr: ops_addr?,
            database_url: database_url?,
            traces: traces?,
        })
    }
}

impl Config {
    /// Returns the way settings are read again: of a worker's, those of the logs alone can change.
    fn reloads(&self, logs: LogSwitch) -> Option<Reloads> {
        let again = self.again.clone()?;
        let (load, before) = (again.clone(), self.read.clone());
        let take = move |file: Option<File>| {
            let mut values = load.values(file);
            let config = Self::read(&mut values);
            values.refuse_changes(&before, |setting| !is_of_all(setting));
            Ok(values.finish(config)?.taken)
        };
        Some(Reloads { again, take: Box::new(take), taken: self.taken.clone(), logs })
    }
}

/// Runs until told to stop.
pub fn run(config: &Config) -> Exit {
    let traced = TracedSpans::default();
    let logs = config.common.start_logs_beside(traced.layer());
    let switch = logs.as_ref().map(Logs::switch).unwrap_or_default();
    let exit = process::serve("meter-worker", serve(config, switch, traced));
    drop(logs);
    exit
}

async fn serve(config: &Config, logs: LogSwitch, traced: TracedSpans) -> Result<Exit> {
    let shutdown = Shutdown::on_signals().context("signals can't be listened for")?;
    let metrics = Metrics::new();
    metrics.show_process("meter-worker");
    let (tracer, exporting) = config.traces.start("meter-worker", &metrics)?;
    traced.export(&tracer);
    let start = info_span!(target: TRACED, "start");
    let options = StoreOptions { writes_wait_for_schema: true, ..StoreOptions::default() };
    let connecting = Ledger::connect(config.database_url.expose(), options);
    let ledger = connecting.instrument(info_span!(target: TRACED, parent: &start, "connect to the database")).await?;
    let shown = ledger.clone();
    metrics.show_database(move || {
        let PoolUse { open, busy, max } = shown.store().pool_use();
        [open, busy, max]
    });
    let ops = bind(config.ops_addr, ListenerOptions::default())
        .with_context(|| format!("OPS_ADDR {} can't be listened on", config.ops_addr))?;
    let connection = config
        .stream
        .clone()
        .connect("meter-worker")
        .instrument(info_span!(target: TRACED, parent: &start, "connect to the stream"))
        .await?;
    let shown = connection.clone();
    metrics.show_broker(move || (shown.is_connected(), shown.connects()));
    drop(start);
    tracing::info!("ops listens on http://{}", ops.local_addr()?);

    let mut supervisor = Supervisor::new(shutdown.clone());
    if let Some(reloads) = config.reloads(logs) {
        let (shown, asked) = (metrics.clone(), shutdown.clone());
        supervisor.spawn_once(rule("reload", Stage::Edge, OnCancel::Abort), async move |stop| {
            reloads.watch(shown, asked, stop).await;
            anyhow::Ok(())
        });
    }
    let database = watch_ledger(&mut supervisor, ledger.clone());
    let meter = Meter::new(ledger.clone(), &metrics).traced(tracer);
    let worker = Worker::new(connection.clone(), meter, &metrics);
    let health = worker.health();
    supervisor.spawn_once(rule("worker", Stage::Flow, OnCancel::Finish), async move |stop| worker.run(stop).await);
    let shown = StreamMetrics::register(&metrics);
    let full = shown.fullness();
    let watch = StreamWatch::new(connection, ledger.clone(), shown);
    supervisor.spawn_once(rule("stream", Stage::Sink, OnCancel::Abort), async move |_| watch.run().await);
    let stopping = shutdown.clone();
    let running = Check::new("running", move || CheckState::when(!stopping.is_asked(), "stopping"));
    let database = Check::new("database", move || {
        CheckState::when(database.load(Ordering::Relaxed), "away, or without the schema")
    });
    let worker = Check::new("worker", move || CheckState::without(health.trouble()));
    let stream = Check::new("stream", move || CheckState::without(full.borrow().clone()));
    let shown = metrics.clone();
    let endpoints = Ops::new(move || shown.text()).ready(running).ready(database).ready(worker).ready(stream);
    metrics.show("ready", READY_HELP, endpoints.readiness());
    supervisor.spawn_once(rule("ops", Stage::Ops, OnCancel::Finish), async move |stop| {
        serve_ops(ops, endpoints, Stop::on(stop)).await;
        anyhow::Ok(())
    });
    let exit = supervisor.run(config.common.shutdown_grace).await;
    ledger.store().close().await;
    exporting.finish(shutdown.at_once()).await;
    Ok(exit)
}

const fn rule(name: &'static str, stage: Stage, on_cancel: OnCancel) -> TaskRule {
    TaskRule { name, stage, on_cancel, on_failure: OnFailure::Stop }
}

/// Watches whether the database answers and has the schema. It waits while the database is away, and ends the program
/// when the schema is wrong.
fn watch_ledger(supervisor: &mut Supervisor, ledger: Ledger) -> Arc<AtomicBool> {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    supervisor
        .spawn_once(rule("schema", Stage::Sink, OnCancel::Abort), async move |_| Err(ledger.watch(&is_ready).await));
    ready
}
