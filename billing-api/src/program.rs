//! The billing API as a program of its own, on the database that workers write.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use goldleaves_auth::{JwtSettings, SecretNeed, TokenVerifier, WallClock};
use goldleaves_billing::Billing;
use goldleaves_billing::stripe::{Books, BooksClock};
use goldleaves_runtime::reload::{Reloads, Taken, is_of_all, read_watch};
use goldleaves_runtime::settings::{Again, Common, File, Fingerprints, Setting, Values, parse, table};
use goldleaves_runtime::telemetry::{Logs, TRACED};
use goldleaves_runtime::{
    Exit, LogSwitch, Metrics, OnCancel, OnFailure, Secret, Shutdown, Stage, Supervisor, TaskRule, process,
};
use goldleaves_store::{PoolUse, Store, StoreOptions};
use goldleaves_stripe::Stripe;
use goldleaves_trace::{TraceSettings, TracedSpans};
use goldleaves_web::{
    Check, CheckState, Inherited, InheritedError, ListenerOptions, Ops, ServeOptions, Stop, bind, serve_ops,
};
use tokio::net::TcpListener;
use tracing::{Instrument as _, info_span};

use crate::close::keep_periods;
use crate::push::{Pacing, Pusher, StripeMetrics};
use crate::{BillingApi, BillingConfig, BillingMetrics, StripeDesk};

const BILLING_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8081);
const READY_HELP: &str = "Whether /health/ready says yes: 1 or 0";
/// The longest that a transaction, or a statement of its own, may take.
const WORK_LIMIT: Duration = Duration::from_secs(12);
const OPS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);

/// The time that dropping the last connections may take, after the grace.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The settings of the program.
#[derive(Debug)]
pub struct Config {
    common: Common,
    jwt: JwtSettings,
    billing: BillingConfig,
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
        let jwt = JwtSettings::read(values, environment, SecretNeed::Required);
        let billing = BillingConfig::read(values, common.as_ref(), BILLING_ADDR);
        let ops_addr = values.or_default(table::OPS_ADDR, parse::socket_address, OPS_ADDR);
        let database_url =
            values.required_discreet(table::DATABASE_URL, |text| goldleaves_store::database_url(text, environment));
        let traces = TraceSettings::read(values);
        let (common, watch_every) = (common?, read_watch(values)?);
        Some(Self {
            taken: Taken::of(values, common.logs, watch_every, []),
            again: values.again(),
            read: values.fingerprints(),
            common,
            jwt: jwt?,
            billing: billing?,
            ops_addr: ops_addr?,
            database_url: database_url?,
            traces: traces?,
        })
    }
}

impl Config {
    /// Returns what is done when settings are read again: what tokens are verified with, and the logs.
    fn reloads(&self, api: BillingApi, logs: LogSwitch) -> Option<Reloads> {
        let again = self.again.clone()?;
        let (load, before, mut tokens) = (again.clone(), self.read.clone(), self.jwt.token_options());
        let take = move |file: Option<File>| {
            let mut values = load.values(file);
            let config = Self::read(&mut values);
            values.refuse_changes(&before, |setting| !is_of_all(setting) && !setting.name.starts_with("JWT_"));
            let config = values.finish(config)?;
            let now = config.jwt.token_options();
            // Who was known stays known, unless something is verified in another way now.
            if now != tokens {
                api.verify_with(TokenVerifier::new(now.clone(), WallClock::system()));
                tokens = now;
            }
            Ok(config.taken)
        };
        Some(Reloads { again, take: Box::new(take), taken: self.taken.clone(), logs })
    }
}

/// Runs until told to stop.
pub fn run(config: &Config) -> Exit {
    // Before there is a second thread.
    let inherited = Inherited::from_environment();
    let traced = TracedSpans::default();
    let logs = config.common.start_logs_beside(traced.layer());
    let switch = logs.as_ref().map(Logs::switch).unwrap_or_default();
    let exit = process::serve("billing-api", serve(config, switch, traced, inherited));
    drop(logs);
    exit
}

