//! A file system that stands still (a freeze, a hung volume): nothing but billable calls notices, those wait a moment at most,
//! and what was recorded before, meanwhile and after is there once it moves again.
//!
//! It needs a file system of its own, made in a file and mounted, and so the right to do that: without it the tests say so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::load::{Load, Receipt};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::upstream::{Answer, Upstream};

/// Room for a small spool.
const DISK_MIB: u32 = 192;
/// However the test ends: after so many seconds the disk is thawed and let go.
const FROZEN_SECS_MAX: u32 = 150;

/// An ext4 in a file, mounted on a folder. It is thawed and let go with the value, and by a process of its own when the
/// test is killed or takes too long.
struct OwnDisk {
    folder: PathBuf,
    _scratch: Scratch,
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let ran = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    ensure!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(())
}

impl OwnDisk {
    fn on(folder: &Path) -> Result<Self> {
        let scratch = Scratch::new("disk")?;
        let image = scratch.join("image");
        std::fs::File::create(&image)?.set_len(u64::from(DISK_MIB) << 20)?;
        run("mkfs.ext4", &["-q", "-F", &image.display().to_string()])?;
        std::fs::create_dir_all(folder)?;
        let disk = Self { folder: folder.to_owned(), _scratch: scratch };
        run("mount", &["-o", "loop", &image.display().to_string(), &disk.name()])?;
        disk.watch()?;
        Ok(disk)
    }

    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    /// Thaws it when this process is gone, or took too long.
    fn watch(&self) -> Result<()> {
        let wait = "i=0; while kill -0 $1 && [ $i -lt $2 ] && mountpoint -q \"$0\"; do sleep 1; i=$((i+1)); done; \
                    fsfreeze -u \"$0\"; umount -l \"$0\"";
        let (process, most) = (std::process::id().to_string(), FROZEN_SECS_MAX.to_string());
        let mut watch = Command::new("setsid");
        watch.args(["sh", "-c", wait, &self.name(), &process, &most]);
        watch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        watch.spawn().context("the watch over the disk")?;
        Ok(())
    }

    fn freeze(&self) {
        run("fsfreeze", &["-f", &self.name()]).unwrap();
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", &self.name()]).unwrap();
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        // It may be thawed already.
        let _ = run("fsfreeze", &["-u", &self.name()]);
        let _ = run("umount", &["-l", &self.name()]);
    }
}

