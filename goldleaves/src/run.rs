//! Everything in one process: opened in the order of what depends on what, stopped with the data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use goldleaves_billing::Billing;
use goldleaves_billing_api::program::{self, listen, listen_for_billing};
use goldleaves_billing_api::{BillingApi, BillingMetrics, Docs};
use goldleaves_domain::{Publisher, RoutePattern};
use goldleaves_gateway::Origin;
use goldleaves_gateway::service::{GatewayService, READY_HELP, Started, billed, running_check, spool_check};
use goldleaves_ledger::{CardsFile, Ledger, PoolUse, StoreOptions};
use goldleaves_meter_worker::Meter;
use goldleaves_pricing::Pricing;
use goldleaves_record::{RecordOpenError, RecordOptions, RecordSide};
use goldleaves_runtime::settings::{Environment, table};
use goldleaves_runtime::telemetry::{Logs, TRACED};
use goldleaves_runtime::{
    Exit, LogSwitch, Metrics, OnCancel, OnFailure, Shutdown, Stage, Supervisor, TaskRule, check_clock, process,
    raise_descriptor_limit,
};
use goldleaves_spool::RealFileSystem;
use goldleaves_trace::TracedSpans;
use goldleaves_web::{Inherited, InheritedError, Ops, ServeOptions, Stop, serve_ops};
use tokio::net::TcpListener;
use tracing::{Instrument as _, Span, info_span};

use crate::again::{self, Beside};
use crate::banner::{Banner, SampleCall, reachable};
use crate::cli::{self, TokenArguments};
use crate::config::Config;
use crate::{broker, demo, prepare, secret, token};

/// The time for which the start waits for the price that it says.
const PRICE_WITHIN: Duration = Duration::from_secs(1);
/// The user that the sample token speaks for.
const SAMPLE_NAME: &str = "demo";

/// Runs until told to stop.
pub(crate) fn run(config: Config, shown: cli::BannerSwitch) -> Exit {
    // Before there is a second thread.
    let inherited = Inherited::from_environment();
    let traced = TracedSpans::default();
    let logs = config.common.start_logs_beside(traced.layer());
    let switch = logs.as_ref().map(Logs::switch).unwrap_or_default();
    raise_descriptor_limit();
    if let Err(behind) = check_clock() {
        process::say(&format_args!("goldleaves can't start: {behind}"));
        return Exit::Failed("clock".to_owned());
    }
    let exit = process::serve("goldleaves", serve(config, StartGiven { logs: switch, traced, inherited }, shown));
    drop(logs);
    exit
}

/// The parts that exist before the runtime does.
struct StartGiven {
    logs: LogSwitch,
    traced: TracedSpans,
    inherited: Result<Inherited, InheritedError>,
}

/// Listeners that are bound before anything is served.
struct Listeners {
    billing: (TcpListener, ServeOptions),
    ops: TcpListener,
}

