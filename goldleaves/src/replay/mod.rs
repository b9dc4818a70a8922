//! `goldleaves replay`: a part of the stream into the ledger once more, or only a look at it. Progress goes to standard
//! error, what came of it to standard output.

mod course;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use goldleaves_ledger::{Ledger, Recorded};
use goldleaves_meter_worker::{ConsumerSettings, Meter};
use goldleaves_runtime::settings::{Common, Values, parse, table};
use goldleaves_runtime::{Exit, Metrics, Secret, Shutdown, process};
use goldleaves_stream::{Position, Reader, ReaderOptions, Span};
use tokio_util::sync::CancellationToken;

use crate::cli::ReplayArguments;
use crate::{config, prepare, recall};
use course::{Ending, Replay, ReplayProgress, StreamContents};

/// The time for which a ledger that can't record is waited for.
const LEDGER_PATIENCE: Duration = Duration::from_secs(60);
/// The interval at which it says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct ReplayConfig {
    common: Common,
    stream: ConsumerSettings,
    data_dir: PathBuf,
    database_url: Secret,
}

impl ReplayConfig {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub(crate) fn read(values: &mut Values) -> Option<Self> {
        let common = Common::read(values);
        let environment = common.as_ref().map(|common| common.environment);
        let stream = if values.is_set(table::NATS_URL) {
            ConsumerSettings::read(values)
        } else {
            let text = "is missing, and a replay reads JetStream's stream USAGE: a deployment without NATS has none, its \
                        spool hands events to the ledger until they are recorded";
            values.mistake(table::NATS_URL, text);
            None
        };
        let data_dir = values.required(table::DATA_DIR, parse::path);
        let database_url = config::database_url(values, data_dir.as_deref(), environment);
        Some(Self { common: common?, stream: stream?, data_dir: data_dir?, database_url: database_url? })
    }
}

/// Replays, or looks.
pub(crate) fn run(config: &ReplayConfig, arguments: ReplayArguments) -> Exit {
    let _logs = config.common.start_logs();
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime can't be started")
        .and_then(|runtime| runtime.block_on(replay(config, arguments)));
    done.unwrap_or_else(|error| {
        say(&process::chain(error.as_ref()));
        Exit::Failed("replay".to_owned())
    })
}

async fn replay(config: &ReplayConfig, arguments: ReplayArguments) -> Result<Exit> {
    let shutdown = Shutdown::on_signals().context("signals can't be listened for")?;
    let ledger = if arguments.dry_run { to_ask(config).await } else { Some(to_record(config).await?) };
    let connection = config.stream.clone().connect("replay").await?;
    if let Some(ledger) = ledger.as_ref().filter(|_| !arguments.dry_run) {
        recall::kept(ledger, &config.data_dir).await?;
        recall::noted(ledger, &connection).await?;
        let way = "nothing was recorded: bring the rate cards back first, with goldleaves rate-cards import and the file that \
                   was exported";
        ledger.bring_back_cards().await.context(way)?;
    }
    let Some(reader) = Reader::open(&connection, arguments.from, arguments.to, ReaderOptions::default()).await? else {
        print("nothing is stored there")?;
        return Ok(Exit::Done);
    };
    let span = reader.span();
    say(&format_args!("{} messages, sequences {} to {}", span.len(), span.first, span.last));
    let mut replay = Replay::new(reader, LEDGER_PATIENCE);
    let running = async {
        match &ledger {
            Some(ledger) if !arguments.dry_run => record(&mut replay, ledger, span, &shutdown.token()).await,
            ledger => look(&mut replay, ledger.as_ref(), span, &shutdown.token()).await,
        }
    };
    let ending = tokio::select! {
        ending = running => ending,
        () = shutdown.at_once() => Ok(Ending::Stopped),
    };
    let go_on = GoOn { from: replay.next_sequence(), arguments };
    match ending {
        Ok(Ending::Finished) => Ok(Exit::Done),
        Ok(Ending::Stopped) => {
            say(&format_args!("stopped; {go_on}"));
            Ok(Exit::Unfinished(vec!["replay".to_owned()]))
        }
        Err(error) => Err(error.context(go_on.to_string())),
    }
}

/// The ledger to record into: it must be there, and able to price.
async fn to_record(config: &ReplayConfig) -> Result<Ledger> {
    let ledger = prepare::open(&config.database_url).await?;
    let cards = ledger.rate_cards().await?;
    ensure!(!cards.is_empty(), "the ledger has no rate card: run migrate, or goldleaves rate-cards import");
    if let Some(latest) = cards.last() {
        say(&format_args!("the ledger has {} rate cards, the latest is {latest}", cards.len()));
    }
    Ok(ledger)
}

