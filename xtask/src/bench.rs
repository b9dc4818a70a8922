//! `cargo xtask bench`: builds what is measured with the `dist` profile and starts the measuring programs, that of the spool
//! and that of `e2e`.

use std::process::ExitCode;

use anyhow::Context;
use goldleaves_toolbox::{GOLDLEAVES_BIN_DIR, target_directory};

use crate::cargo::cargo;
use crate::dist::{DIST, build_programs};

/// The package of the measuring programs that start others.
const WHOLE_SYSTEM: &str = "goldleaves-e2e";

/// The benchmarks to run.
#[derive(clap::Args)]
pub(crate) struct BenchArguments {
    /// Only this; spool and gateway when left out.
    what: Option<BenchKind>,
    /// Arguments of the measuring programs: `--rounds N`, `--millis N`; of the gateway's `--parts small,h2c`,
    /// `--short`; `--events N`; `--tenants N`.
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BenchKind {
    /// The spool beside a bare loop.
    Spool,
    /// The gateway beside its upstream and its peers.
    #[value(alias = "http")]
    Gateway,
    /// A worker beside the bare statement. Only when it is named.
    Ingest,
    /// Requests and events where there is more of everything; only when it is named.
    Growth,
    /// The instructions of an event behind its request; only when it is named.
    Events,
    /// billing-api over a large ledger; only when it is named.
    Billing,
    /// The push of usage to Stripe; only when it is named.
    Stripe,
    /// The instructions of a request, held against those that are written down; only when it is named.
    Guard,
}

/// Builds and measures; the tables are printed as Markdown.
pub(crate) fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let wants = |what| arguments.what.is_none_or(|only| only == what);
    let done = match arguments.what {
        Some(BenchKind::Ingest) => one("goldleaves-meter-worker", "ingest", &arguments.rest)?,
        Some(BenchKind::Growth) => growth(&arguments.rest)?,
        Some(BenchKind::Events) => {
            build_programs(&["goldleaves", "goldleaves-gateway", "goldleaves-meter-worker"])?
                && measure(WHOLE_SYSTEM, "events", &arguments.rest)?
        }
        Some(BenchKind::Billing) => one("goldleaves-billing-api", "billing", &arguments.rest)?,
        Some(BenchKind::Guard) => guard(&arguments.rest)?,
        Some(BenchKind::Stripe) => one("goldleaves-billing-api", "stripe", &arguments.rest)?,
        _ => {
            (!wants(BenchKind::Spool) || measure("goldleaves-spool", "measure", &arguments.rest)?)
                && (!wants(BenchKind::Gateway) || of_the_gateway(&arguments.rest)?)
        }
    };
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of_the_gateway(rest: &[String]) -> anyhow::Result<bool> {
    Ok(build_programs(&["goldleaves", "goldleaves-gateway"])? && measure(WHOLE_SYSTEM, "measure", rest)?)
}

/// More tenants and connections, then longer and longer spools.
fn growth(rest: &[String]) -> anyhow::Result<bool> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let of_requests = [words(&["--parts", "tenants,connections"]), rest.to_vec()].concat();
    let of_events = words(&["--tenants", "1000", "--backlog", "64,512,4096"]);
    Ok(build_programs(&["goldleaves-gateway", "goldleaves"])?
        && measure(WHOLE_SYSTEM, "measure", &of_requests)?
        && measure(WHOLE_SYSTEM, "events", &of_events)?)
}

/// A test counts, of whichever programs it is pointed at: every run of the tests does so with those of a debug build.
fn guard(rest: &[String]) -> anyhow::Result<bool> {
    if !build_programs(&["goldleaves-gateway"])? {
        return Ok(false);
    }
    let mut test = cargo();
    test.args(["test", "--package", WHOLE_SYSTEM, "--test", "guard", "--", "--nocapture"]).args(rest);
    test.env(GOLDLEAVES_BIN_DIR, target_directory().join(DIST));
    Ok(test.status().context("cannot start cargo")?.success())
}

/// A measurement of one program.
fn one(package: &str, bench: &str, rest: &[String]) -> anyhow::Result<bool> {
    Ok(build_programs(&[package])? && measure(WHOLE_SYSTEM, bench, rest)?)
}

fn measure(package: &str, bench: &str, rest: &[String]) -> anyhow::Result<bool> {
    let mut measure = cargo();
    measure.args(["bench", "--profile", DIST, "--package", package, "--bench", bench, "--"]).args(rest);
    measure.env(GOLDLEAVES_BIN_DIR, target_directory().join(DIST));
    Ok(measure.status().context("cannot start cargo")?.success())
}
