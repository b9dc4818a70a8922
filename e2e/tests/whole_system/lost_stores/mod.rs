//! Stores that go back, fail over, fill up, fall silent and disappear, at random under load: every call that was served is
//! billed once, a ledger made anew bills the same, and each loss is named in a log line and by a metric within a minute.
//! Each start of a gateway is one of `available` or of `strict`: where its disk takes no record, the first serves on and its
//! seals say how many calls have none, exactly; the second refuses them.
//!
//! A few losses of each deployment as a rule, those that are named soon; `GOLDLEAVES_SOAK=1` inflicts all of them and goes on
//! for two hours (`GOLDLEAVES_SOAK_SECS`) with 100,000 calls (`GOLDLEAVES_SOAK_REQUESTS`), both deployments at a time. `GOLDLEAVES_CHAOS_SEED` repeats the order of a run.

mod apart;
mod one_process;

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use goldleaves_e2e::account::{self, Unbilled};
use goldleaves_e2e::load::{LoadAnswer, LoadPlan, Receipt, SteadyLoad, receipts};
use goldleaves_e2e::tables::TableContents;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::Upstream;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::chaos::KINDS;
use crate::soak;

/// The time within which a loss has to be named.
const NAMED_WITHIN: Duration = Duration::from_secs(60);
/// The time within which something has to move on while what is retained is handed over and recorded again.
const RECOVERY: Duration = Duration::from_secs(900);
const CLIENTS: usize = 8;
const DURABILITY: &str = "METER_DURABILITY";
/// Calls that a gateway served without a record.
const UNRECORDED: &str = "goldleaves_unrecorded_calls_total";

/// The length of a run, and its calls.
#[derive(Debug, Clone, Copy)]
struct Course {
    lasts: Duration,
    calls: usize,
}

impl Course {
    fn of_environment() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
        let secs = if soak() { number("GOLDLEAVES_SOAK_SECS").unwrap_or(7_200) } else { 20 };
        let calls = number("GOLDLEAVES_SOAK_REQUESTS").filter(|_| soak()).unwrap_or(100_000 * secs / 7_200);
        Self { lasts: Duration::from_secs(secs as u64), calls }
    }

    /// Faster than need be: calls take their time, and nobody is served while a gateway starts.
    fn plan(self) -> LoadPlan {
        let pause = self.lasts.mul_f64(0.8 * CLIENTS as f64 / self.calls as f64);
        LoadPlan { clients: CLIENTS, pause, requests: None }
    }
}

fn seeded(of: &str) -> StdRng {
    let seed = std::env::var("GOLDLEAVES_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("{of}: GOLDLEAVES_CHAOS_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// The `METER_DURABILITY` of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    Available,
    Strict,
}

impl Durability {
    fn any(random: &mut StdRng) -> Self {
        if random.random_bool(0.5) { Self::Available } else { Self::Strict }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Strict => "strict",
        }
    }

    /// Fails where a gateway says that it served what it had to refuse.
    fn allows(self, unrecorded: u64) {
        assert!(self == Self::Available || unrecorded == 0, "strict served {unrecorded} calls without a record");
    }
}

/// The responses that clients read to their end.
struct Read {
    receipts: Vec<Receipt>,
    broken: u64,
    /// A 503 says that nothing was recorded, and nothing is owed.
    refused: u64,
}

impl Read {
    fn of(asked: &[LoadAnswer], bursts: &[Receipt]) -> Self {
        let is_refused = |receipt: &Receipt| receipt.status == 503;
        let broken = asked.iter().filter(|asked| asked.receipt.is_none()).count() as u64;
        let kept = asked.iter().filter(|asked| !asked.receipt.as_ref().is_some_and(is_refused));
        let mut receipts = receipts(&kept.cloned().collect::<Vec<LoadAnswer>>()).unwrap();
        receipts.extend(bursts.iter().filter(|receipt| !is_refused(receipt)).cloned());
        let refused = (asked.len() + bursts.len() - receipts.len()) as u64 - broken;
        Self { receipts, broken, refused }
    }
}

/// Everything that is wrong with the account of a run, in words: billed is what was answered, but for as many calls as the
/// seals say were served without a record.
fn judge(contents: &TableContents, read: &Read, upstream: &Upstream, said: Unbilled) -> Vec<String> {
    let (served, without) = (upstream.request_ids(), account::without_event(&read.receipts));
    println!(
        "{} responses read, {without} of them without a record, {} refused, {} broken, {} served by the upstream, {} billed, \
         {} repeats, {} set aside, {said:?}",
        read.receipts.len(),
        read.refused,
        read.broken,
        served.len(),
        contents.events.len(),
        contents.duplicates.len(),
        contents.dead_letters.len()
    );
    let unbilled = Unbilled { void: said.void + read.refused, ..said };
    let mut wrong = account::complaints(contents, &read.receipts, &served, unbilled);
    // A call whose response broke may have been one of them.
    if said.unrecorded > without + read.broken {
        let counted = said.unrecorded;
        wrong.push(format!("{counted} calls counted without a record, {without} read, {} broken", read.broken));
    }
    let others = contents.dead_letters.iter().filter(|letter| letter.reason != "unknown");
    wrong.extend(others.map(|letter| format!("{letter:?}")));
    let first = &wrong[..wrong.len().min(20)];
    println!("{} complaints: {first:#?}", wrong.len());
    wrong
}

