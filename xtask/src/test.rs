//! `cargo xtask test`: find or install the tools, build once, run every test, add up what the runners said.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::Context;
use goldleaves_toolbox::{
    CHECKERS_SITE, GOLDLEAVES_BIN_DIR, H2LOAD_BIN, HAPROXY_BIN, HTTPBIN_PYTHON, HTTPBIN_SITE, Installed,
    NATS_SERVER_BIN, NGINX_BIN, PEERS_SITE, PGBOUNCER_BIN, POSTGRES_BIN_DIR, STRIPE_SITE, Toolbox, VALGRIND_BIN,
    target_directory,
};

use crate::cargo::cargo;

/// The package whose tests run the programs of the others.
const WHOLE_SYSTEM: &str = "goldleaves-e2e";
/// The packages of the programs that those start: one left out here would be run as it was built some other time.
const PROGRAMS: [&str; 4] = ["goldleaves", "goldleaves-gateway", "goldleaves-meter-worker", "goldleaves-billing-api"];

/// Set, the tests that have a long version run that.
const SOAK: &str = "GOLDLEAVES_SOAK";

/// The tests to run.
#[derive(clap::Args)]
pub(crate) struct TestArguments {
    /// Only the tests of these packages.
    #[arg(short, long)]
    package: Vec<String>,
    /// The long versions: as many requests, kills and minutes as the promises speak of, with released programs. Hours.
    #[arg(long)]
    soak: bool,
    /// Passed on to the test programs: a filter, `--nocapture`, ….
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Runs the tests. The last line printed is `N passed, N failed`.
pub(crate) fn run(arguments: &TestArguments) -> anyhow::Result<ExitCode> {
    let environment = match Toolbox::of_target().install() {
        Ok(installed) => environment(installed, arguments.soak),
        Err(error) => {
            println!("what the tests need is not here: {error}\n0 passed, 1 failed");
            return Ok(ExitCode::FAILURE);
        }
    };
    if !build(arguments, &environment)? {
        println!("the build failed\n0 passed, 1 failed");
        return Ok(ExitCode::FAILURE);
    }
    let (tally, success) = run_tests(arguments, &environment)?;
    // A test program that was killed prints no summary; Cargo's exit code then is the only sign of it.
    let failed = if success { tally.failed } else { tally.failed.max(1) };
    println!("{} passed, {failed} failed", tally.passed);
    Ok(if failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns what the tests look for: the paths of the tools and of our programs, and whether they shall take long.
fn environment(installed: Installed, soak: bool) -> BTreeMap<&'static str, PathBuf> {
    let programs = target_directory().join(if soak { "release" } else { "debug" });
    let mut environment = BTreeMap::from([
        (NATS_SERVER_BIN, installed.nats_server),
        (POSTGRES_BIN_DIR, installed.postgres_bin_dir),
        (NGINX_BIN, installed.nginx),
        (HTTPBIN_PYTHON, installed.httpbin.python),
        (HTTPBIN_SITE, installed.httpbin.site),
        (CHECKERS_SITE, installed.checkers.site),
        (STRIPE_SITE, installed.stripe.site),
        (PEERS_SITE, installed.peers.site),
        (GOLDLEAVES_BIN_DIR, programs),
    ]);
    for (variable, found) in
        [(PGBOUNCER_BIN, installed.pgbouncer), (HAPROXY_BIN, installed.haproxy), (H2LOAD_BIN, installed.h2load)]
    {
        match found {
            Ok(program) => _ = environment.insert(variable, program),
            Err(missing) => println!("{missing}; the tests that need it will fail"),
        }
    }
    match installed.valgrind {
        Ok(program) => _ = environment.insert(VALGRIND_BIN, program),
        Err(missing) => println!("{missing}; the count of a request's instructions is left out"),
    }
    if soak {
        environment.insert(SOAK, "1".into());
    }
    environment
}

/// Builds the programs and the tests in one go: in two, Cargo would unify features differently and build much twice.
/// Of single packages only the whole-system tests need a build besides their own: the programs.
fn build(arguments: &TestArguments, environment: &BTreeMap<&str, PathBuf>) -> anyhow::Result<bool> {
    let mut command = cargo();
    command.args(["build", "--lib", "--bins", "--tests"]).envs(environment);
    if arguments.package.is_empty() {
        command.arg("--workspace");
    } else if arguments.package.iter().any(|package| package == WHOLE_SYSTEM) {
        command.args(["--package", WHOLE_SYSTEM]);
        command.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    } else {
        return Ok(true);
    }
    if !command.status().context("cannot start cargo")?.success() {
        return Ok(false);
    }
    Ok(!arguments.soak || build_released()?)
}

/// In the release profile, the programs that a soak starts.
fn build_released() -> anyhow::Result<bool> {
    let mut command = cargo();
    command.args(["build", "--release", "--bins"]);
    command.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    Ok(command.status().context("cannot start cargo")?.success())
}

fn run_tests(arguments: &TestArguments, environment: &BTreeMap<&str, PathBuf>) -> anyhow::Result<(SuiteTally, bool)> {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]).envs(environment).stdout(Stdio::piped());
    if arguments.package.is_empty() {
        command.arg("--workspace");
    }
    for package in &arguments.package {
        command.args(["--package", package]);
    }
    command.arg("--").args(&arguments.rest);
    let mut child = command.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no standard output")?;
    let tally = SuiteTally::of_output(BufReader::new(output), &mut std::io::stdout())?;
    Ok((tally, child.wait()?.success()))
}

/// The sum of the test runners' summaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct SuiteTally {
    passed: u64,
    failed: u64,
}

impl SuiteTally {
    /// Passes the output on as it comes and adds up its summaries.
    fn of_output(mut output: impl BufRead, onward: &mut impl Write) -> std::io::Result<Self> {
        let mut tally = Self::default();
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            onward.write_all(&line)?;
            onward.flush()?;
            tally.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(tally)
    }

    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ") else { return };
        let count = |word: &str| {
            let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            let pair = words.windows(2).find(|pair| pair.last() == Some(&word));
            pair.and_then(|pair| pair.first()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
    }
}

#[cfg(test)]
mod tests {
    use super::SuiteTally;

    #[test]
    fn the_tally_sums_the_summaries_and_passes_everything_on() {
        let output = "running 2 tests\ntest a ... ok\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test result: FAILED. 13 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 1.21s\nlast";
        let mut onward = Vec::new();
        let tally = SuiteTally::of_output(output.as_bytes(), &mut onward).unwrap();
        assert_eq!(tally, SuiteTally { passed: 15, failed: 2 });
        assert_eq!(String::from_utf8(onward).unwrap(), output);
    }
}
