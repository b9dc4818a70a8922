//! Everything in one process: opened in the order of what depends on what, stopped with the data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use goldleaves_billing::Billing;
use goldleaves_billing_api::program::{self, listen};
use goldleaves_billing_api::{BillingApi, BillingMetrics};
use goldleaves_domain::{Publisher, RoutePattern};
use goldleaves_gateway::service::{
    GatewayService, READY_HELP, Started, billed, running_check, spool_check, stop_grace,
};
use goldleaves_gateway::{FIXED, Origin, Reloaded, Reloading};
use goldleaves_ledger::{Ledger, PoolUse, StoreOptions};
use goldleaves_meter_worker::Meter;
use goldleaves_pricing::Pricing;
use goldleaves_record::RecordOpenError;
use goldleaves_runtime::settings::{Environment, Mistakes, Setting, table};
use goldleaves_runtime::{
    Exit, Metrics, OnCancel, OnFailure, Shutdown, Stage, Supervisor, TaskRule, check_clock, process,
    raise_descriptor_limit,
};
use goldleaves_spool::RealFileSystem;
use goldleaves_web::{Ops, ServeOptions, Stop, serve_ops};
use tokio::net::TcpListener;

use crate::banner::{Banner, Sample, reachable};
use crate::cli::{self, TokenArguments};
use crate::config::Config;
use crate::{broker, demo, prepare, secret, token};

/// How long the start waits for the price that it says.
const PRICE_WITHIN: Duration = Duration::from_secs(1);
/// How long threads that still work with files are waited for at the end.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// Whom the sample token speaks for.
const SAMPLE_NAME: &str = "demo";

