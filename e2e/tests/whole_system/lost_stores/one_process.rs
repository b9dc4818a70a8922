//! The one process: its database goes back or disappears, its disk fills up, and it dies at any moment.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use goldleaves_e2e::account::Unbilled;
use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_e2e::load::{Load, Receipt, SteadyLoad};
use goldleaves_e2e::tables::{TableContents, Tables};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::Upstream;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{
    Course, DURABILITY, Durability, Logs, RECOVERY, Read, Tally, UNRECORDED, calls, falls_to_none, judge, request,
    seeded,
};
use crate::chaos::answer;
use crate::soak;
use crate::used_stream::TENANTS;

const COPIES: usize = 3;
/// Room for the spool of a whole run and its database.
const DISK_MIB: u32 = 1_536;
const SPOOL_BYTES_MAX: &str = "768MiB";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The database is what it was.
    LedgerBack,
    LedgerDeleted,
    DiskFull,
    Killed,
}

const LOSSES: [Loss; 4] = [Loss::LedgerBack, Loss::LedgerDeleted, Loss::DiskFull, Loss::Killed];

struct Run {
    system: Deployment,
    address: watch::Sender<Option<std::net::SocketAddr>>,
    load: SteadyLoad,
    random: StdRng,
    tally: Tally,
    copies: Vec<TempDir>,
    /// The database of the moment when the disk last had room again: to make it, the spool gave up what it retained.
    base: Option<TempDir>,
    /// The responses to calls beside the load.
    bursts: Vec<Receipt>,
    said: Unbilled,
    durability: Durability,
}

fn files(folder: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| folder.join(format!("goldleaves.db{end}")))
}