/// The ledger to compare with, if there is one.
async fn to_ask(config: &ReplayConfig) -> Option<Ledger> {
    let ledger = prepare::open(&config.database_url).await;
    ledger
        .inspect_err(|error| say(&format_args!("the ledger is not compared with: {}", process::chain(error.as_ref()))))
        .ok()
}

async fn record(replay: &mut Replay, ledger: &Ledger, span: Span, stop: &CancellationToken) -> Result<Ending> {
    let meter = Meter::new(ledger.clone(), &Metrics::new());
    let (mut recorded, mut teller) = (Recorded::default(), Teller::default());
    let ending = replay.record(&meter, &mut recorded, stop, |progress| teller.tell(&progress)).await;
    let read = replay.progress().map_or(0, |progress| progress.read);
    print(&summary(&recorded, read, missing(replay, span)))?;
    ending
}

async fn look(replay: &mut Replay, ledger: Option<&Ledger>, span: Span, stop: &CancellationToken) -> Result<Ending> {
    let (mut contents, mut teller) = (StreamContents::default(), Teller::default());
    let ending = replay.look(ledger, &mut contents, stop, |progress| teller.tell(&progress)).await;
    print(&description(&contents, missing(replay, span)))?;
    ending
}

/// Returns the number of sequences up to here that are no longer in the stream.
fn missing(replay: &Replay, span: Span) -> u64 {
    let passed = replay.progress().map_or(0, |progress| progress.at.sequence + 1 - span.first);
    passed.saturating_sub(replay.progress().map_or(0, |progress| progress.read))
}

/// Where a replay that did not come to its end goes on.
struct GoOn {
    from: u64,
    arguments: ReplayArguments,
}

impl fmt::Display for GoOn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.arguments.dry_run { "looked at" } else { "recorded" };
        write!(out, "everything before sequence {} is {done}, go on with --from {}", self.from, self.from)?;
        match self.arguments.to {
            Some(Position::First) => out.write_str(" --to first"),
            Some(Position::Sequence(sequence)) => write!(out, " --to {sequence}"),
            Some(Position::Time(at)) => write!(out, " --to {at}"),
            None => Ok(()),
        }
    }
}

/// Prints how far the replay is, now and then.
#[derive(Default)]
struct Teller {
    told: Option<Instant>,
}

impl Teller {
    fn tell(&mut self, progress: &ReplayProgress) {
        if progress.remaining > 0 && self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let ReplayProgress { at, read, remaining, elapsed } = progress;
        let rate = *read as f64 / elapsed.as_secs_f64().max(0.001);
        let left = Duration::from_secs_f64((*remaining as f64 / rate.max(0.001)).min(1e9)).as_secs();
        say(&format_args!("{read} done, {remaining} to go, {rate:.0} a second, about {left} s left; at {at}"));
    }
}

fn summary(recorded: &Recorded, read: u64, missing: u64) -> String {
    let Recorded { inserted, duplicates, replays, displaced, set_aside, seals, .. } = recorded;
    let set_aside: BTreeMap<&str, u64> = set_aside.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let mut text = format!("read        {read}\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "inserted    {inserted}");
    let _ = writeln!(text, "duplicates  {duplicates}");
    let _ = writeln!(text, "displaced   {displaced}");
    let _ = writeln!(text, "replays     {replays}");
    let _ = writeln!(text, "set aside   {}", by_kind(&set_aside));
    let _ = writeln!(text, "seals       {seals}");
    let _ = write!(text, "expired     {missing}");
    text
}

fn description(contents: &StreamContents, missing: u64) -> String {
    let mut text = format!("messages    {}\n", contents.messages);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "events      {}", by_kind(&contents.events));
    let _ = writeln!(text, "seals       {}", contents.seals);
    let _ = writeln!(text, "unreadable  {}", by_kind(&contents.unreadable));
    let _ = writeln!(text, "tenants     {}", contents.tenants.len());
    let _ = match contents.calls {
        Some((first, last)) => writeln!(text, "calls       {first} to {last}"),
        None => writeln!(text, "calls       none"),
    };
    let _ = match contents.known {
        Some(known) => writeln!(text, "in ledger   {known} of {}", contents.records()),
        None => writeln!(text, "in ledger   not asked"),
    };
    let _ = write!(text, "expired     {missing}");
    text
}

/// The sum, and what it is made of: `3 (completed 2, unknown 1)`.
fn by_kind(counts: &BTreeMap<&str, u64>) -> String {
    let kinds: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let sum: u64 = counts.values().sum();
    if kinds.is_empty() { sum.to_string() } else { format!("{sum} ({})", kinds.join(", ")) }
}

fn say(text: &dyn fmt::Display) {
    process::say(&format_args!("replay: {text}"));
}

fn print(text: &str) -> Result<()> {
    process::print(&format!("{text}\n")).context("the answer can't be written")
}
