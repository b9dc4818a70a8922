//! Calls that can't be recorded: `available` serves on and counts, `strict` answers 503.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_record::Durability;
use goldleaves_spool::{FileSystem, OpenMode, RealFileSystem, SEGMENT_BYTES_MIN, SpoolFile};
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::upstream::{Answer, Upstream};
use parking_lot::{Condvar, Mutex};

use crate::world::{BILLABLE, Plan, World};

/// A disk that stops taking anything when it is told to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    broken: Arc<AtomicBool>,
    still: Arc<(Mutex<bool>, Condvar)>,
}

impl Disk {
    pub(crate) fn break_down(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// From now on nothing that is asked of it comes back.
    pub(crate) fn stand_still(&self) -> Moves {
        *self.still.0.lock() = true;
        Moves(self.clone())
    }

    fn check(&self) -> io::Result<()> {
        let (is_still, moves) = &*self.still;
        let mut is_still = is_still.lock();
        while *is_still {
            moves.wait(&mut is_still);
        }
        if self.broken.load(Ordering::SeqCst) { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }
}

/// The disk moves again when this is dropped, also when a test fails.
pub(crate) struct Moves(Disk);

impl Drop for Moves {
    fn drop(&mut self) {
        *self.0.still.0.lock() = false;
        self.0.still.1.notify_all();
    }
}

impl FileSystem for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.create_dir(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealFileSystem.list(directory)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SpoolFile>> {
        if mode == OpenMode::Create {
            self.check()?;
        }
        Ok(Arc::new(File { real: RealFileSystem.open(path, mode)?, disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        RealFileSystem.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.check()?;
        RealFileSystem.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealFileSystem.lock(path)
    }
}

struct File {
    real: Arc<dyn SpoolFile>,
    disk: Disk,
}

impl SpoolFile for File {
    fn length(&self) -> io::Result<u64> {
        self.real.length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.check()?;
        self.real.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.check()?;
        self.real.write_at(offset, bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.check()?;
        self.real.allocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.real.truncate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.check()?;
        self.real.sync_data()
    }
}

/// Asks until an answer is not recorded.
async fn until_full(world: &World) -> (usize, Response) {
    for recorded in 0..5_000 {
        let response = world.send(Request::get(BILLABLE)).await;
        if response.header("x-usage-event-id").is_none() {
            return (recorded, response);
        }
    }
    panic!("the spool never filled up");
}

fn small(durability: Durability) -> Plan {
    Plan { durability, spool_bytes_max: 4 * SEGMENT_BYTES_MIN, confirms: false, ..Plan::default() }
}

#[tokio::test]
async fn available_serves_on_when_the_spool_is_full() {
    let upstream = Upstream::start(|_| Answer::ok("served")).await.unwrap();
    let world = small(Durability::Available).start(upstream).await;
    let (recorded, response) = until_full(&world).await;
    assert!(recorded > 10, "{recorded}");
    assert_eq!((response.status, response.text().as_str()), (200, "served"));
    for _ in 0..5 {
        assert_eq!(world.send(Request::post(BILLABLE, "x")).await.status, 200);
    }
    assert!(world.metric("goldleaves_unrecorded_calls_total") >= 1.0, "{}", world.metrics.text());
}

#[tokio::test]
async fn strict_refuses_before_the_upstream_hears_of_it() {
    let upstream = Upstream::start(|_| Answer::ok("served")).await.unwrap();
    let world = small(Durability::Strict).start(upstream).await;
    let (recorded, response) = until_full(&world).await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(world.upstream().served().len(), recorded, "only what was recorded was served");
    assert_eq!(world.send(Request::get("/elsewhere")).await.status, 200, "what is not billed is served");
}

#[tokio::test]
async fn strict_answers_503_when_the_record_does_not_reach_the_disk() {
    let upstream = Upstream::start(|_| Answer::ok("served")).await.unwrap();
    let plan = Plan::strict();
    let disk = plan.disk.clone();
    let world = plan.start(upstream).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    world.events(1).await;
    disk.break_down();
    let refused = tokio::time::timeout(Duration::from_secs(20), world.send(Request::get(BILLABLE))).await.unwrap();
    assert_eq!((refused.status, refused.header("x-usage-event-id")), (503, None));
    let events = world.events(1).await;
    let told: Vec<_> = events.iter().map(|event| (event.outcome, event.metadata.status_code)).collect();
    assert_eq!(told, [(Outcome::Completed, 200)], "what the gateway answered itself is not billed");
}

/// More than the stage holds: the rest is counted. All the while everything else answers, and after the thaw nothing that was
/// recorded is missing.
#[tokio::test]
async fn available_is_served_while_the_disk_stands_still() {
    let upstream = Upstream::start(|_| Answer::ok("served")).await.unwrap();
    let plan = Plan::default();
    let disk = plan.disk.clone();
    let world = plan.start(upstream).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    world.events(1).await;
    let moves = disk.stand_still();
    let (mut recorded, mut unrecorded) = (1, 0);
    let long = "x".repeat(6_000);
    while unrecorded < 3 {
        let call = Request::get(BILLABLE).header("User-Agent", &long);
        let served = tokio::time::timeout(Duration::from_secs(20), world.send(call)).await.expect("an answer");
        assert_eq!(served.status, 200);
        match served.header("x-usage-event-id") {
            Some(_) => recorded += 1,
            None => unrecorded += 1,
        }
        assert!(recorded < 20_000, "the stage has an end");
    }
    assert!(recorded > 100, "{recorded} were recorded");
    for (target, status) in [("/health", 200), ("/elsewhere", 200), ("/auth/x", 200)] {
        let answer = tokio::time::timeout(Duration::from_secs(20), world.send(Request::get(target))).await.unwrap();
        assert_eq!(answer.status, status, "{target}");
    }
    assert_eq!(world.metric("goldleaves_unrecorded_calls_total"), 3.0);
    assert_eq!((world.metric("goldleaves_spool_writable"), world.metric("goldleaves_spool_staged")), (0.0, 1.0));
    drop(moves);
    world.events(recorded).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    assert_eq!(world.finish().await.len(), recorded + 1);
}

#[tokio::test]
async fn strict_is_503_while_the_disk_stands_still_and_then_before_it_connects() {
    let upstream = Upstream::start(|_| Answer::ok("served").header("Connection", "close")).await.unwrap();
    let plan = Plan::strict();
    let disk = plan.disk.clone();
    let world = plan.start(upstream).await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    world.events(1).await;
    let moves = disk.stand_still();
    let ask = async |target| {
        tokio::time::timeout(Duration::from_secs(20), world.send(Request::get(target))).await.expect("an answer").status
    };
    assert_eq!(ask(BILLABLE).await, 503);
    let connects = world.metric("goldleaves_upstream_connects_total");
    let served = world.upstream().served().len();
    for _ in 0..5 {
        assert_eq!(ask(BILLABLE).await, 503);
    }
    assert_eq!(world.metric("goldleaves_upstream_connects_total"), connects, "refused before it connects");
    assert_eq!(world.upstream().served().len(), served);
    assert_eq!(world.metric("goldleaves_spool_writable"), 0.0, "readiness says so");
    assert_eq!((ask("/health").await, ask("/elsewhere").await), (200, 200));
    drop(moves);
    while ask(BILLABLE).await != 200 {}
    assert_eq!(world.finish().await.len(), 2, "what was answered 503 is not billed");
}
