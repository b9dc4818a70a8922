//! The gateway as a program of its own: it serves, records in its spool and publishes to JetStream.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use goldleaves_auth::{JwtSettings, SecretNeed, TokenVerifier, WallClock};
use goldleaves_runtime::settings::{Again, Common, Fingerprints, Values, parse, table};
use goldleaves_runtime::telemetry::{Logs, TRACED};
use goldleaves_runtime::{
    Exit, LogSwitch, Metrics, OnCancel, OnFailure, Shutdown, Stage, Supervisor, TaskRule, check_clock, process,
    raise_descriptor_limit,
};
use goldleaves_spool::RealFileSystem;
use goldleaves_trace::{TraceSettings, TracedSpans};
use goldleaves_web::{Inherited, InheritedError, ListenerOptions, Ops, Stop, bind, serve_ops};
use tracing::{Instrument as _, info_span};

use crate::service::{GatewayService, READY_HELP, Started, billed, running_check, spool_check};
use crate::stream::StreamSettings;
use crate::{Deployment, GatewayConfig, Reloaded, Reloading, RouteShown, Taken, needs_restart};
use goldleaves_record::RecordOptions;

const OPS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// The settings of the program.
#[derive(Debug)]
pub struct Config {
    common: Common,
    jwt: JwtSettings,
    gateway: GatewayConfig,
    record: RecordOptions,
    stream: StreamSettings,
    ops_addr: SocketAddr,
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
        let jwt = JwtSettings::read(values, environment, SecretNeed::Required);
        let gateway = GatewayConfig::read(values, common.as_ref(), Deployment::Distributed);
        let record = RecordOptions::read(values);
        let stream = StreamSettings::read(values);
        let ops_addr = values.or_default(table::OPS_ADDR, parse::socket_address, OPS_ADDR);
        let traces = TraceSettings::read(values);
        let (common, jwt, gateway) = (common?, jwt?, gateway?);
        Some(Self {
            taken: Taken::of(values, jwt.token_options(), common.logs, &gateway),
            common,
            jwt,
            gateway,
            record: record?,
            stream: stream?,
            ops_addr: ops_addr?,
            traces: traces?,
            again: values.again(),
            read: values.fingerprints(),
        })
    }
}

impl Config {
    fn reloading(&self, logs: LogSwitch) -> Option<Reloading> {
        let again = self.again.clone()?;
        let (load, before) = (again.clone(), self.read.clone());
        let read = move |file| {
            let mut values = load.values(file);
            let config = Self::read(&mut values);
            values.refuse_changes(&before, needs_restart);
            values.finish(config).map(|Self { gateway, taken, .. }| Reloaded { config: gateway, taken })
        };
        Some(Reloading { again, read: Box::new(read), taken: self.taken.clone(), logs, verifies: Box::new(drop) })
    }

    /// The routes of all calls.
    pub fn route_table(&self) -> Vec<RouteShown> {
        self.gateway.route_table()
    }

    /// The stream that events are handed to.
    pub const fn stream(&self) -> &StreamSettings {
        &self.stream
    }
}

/// Runs until told to stop.
pub fn run(config: &Config) -> Exit {
    // Before there is a second thread.
    let inherited = Inherited::from_environment();
    let traced = TracedSpans::default();
    let logs = config.common.start_logs_beside(traced.layer());
    let switch = logs.as_ref().map(Logs::switch).unwrap_or_default();
    raise_descriptor_limit();
    if let Err(behind) = check_clock() {
        process::say(&format_args!("gateway can't start: {behind}"));
        return Exit::Failed("clock".to_owned());
    }
    let exit = process::serve("gateway", serve(config, switch, traced, inherited));
    drop(logs);
    exit
}

async fn serve(
    config: &Config,
    logs: LogSwitch,
    traced: TracedSpans,
    inherited: Result<Inherited, InheritedError>,
) -> Result<Exit> {
    let mut inherited = inherited?;
    let shutdown = Shutdown::on_signals().context("signals can't be listened for")?;
    let metrics = Metrics::new();
    metrics.show_process("gateway");
    let (tracer, exporting) = config.traces.start("gateway", &metrics)?;
    traced.export(&tracer);
    let start = info_span!(target: TRACED, "start");
    let mut record = config.record.clone();
    if inherited.has("gateway", config.gateway.address) {
        record = record.patient(shutdown.token());
    }
    let opening = goldleaves_record::open(record, RealFileSystem, &metrics);
    let side =
        opening.instrument(info_span!(target: TRACED, parent: &start, "open the spool")).await.context("DATA_DIR")?;
    let connection = config
        .stream
        .connect("gateway")
        .instrument(info_span!(target: TRACED, parent: &start, "connect to the stream"))
        .await?;
    let shown = connection.clone();
    metrics.show_broker(move || (shown.is_connected(), shown.connects()));
    let ops = bind(config.ops_addr, ListenerOptions::default())
        .with_context(|| format!("OPS_ADDR {} can't be listened on", config.ops_addr))?;
    let ops_addr = ops.local_addr()?;

    let mut supervisor = Supervisor::new(shutdown.clone());
    let shown = metrics.clone();
    let endpoints =
        Ops::new(move || shown.text()).ready(running_check(shutdown.clone())).ready(spool_check(side.recorder.clone()));
    metrics.show("ready", READY_HELP, endpoints.readiness());
    let service = GatewayService {
        side,
        publisher: config.stream.publisher(connection, &metrics),
        verifier: TokenVerifier::new(config.jwt.token_options(), WallClock::system()),
        metrics,
        tracer,
        shutdown: shutdown.clone(),
        sockets: inherited.take("gateway", config.gateway.address),
        reloading: config.reloading(logs),
    };
    inherited.say_unused();
    let Started { address, upstreams, stop_grace } = {
        let _listening = info_span!(target: TRACED, parent: &start, "listen").entered();
        service.spawn(&mut supervisor, &config.gateway)?
    };
    drop(start);
    let endpoints = endpoints.page("/upstreams", upstreams);
    let rule = TaskRule { name: "ops", stage: Stage::Ops, on_cancel: OnCancel::Finish, on_failure: OnFailure::Stop };
    supervisor.spawn_once(rule, async move |stop| {
        serve_ops(ops, endpoints, Stop::on(stop)).await;
        anyhow::Ok(())
    });
    tracing::info!("gateway listens on http://{address}, ops on http://{ops_addr}");
    tracing::info!("billed is {}; the price of a unit stands in the ledger", billed(&config.gateway));
    let exit = supervisor.run_with(stop_grace).await;
    exporting.finish(shutdown.at_once()).await;
    Ok(exit)
}