async fn serve(
    config: &Config,
    logs: LogSwitch,
    traced: TracedSpans,
    inherited: Result<Inherited, InheritedError>,
) -> Result<Exit> {
    let shutdown = Shutdown::on_signals().context("signals can't be listened for")?;
    let metrics = Metrics::new();
    metrics.show_process("billing-api");
    let (tracer, exporting) = config.traces.start("billing-api", &metrics)?;
    traced.export(&tracer);
    let start = info_span!(target: TRACED, "start");
    // The server ends a statement soon after whoever asked has stopped to wait for it.
    let limits = StoreOptions { work_timeout: WORK_LIMIT, writes_wait_for_schema: true, ..StoreOptions::default() };
    let connecting = Store::connect(config.database_url.expose(), limits);
    let store = connecting.instrument(info_span!(target: TRACED, parent: &start, "connect to the database")).await?;
    let shown = store.clone();
    metrics.show_database(move || {
        let PoolUse { open, busy, max } = shown.pool_use();
        [open, busy, max]
    });
    let billing = Billing::new(store, config.billing.time_zone);
    let mut inherited = inherited?;
    let (listener, options) = listen_for_billing(&mut inherited, config.billing.addr)?;
    inherited.say_unused();
    let ops = listen(table::OPS_ADDR, config.ops_addr)?;
    drop(start);
    tracing::info!("billing listens on http://{}, ops on http://{}", listener.local_addr()?, ops.local_addr()?);

    let mut supervisor = Supervisor::new(shutdown.clone());
    let ready = watch_database(&mut supervisor, billing.clone());
    let verifier = TokenVerifier::new(config.jwt.token_options(), WallClock::system());
    let counted = BillingMetrics::register(&metrics);
    spawn_periods(&mut supervisor, &config.billing, &billing, &counted);
    let api = BillingApi::new(billing.clone(), verifier, WallClock::system(), counted);
    let api = with_stripe(api.traced(tracer), &mut supervisor, &config.billing, &metrics)?;
    if let Some(reloads) = config.reloads(api.clone(), logs) {
        let (shown, asked) = (metrics.clone(), shutdown.clone());
        let rule = TaskRule { on_cancel: OnCancel::Abort, ..rule("reload", Stage::Edge) };
        supervisor.spawn_once(rule, async move |stop| {
            reloads.watch(shown, asked, stop).await;
            anyhow::Ok(())
        });
    }
    let docs = config.billing.docs;
    let options = ServeOptions { grace: config.common.shutdown_grace, ..options };
    let (drain_delay, asked) = (config.common.drain_delay, shutdown.clone());
    supervisor.spawn_once(rule("billing-api", Stage::Edge), async move |draining| {
        let stop = Stop { draining: draining.clone(), ..Stop::default() };
        let graceful = stop.graceful.clone();
        let delayed = async {
            draining.cancelled().await;
            asked.delay(drain_delay).await;
            graceful.cancel();
        };
        tokio::join!(api.serve(listener, docs, options, stop), delayed);
        anyhow::Ok(())
    });
    let stopping = shutdown.clone();
    let running = Check::new("running", move || CheckState::when(!stopping.is_asked(), "stopping"));
    let database =
        Check::new("database", move || CheckState::when(ready.load(Ordering::Relaxed), "away, or without the schema"));
    let shown = metrics.clone();
    let endpoints = Ops::new(move || shown.text()).ready(running).ready(database);
    metrics.show("ready", READY_HELP, endpoints.readiness());
    supervisor.spawn_once(rule("ops", Stage::Ops), async move |stop| {
        serve_ops(ops, endpoints, Stop::on(stop)).await;
        anyhow::Ok(())
    });
    let exit = supervisor.run(config.common.drain_delay + config.common.shutdown_grace + CLOSE_GRACE).await;
    billing.store().close().await;
    exporting.finish(shutdown.at_once()).await;
    Ok(exit)
}

