//! What happens when calls can't be recorded: `available` serves on and counts, `strict` answers 503.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_gateway::record::Durability;
use goldleaves_spool::{FileSystem, Mapping, OpenMode, RealFileSystem, SEGMENT_BYTES_MIN, SpoolFile};
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::world::{BILLABLE, Plan, World};

/// A disk that stops taking anything when it is told to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    broken: Arc<AtomicBool>,
}

impl Disk {
    pub(crate) fn break_down(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
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

    fn map(&self, bytes: u64) -> io::Result<Box<dyn Mapping>> {
        self.real.map(bytes)
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
