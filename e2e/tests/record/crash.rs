//! `kill -9` at random moments of intend, settle, relay and seal; then the ledger against what the killed processes said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_testkit::child::{Child, wait_for};
use goldleaves_testkit::scratch::Scratch;
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use crate::child::{self, DATABASE, DIRECTORY};
use crate::database::{self, Row, Tables};

/// Returns the number of times the process is killed; more with `GOLDLEAVES_KILLS`.
fn kills() -> u32 {
    std::env::var("GOLDLEAVES_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8)
}

/// The statements of the processes about what they did, by event id.
#[derive(Debug, Default)]
struct Said {
    /// About to be announced.
    tried: BTreeSet<String>,
    /// Announced.
    intended: BTreeSet<String>,
    /// Settled as an event.
    settled: BTreeSet<String>,
    /// About to be settled as no event.
    voiding: BTreeSet<String>,
    /// Settled as no event.
    voided: BTreeSet<String>,
}

impl Said {
    fn read(&mut self, path: &Path) {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let Some((what, id)) = line.split_once(' ') else { continue };
            let set = match what {
                "T" => &mut self.tried,
                "I" => &mut self.intended,
                "S" => &mut self.settled,
                "V" => &mut self.voiding,
                "v" => &mut self.voided,
                _ => continue,
            };
            set.insert(id.to_owned());
        }
    }

    /// Everything that is not as it should be, in words.
    fn compare(&self, rows: &BTreeMap<String, Row>) -> Vec<String> {
        let mut wrong = Vec::new();
        for id in self.intended.difference(&self.voiding) {
            match rows.get(id) {
                None => wrong.push(format!("{id} was announced and is nowhere")),
                Some(row) if self.settled.contains(id) && row.table != "usage_events" => {
                    wrong.push(format!("{id} was settled and is {row:?}"));
                }
                Some(_) => {}
            }
        }
        wrong.extend(
            self.voided.iter().filter(|id| rows.contains_key(*id)).map(|id| format!("{id} was voided, has a row")),
        );
        wrong.extend(rows.keys().filter(|id| !self.tried.contains(*id)).map(|id| format!("{id} was never announced")));
        wrong
    }
}

async fn kill_at_random(url: &str, folder: &Scratch) -> Said {
    let mut said = Said::default();
    for round in 0..kills() {
        let lines = folder.join(&format!("said-{round}"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", child::TEST, "--nocapture", "--test-threads", "1"]);
        command.env(DIRECTORY, folder.path()).env(DATABASE, url).stdout(File::create(&lines).unwrap());
        let mut child = Child::spawn(command, "record child").unwrap();
        wait_for("the child to be ready", Duration::from_secs(60), async || {
            assert!(child.ended()?.is_none(), "the child ended by itself");
            Ok(std::fs::read_to_string(&lines)?.contains("R ready").then_some(()))
        })
        .await
        .unwrap();
        let pause = rand::rng().random_range(0..500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        child.kill().unwrap();
        said.read(&lines);
    }
    said
}

/// A last start that relays what the killed ones left, and stops in order.
async fn relay_what_is_left(url: &str, folder: &Scratch) {
    let side = child::open_side(folder.path()).await;
    let meter = Arc::new(child::meter(url).await);
    let stop = CancellationToken::new();
    stop.cancel();
    let left = side.relay.run(meter, stop, Duration::from_secs(60)).await;
    assert_eq!(left, 0, "records that could not be relayed");
}

async fn every_announced_call_has_one_row(url: &str, folder: &Scratch) {
    let said = kill_at_random(url, folder).await;
    relay_what_is_left(url, folder).await;
    let tables = Tables::open(url).await;
    let rows = tables.rows().await;
    let wrong = said.compare(&rows);
    assert!(wrong.is_empty(), "{} of {} wrong: {:#?}", wrong.len(), rows.len(), &wrong[..wrong.len().min(20)]);
    assert!(!said.settled.is_empty(), "the children did something");
    assert!(rows.values().any(|row| row.outcome == "unknown"), "calls were open when the children were killed");
    assert_eq!(tables.disagreements().await, Vec::<String>::new(), "what was sealed is what was received");
    assert!(tables.sealed_epochs().await >= kills() as usize, "every start that handed something out was sealed");
}

#[tokio::test]
async fn kill_9_at_random_moments_loses_nothing_and_doubles_nothing_on_sqlite() {
    let folder = Scratch::new("record-crash").unwrap();
    let url = database::sqlite(folder.path()).await;
    every_announced_call_has_one_row(&url, &folder).await;
}

#[tokio::test]
async fn kill_9_at_random_moments_loses_nothing_and_doubles_nothing_on_postgres() {
    let folder = Scratch::new("record-crash").unwrap();
    every_announced_call_has_one_row(&database::postgres().await, &folder).await;
}