/// Copies the database, which nobody writes to at the moment.
fn copy(from: &Path, to: &Path) {
    for (from, to) in files(from).iter().zip(files(to)) {
        let _ = std::fs::remove_file(&to);
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

impl Run {
    fn data(&self) -> PathBuf {
        self.system.kept_disk().unwrap().path()
    }

    /// The database of the running process as it is at this moment.
    fn copied(&mut self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let data = self.data();
        self.system.program().unwrap().signal(Signal::STOP).unwrap();
        copy(&data, folder.path());
        self.system.program().unwrap().signal(Signal::CONT).unwrap();
        folder
    }

    fn keep_copy(&mut self) {
        let copied = self.copied();
        self.copies.push(copied);
        let extra = self.copies.len().saturating_sub(COPIES);
        self.copies.drain(..extra);
    }

    async fn calm(&self) {
        falls_to_none("events without a row", async || {
            let lacking = self.system.metric("goldleaves_ledger_lacking_messages").await?;
            let unsent = self.system.metric("goldleaves_spool_unsent_records").await?;
            Ok((lacking + unsent) as u64)
        })
        .await;
    }

    /// Notes what the gateway says before it ends.
    async fn note(&mut self) {
        let count = async |name| self.system.metric(name).await.unwrap() as u64;
        let void = count("goldleaves_voided_calls_total").await;
        let retries = count("goldleaves_upstream_retries_total").await;
        self.durability.allows(count(UNRECORDED).await);
        self.said += Unbilled { void, retries, unrecorded: 0 };
    }

    /// Ends the process without a warning, or as a person does.
    async fn end(&mut self) {
        self.note().await;
        if self.random.random_bool(0.5) {
            self.system.kill().await.unwrap();
        } else {
            assert_eq!(self.system.stop().await.unwrap().code(), Some(0));
        }
        self.address.send_replace(None);
    }

    async fn start(&mut self) {
        self.durability = Durability::any(&mut self.random);
        self.system.set(DURABILITY, self.durability.setting());
        self.system.start_again().await.unwrap();
        self.address.send_replace(Some(self.system.gateway().unwrap()));
    }

    async fn lose(&mut self, loss: Loss) {
        if self.copies.is_empty() || self.random.random_bool(0.5) {
            self.keep_copy();
        }
        calls(&self.load, 30).await;
        self.calm().await;
        let logs = Logs::from_now(self.system.folder());
        let went_back = ["the ledger went back"];
        match loss {
            Loss::LedgerBack | Loss::LedgerDeleted => {
                self.end().await;
                let data = self.data();
                if loss == Loss::LedgerBack {
                    copy(self.copies.choose(&mut self.random).unwrap().path(), &data);
                } else {
                    files(&data).iter().for_each(|file| drop(std::fs::remove_file(file)));
                }
                self.start().await;
                let shows = async || Ok(self.system.metric("goldleaves_ledger_went_back_total").await? > 0.0);
                self.tally.named(&format!("{loss:?}"), &logs, &went_back, shows).await;
            }
            Loss::DiskFull => self.fill(&logs).await,
            Loss::Killed => {
                self.end().await;
                self.start().await;
                self.tally.unasked("Killed");
            }
        }
        self.calm().await;
        let lasts = Duration::from_millis(self.random.random_range(0..if soak() { 30_000 } else { 500 }));
        tokio::time::sleep(lasts).await;
    }

    /// Fills the disk, has calls until there is no room for another one, and makes room.
    async fn fill(&mut self, logs: &Logs) {
        self.system.kept_disk().unwrap().fill().unwrap();
        let token = self.system.token(TENANTS[0]).unwrap();
        let burst = self.bursts.len();
        let load = Load::start(self.system.gateway().unwrap(), 4, move |client, number| {
            // Long records fill the spool soon.
            let id = format!("burst-{burst}-{client}-{number}");
            let request = Request::get("/api/v1/documents/long").token(&token).header("X-Request-ID", &id);
            request.header("User-Agent", &"x".repeat(1500))
        });
        let refused = async || Ok((load.without_event() > 0).then_some(()));
        wait_for("the spool to be full", RECOVERY, refused).await.unwrap();
        self.bursts.extend(load.receipts().await.unwrap());
        let shows = async || Ok(self.system.metric("goldleaves_spool_writable").await? == 0.0);
        let says = ["no further spool segment can be prepared", "the spool's file of state"];
        self.tally.named("DiskFull", logs, &says, shows).await;
        self.system.kept_disk().unwrap().make_room().unwrap();
        let room = async || Ok((self.system.metric("goldleaves_spool_writable").await? == 1.0).then_some(()));
        wait_for("room", RECOVERY, room).await.unwrap();
        self.calm().await;
        self.copies.clear();
        self.base = Some(self.copied());
    }
}

/// The rows of the database, which nobody uses now, and how many calls have none.
async fn contents(data: &Path) -> (TableContents, u64) {
    let folder = tempfile::tempdir().unwrap();
    copy(data, folder.path());
    let url = format!("sqlite://{}?mode=rw", folder.path().join("goldleaves.db").display());
    let tables = Tables::open(&url).await.unwrap();
    assert_eq!(tables.disagreements().await.unwrap(), Vec::<String>::new(), "what was sealed is what was received");
    (tables.contents().await.unwrap(), tables.unrecorded().await.unwrap())
}

async fn bills(system: &Deployment) -> Vec<Value> {
    let mut bills = Vec::new();
    for tenant in TENANTS {
        let path = tenant.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        for view in ["usage-summary", "usage-report"] {
            let target = format!("/billing/{view}/{path}?start_date=2000-01-01&end_date=2100-01-01");
            let response = system.ask(&Request::get(&target).token(&system.token(tenant).unwrap())).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            bills.push(response.json().unwrap());
        }
    }
    bills
}

/// The rows as far as they depend on the events alone: not under which label a row stands.
fn meaning(contents: &TableContents) -> Vec<String> {
    let rows = [("billed", &contents.events), ("repeat", &contents.duplicates)];
    let rows = rows.iter().flat_map(|(kind, rows)| {
        rows.iter().map(move |row| {
            format!(
                "{kind} {} {:?} {} {} {} {}",
                row.id, row.client_request_id, row.tenant, row.route, row.outcome, row.units_micro
            )
        })
    });
    let letters =
        contents.dead_letters.iter().map(|letter| format!("{} {:?} {}", letter.id, letter.request_id, letter.reason));
    let mut rows: Vec<String> = rows.chain(letters).collect();
    rows.sort_unstable();
    rows
}

async fn system(upstream: &Upstream, durability: Durability) -> Deployment {
    let settings = [
        ("UPSTREAM_URL", upstream.url()),
        (DURABILITY, durability.setting().to_owned()),
        ("SPOOL_BYTES_MAX", SPOOL_BYTES_MAX.to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut system = Deployment::prepare(Kind::Embedded, &settings).unwrap();
    system.on_kept_disk(DISK_MIB).await.unwrap();
    system.start_again().await.unwrap();
    system
}

/// Made anew from what the spool retains, and what a copy has of what it gave up, the ledger is the same.
async fn rebuild(system: &mut Deployment, base: Option<&TempDir>, before: &TableContents) {
    let data = system.kept_disk().unwrap().path();
    system.start_again().await.unwrap();
    let billed = bills(system).await;
    assert_eq!(system.stop().await.unwrap().code(), Some(0));
    match base {
        Some(base) => copy(base.path(), &data),
        None => files(&data).iter().for_each(|file| drop(std::fs::remove_file(file))),
    }
    system.start_again().await.unwrap();
    let noticed = async || Ok((system.metric("goldleaves_ledger_went_back_total").await? > 0.0).then_some(()));
    wait_for("the loss to be noticed", RECOVERY, noticed).await.unwrap();
    falls_to_none("events of the ledger made anew", async || {
        let lacking = system.metric("goldleaves_ledger_lacking_messages").await?;
        let unsent = system.metric("goldleaves_spool_unsent_records").await?;
        Ok((lacking + unsent) as u64)
    })
    .await;
    assert_eq!(bills(system).await, billed);
    assert_eq!(system.stop().await.unwrap().code(), Some(0));
    crate::used_stream::assert_same(&meaning(&contents(&data).await.0), &meaning(before));
}

async fn started(upstream: &Upstream, course: Course) -> Run {
    let mut random = seeded("one process");
    let durability = Durability::any(&mut random);
    let system = system(upstream, durability).await;
    let (address, seen) = watch::channel(Some(system.gateway().unwrap()));
    let tokens = TENANTS.map(|tenant| system.token(tenant).unwrap());
    let load = SteadyLoad::start(seen, course.plan(), move |number| request(&tokens, number));
    let (tally, copies, bursts, said) = (Tally::default(), Vec::new(), Vec::new(), Unbilled::default());
    Run { system, address, load, random, tally, copies, base: None, bursts, said, durability }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_of_the_one_process_are_lost_and_nothing_is() {
    let course = Course::of_environment();
    let upstream = Upstream::start_keeping_ids(answer).await.unwrap();
    let mut run = started(&upstream, course).await;
    let mut losses = LOSSES.to_vec();
    losses.shuffle(&mut run.random);
    let deleted = losses.iter().position(|loss| *loss == Loss::LedgerDeleted).unwrap();
    let full = losses.iter().position(|loss| *loss == Loss::DiskFull).unwrap();
    // The last one comes first.
    if deleted < full {
        losses.swap(deleted, full);
    }
    let start = Instant::now();
    while !losses.is_empty()
        || (soak() && (start.elapsed() < course.lasts || run.load.finished() < course.calls as u64))
    {
        let loss = losses.pop().unwrap_or_else(|| {
            // A disk is not filled as often as that: each time takes room that the spool retains.
            let loss = *LOSSES.choose(&mut run.random).unwrap();
            let is_rare = loss == Loss::DiskFull && run.random.random_bool(0.9);
            // What the spool gave up only a copy has.
            let is_whole = loss == Loss::LedgerDeleted && run.base.is_some();
            if is_rare || is_whole { Loss::LedgerBack } else { loss }
        });
        println!("one process, {:.0?}, {} calls: {loss:?}", start.elapsed(), run.load.finished());
        run.lose(loss).await;
    }
    run.calm().await;
    run.note().await;
    let data = run.data();
    let Run { mut system, load, tally, bursts, base, said, .. } = run;
    let asked = load.stop().await.unwrap();
    println!("one process: {:.0?}", start.elapsed());
    tally.print();
    assert_eq!(system.stop().await.unwrap().code(), Some(0));
    let (before, unrecorded) = contents(&data).await;
    let said = Unbilled { unrecorded, ..said };
    let wrong = judge(&before, &Read::of(&asked, &bursts), &upstream, said);
    rebuild(&mut system, base.as_ref(), &before).await;
    assert_eq!(wrong, Vec::<String>::new());
}