async fn serve(mut config: Config, given: StartGiven, banner_shown: cli::BannerSwitch) -> Result<Exit> {
    let StartGiven { logs, traced, inherited } = given;
    let mut inherited = inherited?;
    let shutdown = Shutdown::on_signals().context("signals can't be listened for")?;
    let metrics = Metrics::new();
    metrics.show_process("goldleaves");
    let (tracer, exporting) = config.traces.start("goldleaves", &metrics)?;
    traced.export(&tracer);
    let start = info_span!(target: TRACED, "start");
    let (tokens, made) = secret::token_options(&config.jwt, &config.data_dir)?;
    if let Some(file) = made {
        tracing::info!("JWT_SECRET is unset: made one and keep it in {}", file.display());
    }
    let record = record_options(&config, &inherited, &shutdown);
    let (side, ledger) = open(&config, record, &metrics, &start).await?;
    let listeners = Listeners {
        billing: listen_for_billing(&mut inherited, config.billing.addr)?,
        ops: listen(table::OPS_ADDR, config.ops_addr)?,
    };
    config.gateway.billing = origin(reachable(listeners.billing.0.local_addr()?))?;

    let mut supervisor = Supervisor::new(shutdown.clone());
    let upstream = upstream(&mut supervisor, &mut config)?;
    let preparing = prepare::spawn(&mut supervisor, &config, &ledger);
    preparing.instrument(info_span!(target: TRACED, parent: &start, "prepare the database")).await?;
    let meter = Meter::new(ledger.clone(), &metrics).traced(tracer.clone());
    let publisher: Arc<dyn Publisher> = match &config.stream {
        None => Arc::new(meter),
        Some(stream) => broker::spawn(&mut supervisor, stream, meter, ledger.clone(), &metrics).await?,
    };
    let (billing_address, ops_address) = (listeners.billing.0.local_addr()?, listeners.ops.local_addr()?);
    let verifier = TokenVerifier::new(tokens.clone(), WallClock::system());
    let api = api(&mut supervisor, &config, &ledger, &verifier, &metrics)?.traced(tracer.clone());
    let docs = config.billing.docs;
    let (served, (billing, options)) = (api.clone(), listeners.billing);
    supervisor.spawn_once(rule("billing-api", Stage::Flow), async move |stop| {
        served.serve(billing, docs, options, Stop::on(stop)).await;
        anyhow::Ok(())
    });
    let shown = metrics.clone();
    let endpoints =
        Ops::new(move || shown.text()).ready(running_check(shutdown.clone())).ready(spool_check(side.recorder.clone()));
    metrics.show("ready", READY_HELP, endpoints.readiness());
    let demo = config.gateway.upstream.clone().filter(|_| !upstream.is_own);
    let reloading = again::reloading(&config, Beside { tokens: tokens.clone(), demo, api, logs });
    let sockets = inherited.take("gateway", config.gateway.address);
    inherited.say_unused();
    let heard = shutdown.clone();
    let service = GatewayService { side, publisher, verifier, metrics, tracer, shutdown: heard, sockets, reloading };
    let Started { address: gateway, upstreams, stop_grace } = service.spawn(&mut supervisor, &config.gateway)?;
    drop(start);
    let endpoints = endpoints.page("/upstreams", upstreams);
    let served_at = ServedAt { gateway, billing: billing_address, ops: ops_address };
    tracing::info!(
        "gateway listens on http://{gateway}, billing on http://{billing_address}, ops on http://{ops_address}"
    );
    tracing::info!("billed is {}, {}", billed(&config.gateway), price(&ledger).await);
    if banner_shown == cli::BannerSwitch::Shown {
        let banner = banner(&config, &tokens, &served_at, upstream)?;
        process::show(format!("{banner}\n"));
    }
    // Last of all: who is told "ready" may call at once.
    supervisor.spawn_once(rule("ops", Stage::Ops), async move |stop| {
        serve_ops(listeners.ops, endpoints, Stop::on(stop)).await;
        anyhow::Ok(())
    });
    let exit = supervisor.run_with(stop_grace).await;
    ledger.store().close().await;
    exporting.finish(shutdown.at_once()).await;
    Ok(exit)
}

/// The options of the record side: a call at a socket that was handed over can wait for the spool.
fn record_options(config: &Config, inherited: &Inherited, shutdown: &Shutdown) -> RecordOptions {
    let record = config.record.clone();
    if inherited.has("gateway", config.gateway.address) { record.patient(shutdown.token()) } else { record }
}

/// Opens the spool and the ledger, below the span of the start.
async fn open(config: &Config, record: RecordOptions, metrics: &Metrics, start: &Span) -> Result<(RecordSide, Ledger)> {
    let opening = goldleaves_record::open(record, RealFileSystem, metrics);
    let side =
        opening.instrument(info_span!(target: TRACED, parent: start, "open the spool")).await.map_err(spool_error)?;
    let connecting = Ledger::connect(config.database_url.expose(), StoreOptions::default());
    let ledger = connecting.instrument(info_span!(target: TRACED, parent: start, "connect to the database")).await?;
    let ledger = ledger.keeping_cards_in(CardsFile::of(&config.data_dir));
    let shown = ledger.clone();
    metrics.show_database(move || {
        let PoolUse { open, busy, max } = shown.store().pool_use();
        [open, busy, max]
    });
    Ok((side, ledger))
}