/// The n-th request; one in fifty is asked twice under one id.
fn request(tokens: &[String], number: usize) -> Request {
    let number = if number % 50 == 49 { number - 10 } else { number };
    let target = format!("/api/v1/documents/{}", KINDS[number % KINDS.len()]);
    Request::get(&target).token(&tokens[number % tokens.len()]).header("X-Request-ID", &format!("lost-{number}"))
}

/// Waits until so many more responses were read.
async fn calls(load: &SteadyLoad, more: u64) {
    let wanted = load.finished() + more;
    wait_for("calls", RECOVERY, async || Ok((load.finished() >= wanted).then_some(()))).await.unwrap();
}

/// Waits until nothing is left of a backlog, for as long as it goes on falling: how long that takes is the machine's matter.
async fn falls_to_none(what: &str, left: impl AsyncFn() -> Result<u64>) {
    let start = Instant::now();
    let (mut least, mut since, mut said) = (u64::MAX, start, start);
    loop {
        // A program that is busy or just starting does not answer.
        match left().await {
            Ok(0) => return,
            Ok(now) if now < least => (least, since) = (now, Instant::now()),
            Ok(_) | Err(_) => {}
        }
        if said.elapsed() > NAMED_WITHIN {
            println!("  {least} {what} after {:.0?}", start.elapsed());
            said = Instant::now();
        }
        assert!(since.elapsed() < RECOVERY, "{least} {what} do not become fewer for {RECOVERY:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The lines that programs write into their logs from some moment on.
#[derive(Debug)]
struct Logs {
    folder: PathBuf,
    ends: BTreeMap<PathBuf, u64>,
}

impl Logs {
    fn from_now(folder: &Path) -> Self {
        let mut logs = Self { folder: folder.to_path_buf(), ends: BTreeMap::new() };
        let ends = logs.files().into_iter().map(|file| (file.clone(), file.metadata().map_or(0, |found| found.len())));
        logs.ends = ends.collect();
        logs
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|end| end == "stderr" || end == "stdout")).collect()
    }

    fn written(&self) -> String {
        let mut text = String::new();
        for path in self.files() {
            let mut file = std::fs::File::open(&path).unwrap();
            file.seek(SeekFrom::Start(self.ends.get(&path).copied().unwrap_or_default())).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }

    fn say(&self, any: &[&str]) -> bool {
        let written = self.written();
        any.iter().any(|words| written.contains(words))
    }
}

/// The losses so far, and the time until each was named.
#[derive(Debug, Default)]
struct Tally {
    named: BTreeMap<String, Vec<[Duration; 2]>>,
    unasked: BTreeMap<String, usize>,
}

impl Tally {
    /// Waits until a loss is named, in a log line and by a metric.
    async fn named(&mut self, loss: &str, logs: &Logs, any: &[&str], shows: impl AsyncFn() -> Result<bool>) {
        let since = Instant::now();
        let mut took = [None, None];
        while took.contains(&None) {
            if took[0].is_none() && logs.say(any) {
                took[0] = Some(since.elapsed());
            }
            if took[1].is_none() && shows().await.unwrap_or_default() {
                took[1] = Some(since.elapsed());
            }
            assert!(
                since.elapsed() < NAMED_WITHIN,
                "{loss} is not named after {NAMED_WITHIN:?}: line, metric {took:?}, wanted {any:?}\n{}",
                logs.written()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let took = took.map(Option::unwrap);
        println!("  {loss}: named in a line after {:.1?}, by a metric after {:.1?}", took[0], took[1]);
        self.named.entry(loss.to_owned()).or_default().push(took);
    }

    /// Counts a loss right after another one, which may hide it.
    fn unasked(&mut self, loss: &str) {
        println!("  {loss}, on top");
        *self.unasked.entry(loss.to_owned()).or_default() += 1;
    }

    fn print(&self) {
        for (loss, took) in &self.named {
            let most = |at: usize| took.iter().map(|took| took[at].as_secs_f64()).fold(0.0, f64::max);
            println!("{loss}: {} times, line within {:.1} s, metric within {:.1} s", took.len(), most(0), most(1));
        }
        println!("on top of others: {:?}", self.unasked);
    }
}
