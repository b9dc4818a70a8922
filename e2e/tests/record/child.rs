//! A gateway's record side with its meter in a process of its own, made to be killed: it announces and settles calls as
//! fast as it can and says on stdout what it is about to do and what it did.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use goldleaves_domain::{Action, EventId, Outcome, RequestId, Timestamp, Units};
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_meter_worker::Meter;
use goldleaves_record::{
    CallIntent, Durability, RecordOptions, RecordSide, Recorder, RelayPace, Settlement, VoidReason, open,
};
use goldleaves_runtime::Metrics;
use goldleaves_spool::{RealFileSystem, SpoolOptions};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Names the child's data directory; only set by the parent.
pub(crate) const DIRECTORY: &str = "GOLDLEAVES_E2E_RECORD_CHILD";
/// Names the child's database.
pub(crate) const DATABASE: &str = "GOLDLEAVES_E2E_RECORD_DATABASE";
/// The name of the test that is the child.
pub(crate) const TEST: &str = "child::runs_until_it_is_killed";

/// Does nothing unless the parent started it as its child.
#[test]
fn runs_until_it_is_killed() {
    let (Ok(directory), Ok(url)) = (std::env::var(DIRECTORY), std::env::var(DATABASE)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(PathBuf::from(directory), url));
}

async fn run(directory: PathBuf, url: String) {
    let side = open_side(&directory).await;
    let meter = Arc::new(meter(&url).await);
    say('R', "ready");
    let callers: Vec<_> = (0..3).map(|_| tokio::spawn(call_for_ever(side.recorder.clone()))).collect();
    side.relay.run(meter, CancellationToken::new(), Duration::ZERO).await;
    drop(callers);
}

/// Small segments that go as soon as they are acknowledged, and seals all the time: nothing a seal needs may lie in what
/// is gone.
pub(crate) async fn open_side(directory: &Path) -> RecordSide {
    let spool = SpoolOptions {
        bytes_max: 64 << 20,
        retain: Duration::ZERO,
        segment_bytes: 256 << 10,
        sync_pause: Duration::ZERO,
        ..SpoolOptions::new(directory.join("spool"))
    };
    let options = RecordOptions::new(spool, Durability::Strict);
    let side = open(options, RealFileSystem, &Metrics::new()).await.unwrap();
    let pace = RelayPace { seal: Duration::from_millis(20), ..RelayPace::default() };
    RecordSide { relay: side.relay.at_pace(pace), ..side }
}

pub(crate) async fn meter(url: &str) -> Meter {
    Meter::new(Ledger::connect(url, StoreOptions::default()).await.unwrap(), &Metrics::new())
}

/// One line in one write, so that a kill cuts none.
fn say(what: char, id: impl std::fmt::Display) {
    use std::io::Write as _;
    std::io::stdout().write_all(format!("{what} {id}\n").as_bytes()).unwrap();
}

async fn call_for_ever(recorder: Recorder) {
    loop {
        let event_id = recorder.event_id();
        say('T', event_id);
        // A burst may outrun the next small segment: then there is no record, and the call is not served.
        let Ok(owed) = recorder.intend(call(event_id)) else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        say('I', event_id);
        let (kind, pause) = (rand::rng().random_range(0..10), rand::rng().random_range(0..400));
        tokio::time::sleep(Duration::from_micros(pause)).await;
        match kind {
            0 => {
                owed.durable().await.unwrap();
                say('V', event_id);
                owed.void(VoidReason::StatusNotBillable);
                say('v', event_id);
            }
            // A call that is still open when the process is killed.
            1 => std::mem::forget(owed),
            _ => {
                owed.publish(settlement());
                say('S', event_id);
            }
        }
    }
}

pub(crate) fn call(event_id: EventId) -> CallIntent {
    CallIntent {
        event_id,
        tenant_id: "tenant-1".parse().unwrap(),
        user_id: "user-1".parse().unwrap(),
        ts: now(),
        traceparent: None,
        request_id: RequestId::from_uuid(Uuid::now_v7()),
        client_request_id: None,
        route: "/api/v1/documents".parse().unwrap(),
        method: "GET".into(),
        user_agent: Some("test".into()),
        client_ip: Some("127.0.0.1".into()),
    }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix_micros(since.as_micros().try_into().unwrap()).unwrap()
}

pub(crate) fn settlement() -> Settlement {
    Settlement {
        outcome: Outcome::Completed,
        status_code: 200,
        units: Units::ONE,
        action: Some(Action::of_method("GET")),
        response_bytes: 200,
        processing_micros: 1_000,
        fingerprint: None,
    }
}