/// A deployment that is not started, with its data on a disk of its own; none where such a disk can't be made.
async fn system(kind: Kind, durability: &str) -> Option<(Upstream, Deployment, OwnDisk)> {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let settings = [
        ("UPSTREAM_URL", upstream.url()),
        ("METER_DURABILITY", durability.to_owned()),
        ("SPOOL_BYTES_MAX", "128MiB".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::prepare(kind, &settings).unwrap();
    match OwnDisk::on(&deployment.data_folder()) {
        Ok(disk) => Some((upstream, deployment, disk)),
        Err(error) => {
            println!("SKIPPED: a disk that can be frozen needs root and loop devices: {error:#}");
            None
        }
    }
}

fn billable(token: &str) -> Request {
    // Long records fill the stage soon.
    Request::get("/api/v1/documents/7").token(token).header("User-Agent", &"x".repeat(1_900))
}

/// Checks that whatever has nothing to do with records is answered as ever.
async fn all_else_is_answered(deployment: &Deployment) {
    let token = deployment.token("acme").unwrap();
    let asked = [Request::get("/health"), Request::get("/auth/login"), Request::get("/free").token(&token)];
    for request in asked {
        assert_eq!(deployment.ask(&request).await.unwrap().status, 200, "{}", request.target());
    }
    let ops = deployment.ops().unwrap();
    for target in ["/metrics", "/health/live"] {
        assert_eq!(Request::get(target).send(ops).await.unwrap().status, 200, "{target}");
    }
}

async fn readiness(deployment: &Deployment) -> Response {
    Request::get("/health/ready").send(deployment.ops().unwrap()).await.unwrap()
}

/// Asks until a call is recorded; all that came back.
async fn until_recorded(deployment: &Deployment) -> Vec<Receipt> {
    let request = billable(&deployment.token("acme").unwrap());
    let mut receipts = Vec::new();
    wait_for("recording to go on", PATIENCE, async || {
        let receipt = Receipt::of(&deployment.ask(&request).await?)?;
        let recorded = receipt.event_id.is_some();
        receipts.push(receipt);
        Ok(recorded.then_some(()))
    })
    .await
    .unwrap();
    receipts
}

fn recorded(receipts: &[Receipt]) -> Vec<&str> {
    receipts.iter().filter_map(|receipt| receipt.event_id.as_deref()).collect()
}

/// Every receipt with an event is in the ledger, once, and nothing else is.
async fn are_billed(deployment: &Deployment, receipts: &[Receipt]) {
    let ids = recorded(receipts);
    deployment.summary_of("acme", ids.len() as u64).await.unwrap();
    let contents = deployment.tables().await.unwrap().contents().await.unwrap();
    let found = contents.occurrences();
    assert_eq!((found.len(), contents.dead_letters.len()), (ids.len(), 0));
    assert!(ids.iter().all(|id| found.get(id) == Some(&1)));
}

async fn available_serves_records_while_there_is_room_and_counts_the_rest(kind: Kind) {
    let Some((_upstream, mut deployment, disk)) = system(kind, "available").await else { return };
    deployment.start_again().await.unwrap();
    let token = deployment.token("acme").unwrap();
    let mut receipts = vec![Receipt::of(&deployment.ask(&billable(&token)).await.unwrap()).unwrap()];

    disk.freeze();
    all_else_is_answered(&deployment).await;
    let request = billable(&token);
    let load = Load::start(deployment.gateway().unwrap(), 8, move |_, _| request.clone());
    let without = async || Ok((load.without_event() >= 20).then_some(()));
    wait_for("the stage to be full", PATIENCE, without).await.unwrap();
    all_else_is_answered(&deployment).await;
    assert_eq!(readiness(&deployment).await.status, 503);
    // The stage may be full before the disk has been silent for so long that it counts as standing still.
    let known = async || Ok(readiness(&deployment).await.text().contains("its disk does not answer").then_some(()));
    wait_for("the disk to be known as still", PATIENCE, known).await.unwrap();
    assert_eq!(deployment.metric("goldleaves_spool_stands_still").await.unwrap(), 1.0);
    receipts.extend(load.receipts().await.unwrap());
    assert!(receipts.iter().all(|receipt| receipt.status == 200));
    let meanwhile = recorded(&receipts).len();
    assert!(meanwhile > 100, "records waited in the stage: {meanwhile}");
    let unrecorded = deployment.metric("goldleaves_unrecorded_calls_total").await.unwrap();
    assert_eq!(unrecorded, (receipts.len() - meanwhile) as f64);

    disk.thaw();
    receipts.extend(until_recorded(&deployment).await);
    are_billed(&deployment, &receipts).await;
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

async fn strict_answers_503_until_it_moves(kind: Kind) {
    let Some((upstream, mut deployment, disk)) = system(kind, "strict").await else { return };
    deployment.start_again().await.unwrap();
    let mut receipts = until_recorded(&deployment).await;
    let token = deployment.token("acme").unwrap();
    disk.freeze();
    all_else_is_answered(&deployment).await;
    let first = deployment.ask(&billable(&token)).await.unwrap();
    assert_eq!(first.status, 503, "{}", first.text());
    // From now on it is known to stand still: nothing is asked of the upstream any more.
    let before = upstream.served().len();
    assert_eq!(deployment.ask(&billable(&token)).await.unwrap().status, 503);
    assert_eq!(upstream.served().len(), before);
    assert_eq!(readiness(&deployment).await.status, 503);
    all_else_is_answered(&deployment).await;
    disk.thaw();
    receipts.extend(until_recorded(&deployment).await);
    assert!(receipts.iter().all(|receipt| receipt.status == if receipt.event_id.is_some() { 200 } else { 503 }));
    are_billed(&deployment, &receipts).await;
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

async fn a_start_listens_and_says_what_it_waits_for(kind: Kind) {
    let Some((_upstream, mut deployment, disk)) = system(kind, "available").await else { return };
    deployment.start_again().await.unwrap();
    let mut receipts = until_recorded(&deployment).await;
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
    disk.freeze();
    deployment.start_unready().await.unwrap();
    all_else_is_answered(&deployment).await;
    let ready = readiness(&deployment).await.text();
    assert!(ready.contains("its disk does not answer and is waited for"), "{ready}");
    assert_eq!(deployment.metric("goldleaves_spool_stands_still").await.unwrap(), 1.0);
    let token = deployment.token("acme").unwrap();
    let served = deployment.ask(&billable(&token)).await.unwrap();
    assert_eq!((served.status, served.header("x-usage-event-id")), (200, None));
    disk.thaw();
    receipts.extend(until_recorded(&deployment).await);
    are_billed(&deployment, &receipts).await;
    assert_eq!(deployment.metric("goldleaves_spool_stands_still").await.unwrap(), 0.0);
    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
}

on_both!(
    available_serves_records_while_there_is_room_and_counts_the_rest,
    strict_answers_503_until_it_moves,
    a_start_listens_and_says_what_it_waits_for,
);