/// Runs until told to stop.
pub(crate) fn run(config: Config, shown: cli::Banner) -> Exit {
    let logs = config.common.start_logs();
    raise_descriptor_limit();
    if let Err(behind) = check_clock() {
        process::say(&format_args!("goldleaves can't start: {behind}"));
        return Exit::Failed("clock".to_owned());
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build();
    let exit = runtime.context("the runtime can't be started").and_then(|runtime| {
        let exit = runtime.block_on(serve(config, shown));
        // A thread that waits for a disk that stands still is not waited for.
        runtime.shutdown_timeout(LEFT_BEHIND);
        exit
    });
    drop(logs);
    exit.unwrap_or_else(|error| {
        process::say(&format_args!("goldleaves can't start: {}", process::chain(error.as_ref())));
        Exit::Failed("start".to_owned())
    })
}

/// Listeners that are bound before anything is served.
struct Listeners {
    billing: TcpListener,
    ops: TcpListener,
}

async fn serve(mut config: Config, banner_shown: cli::Banner) -> Result<Exit> {
    let shutdown = Shutdown::on_signals().context("signals can't be listened for")?;
    let metrics = Metrics::new();
    metrics.show_process("goldleaves");
    let (tracer, exporting) = config.traces.start("goldleaves", &metrics)?;
    let (tokens, made) = secret::token_options(&config.jwt, &config.data_dir)?;
    if let Some(file) = made {
        tracing::info!("JWT_SECRET is unset: made one and keep it in {}", file.display());
    }
    let side = goldleaves_record::open(config.record.clone(), RealFileSystem, &metrics).await.map_err(spool_error)?;
    let ledger = Ledger::connect(config.database_url.expose(), StoreOptions::default()).await?;
    let shown = ledger.clone();
    metrics.show_database(move || {
        let PoolUse { open, busy, max } = shown.store().pool_use();
        [open, busy, max]
    });
    let listeners = Listeners {
        billing: listen(table::BILLING_ADDR, config.billing.addr)?,
        ops: listen(table::OPS_ADDR, config.ops_addr)?,
    };
    config.gateway.billing = origin(reachable(listeners.billing.local_addr()?))?;

    let mut supervisor = Supervisor::new(shutdown.clone());
    let upstream = upstream(&mut supervisor, &mut config)?;
    prepare::spawn(&mut supervisor, &config, &ledger).await?;
    let meter = Meter::new(ledger.clone(), &metrics).traced(tracer.clone());
    let publisher: Arc<dyn Publisher> = match &config.stream {
        None => Arc::new(meter),
        Some(stream) => broker::spawn(&mut supervisor, stream, (meter, ledger.clone()), &metrics).await?,
    };
    let addresses = (listeners.billing.local_addr()?, listeners.ops.local_addr()?);
    let verifier = TokenVerifier::new(tokens.clone(), WallClock::system());
    let billing = Billing::new(ledger.store().clone(), config.billing.time_zone);
    let counted = BillingMetrics::register(&metrics);
    program::spawn_closing(&mut supervisor, &config.billing, (&billing, &counted));
    let api = BillingApi::new(billing, verifier.clone(), WallClock::system(), counted);
    let api = program::with_stripe(api.traced(tracer.clone()), &mut supervisor, (&config.billing, &metrics))?;
    let docs = config.billing.docs;
    supervisor.spawn_once(rule("billing-api", Stage::Flow), async move |stop| {
        api.serve(listeners.billing, docs, (ServeOptions::default(), Stop::on(stop))).await;
        anyhow::Ok(())
    });
    let shown = metrics.clone();
    let endpoints =
        Ops::new(move || shown.text()).ready(running_check(shutdown.clone())).ready(spool_check(side.recorder.clone()));
    metrics.show("ready", READY_HELP, endpoints.readiness());
    let reloading = reloading(&config);
    let service = GatewayService { side, publisher, verifier, metrics, tracer, shutdown: shutdown.clone(), reloading };
    let Started { address: gateway, upstreams } = service.spawn(&mut supervisor, &config.gateway)?;
    let endpoints = endpoints.page("/upstreams", upstreams);
    tracing::info!(
        "gateway listens on http://{gateway}, billing on http://{}, ops on http://{}",
        addresses.0,
        addresses.1
    );
    tracing::info!("billed is {}, {}", billed(&config.gateway), price(&ledger).await);
    if banner_shown == cli::Banner::Shown {
        let banner = banner(&config, &tokens, (gateway, addresses, upstream))?;
        process::show(format!("{banner}\n"));
    }
    // Last of all: who is told "ready" may call at once.
    supervisor.spawn_once(rule("ops", Stage::Ops), async move |stop| {
        serve_ops(listeners.ops, endpoints, Stop::on(stop)).await;
        anyhow::Ok(())
    });
    let exit = supervisor.run(stop_grace(&config.gateway)).await;
    ledger.store().close().await;
    exporting.finish(shutdown.at_once()).await;
    Ok(exit)
}

/// What the billing API beside the gateway cannot take another value of, and what was done at the start.
const FIXED_HERE: &[Setting] = &[
    table::ENABLE_DOCS,
    table::USAGE_RATE_CENTS,
    table::BILLING_URL,
    table::BILLING_TIME_ZONE,
    table::PERIOD_CLOSE_AFTER_HOURS,
    table::STRIPE_API_KEY,
    table::STRIPE_API_BASE,
    table::STRIPE_WEBHOOK_SECRET,
    table::STRIPE_CALLS_PER_SECOND,
    table::JWT_SECRET,
    table::JWT_ALGORITHM,
    table::JWT_ISSUER,
    table::JWT_AUDIENCE,
];

/// How the gateway's settings are read again. What this process brought itself stays: billing API and demo upstream.
fn reloading(config: &Config) -> Option<Reloading> {
    let (again, before) = (config.again.clone()?, config.read.clone());
    let (billing, upstream) = (config.gateway.billing.clone(), config.gateway.upstream.clone());
    let watched = config.gateway.watch_every.and_then(|every| Some((again.file()?.clone(), every)));
    let read = move || {
        let mut values = again.values()?;
        let config = Config::read(&mut values);
        values.refuse_changes(&before, FIXED);
        values.refuse_changes(&before, FIXED_HERE);
        let mut config = values.finish(config)?;
        config.gateway.billing = billing.clone();
        if config.gateway.named_upstreams().is_none() {
            config.gateway.upstream = upstream.clone();
        }
        let tokens = secret::token_options(&config.jwt, &config.data_dir);
        let (tokens, _) = tokens.map_err(|error| Mistakes::one(table::JWT_SECRET.name, format!("{error:#}")))?;
        let verifier = TokenVerifier::new(tokens, WallClock::system());
        Ok(Reloaded { config: config.gateway, verifier, sha256: config.sha256 })
    };
    Some(Reloading { read: Arc::new(read), watched, sha256: config.sha256.clone() })
}

/// What a unit costs now, in words; a ledger that is away is not waited for.
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

fn banner(
    config: &Config,
    tokens: &TokenOptions,
    (gateway, (billing, ops), upstream): (SocketAddr, (SocketAddr, SocketAddr), Destination),
) -> Result<Banner> {
    let sample = match config.common.environment {
        Environment::Production => None,
        Environment::Development => sample(config, tokens)?,
    };
    let (docs, data_dir) = (config.billing.docs, config.data_dir.clone());
    let billed = billed(&config.gateway);
    let Destination { words: upstream, is_own } = upstream;
    Ok(Banner { gateway, billing, docs, ops, upstream, is_own, billed, data_dir, sample })
}

/// A call that is billed, and what is needed for it; `None` when no answer of the demo is.
fn sample(config: &Config, tokens: &TokenOptions) -> Result<Option<Sample>> {
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
    let token = token::sign(tokens, &arguments, config.jwt.lifetime)?;
    let billed = |route: &&RoutePattern| !config.gateway.never_billed.iter().any(|never| never == route.as_str());
    let Some(path) = config.gateway.routes.patterns().find(billed).map(ToString::to_string) else { return Ok(None) };
    Ok(Some(Sample { token, tenant: SAMPLE_NAME, minutes: config.jwt.lifetime.as_secs() / 60, method, path }))
}