/// The billing API of this process, with what goes on beside it.
fn api(
    supervisor: &mut Supervisor,
    config: &Config,
    ledger: &Ledger,
    verifier: &TokenVerifier,
    metrics: &Metrics,
) -> Result<BillingApi> {
    let billing = Billing::new(ledger.store().clone(), config.billing.time_zone);
    let counted = BillingMetrics::register(metrics);
    program::spawn_periods(supervisor, &config.billing, &billing, &counted);
    let api = BillingApi::new(billing, verifier.clone(), WallClock::system(), counted);
    program::with_stripe(api, supervisor, &config.billing, metrics)
}

/// Returns the present price of a unit in words; it does not wait for a ledger that is away.
async fn price(ledger: &Ledger) -> String {
    let card = tokio::time::timeout(PRICE_WITHIN, ledger.default_card()).await.ok().and_then(Result::ok).flatten();
    match card.map(|card| card.pricing) {
        Some(Pricing::PerUnit(rate)) => format!("at {rate} cents a unit"),
        Some(pricing) => format!("at {pricing}"),
        None => "at the price that the ledger has once it is there".to_owned(),
    }
}

fn spool_error(error: RecordOpenError) -> anyhow::Error {
    anyhow::Error::new(error).context("DATA_DIR")
}

/// Where calls go.
struct Destination {
    words: String,
    is_own: bool,
}

/// Where calls go; without `UPSTREAM_URL` a demo upstream is started for them.
fn upstream(supervisor: &mut Supervisor, config: &mut Config) -> Result<Destination> {
    if let Some(words) = config.gateway.named_upstreams() {
        return Ok(Destination { words, is_own: true });
    }
    let address = demo::start(supervisor)?;
    config.gateway.upstream = Some(origin(address)?);
    Ok(Destination { words: format!("http://{address}   a small demo; UPSTREAM_URL names yours"), is_own: false })
}

fn origin(address: SocketAddr) -> Result<Origin> {
    format!("http://{address}").parse().with_context(|| format!("{address} is no address to call"))
}

const fn rule(name: &'static str, stage: Stage) -> TaskRule {
    TaskRule { name, stage, on_cancel: OnCancel::Finish, on_failure: OnFailure::Stop }
}

/// The addresses that are served.
struct ServedAt {
    gateway: SocketAddr,
    billing: SocketAddr,
    ops: SocketAddr,
}

fn banner(config: &Config, tokens: &TokenOptions, at: &ServedAt, upstream: Destination) -> Result<Banner> {
    let ServedAt { gateway, billing, ops } = *at;
    let sample = match config.common.environment {
        Environment::Production => None,
        Environment::Development => sample(config, tokens)?,
    };
    let (docs, data_dir) = (config.billing.docs == Docs::Served, config.data_dir.clone());
    let billed = billed(&config.gateway);
    let Destination { words: upstream, is_own } = upstream;
    Ok(Banner { gateway, billing, docs, ops, upstream, is_own, billed, data_dir, sample })
}

/// A call that is billed, and what is needed for it; `None` when no answer of the demo is.
fn sample(config: &Config, tokens: &TokenOptions) -> Result<Option<SampleCall>> {
    let statuses = &config.gateway.statuses;
    // The demo answers a GET with 200 and a POST with 201; what one's own service answers, it knows best.
    let method = match () {
        () if statuses.contains(200) => "",
        () if statuses.contains(201) => "-X POST ",
        () => return Ok(None),
    };
    let arguments = TokenArguments {
        tenant: SAMPLE_NAME.parse()?,
        user: SAMPLE_NAME.parse()?,
        roles: Vec::new(),
        ttl_minutes: None,
    };
    let token = token::sign(tokens, &arguments, config.jwt.lifetime);
    let billed = |route: &&RoutePattern| !config.gateway.never_billed.iter().any(|never| never == route.as_str());
    let Some(path) = config.gateway.routes.patterns().find(billed).map(ToString::to_string) else { return Ok(None) };
    Ok(Some(SampleCall { token, tenant: SAMPLE_NAME, minutes: config.jwt.lifetime.as_secs() / 60, method, path }))
}