/// Listens where the billing API does: at a socket that was handed over for it, else at its address. Returns with it what its
/// connections are held to.
///
/// # Errors
/// The address is taken, or not this machine's; or more than one socket was handed over: nobody would serve the others.
pub fn listen_for_billing(inherited: &mut Inherited, address: SocketAddr) -> Result<(TcpListener, ServeOptions)> {
    let mut given = inherited.take("billing", address);
    let count = given.len();
    anyhow::ensure!(count <= 1, "LISTEN_FDS hands over {count} sockets for billing; expected at most 1");
    match given.pop() {
        Some(socket) => {
            let options = ServeOptions { handed_over: true, ..ServeOptions::default() };
            Ok((TcpListener::from_std(socket).context("the socket of LISTEN_FDS for billing")?, options))
        }
        None => Ok((listen(table::BILLING_ADDR, address)?, ServeOptions::default())),
    }
}

/// Binds the address that a setting names.
///
/// # Errors
/// It is taken, or not this machine's; the error names the setting.
pub fn listen(setting: Setting, address: SocketAddr) -> Result<TcpListener> {
    bind(address, ListenerOptions::default())
        .with_context(|| format!("{} {address} can't be listened on", setting.name))
}

const fn rule(name: &'static str, stage: Stage) -> TaskRule {
    TaskRule { name, stage, on_cancel: OnCancel::Finish, on_failure: OnFailure::Stop }
}

/// Watches whether the database answers and has the schema. It waits while the database is away, and ends the program
/// when the schema is wrong.
fn watch_database(supervisor: &mut Supervisor, billing: Billing) -> Arc<AtomicBool> {
    let ready = Arc::new(AtomicBool::new(false));
    let rule = TaskRule { name: "schema", stage: Stage::Sink, on_cancel: OnCancel::Abort, on_failure: OnFailure::Stop };
    let is_ready = Arc::clone(&ready);
    supervisor.spawn_once(rule, async move |_| Err(billing.watch(&is_ready).await));
    ready
}

/// Cares for periods, and closes them by the clock where that is asked for.
pub fn spawn_periods(supervisor: &mut Supervisor, config: &BillingConfig, billing: &Billing, metrics: &BillingMetrics) {
    let close_after = config.close_after_hours;
    let rule =
        TaskRule { name: "periods", stage: Stage::Flow, on_cancel: OnCancel::Abort, on_failure: OnFailure::Restart };
    let (billing, metrics) = (billing.clone(), metrics.clone());
    supervisor.spawn(rule, move |_| {
        let (billing, metrics) = (billing.clone(), metrics.clone());
        async move {
            keep_periods(billing, close_after, metrics).await;
            Ok::<_, String>(())
        }
    });
}

/// The clock that deadlines of the push go by, and its pace: the database's and what is set, but in programs built for tests.
fn time_of_push(calls_per_second: u32) -> (BooksClock, Pacing) {
    #[cfg(debug_assertions)]
    if let Some(clock) = crate::driven::clock() {
        return (clock, Pacing::HURRIED);
    }
    (BooksClock::Database, Pacing::per_second(calls_per_second))
}

/// Pushes usage to Stripe, where there is a key.
///
/// # Errors
/// The machine has no root certificates.
pub fn with_stripe(
    api: BillingApi,
    supervisor: &mut Supervisor,
    config: &BillingConfig,
    metrics: &Metrics,
) -> Result<BillingApi> {
    let Some(config) = &config.stripe else { return Ok(api) };
    let stripe = Stripe::new(config.base.clone(), config.key.clone()).context("STRIPE_API_BASE")?;
    let (clock, pacing) = time_of_push(config.calls_per_second);
    let books = Books::new(api.billing().clone(), clock);
    let pusher = Pusher::new(books, stripe, StripeMetrics::register(metrics), pacing);
    let task = |name| TaskRule { name, stage: Stage::Flow, on_cancel: OnCancel::Abort, on_failure: OnFailure::Restart };
    let pushing = pusher.clone();
    supervisor.spawn(task("stripe-push"), move |_| {
        let pushing = pushing.clone();
        async move {
            pushing.push().await;
            Ok::<_, String>(())
        }
    });
    let sealing = pusher.clone();
    supervisor.spawn(task("stripe-seal"), move |_| {
        let sealing = sealing.clone();
        async move {
            sealing.seal().await;
            Ok::<_, String>(())
        }
    });
    tracing::info!("usage is pushed to Stripe at {}", config.base);
    Ok(api.pushing(StripeDesk { pusher, webhook: config.webhook.clone() }))
}
