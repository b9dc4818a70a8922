//! A receiver in memory, and a record side in a directory of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::wire::{self, Message};
use goldleaves_domain::{
    Delivery, EventId, Outcome, PublishError, PublishFuture, Publisher, RequestId, Seal, Timestamp, Units, UsageEvent,
};
use goldleaves_runtime::Metrics;
use goldleaves_spool::{FileSystem, RealFileSystem, SEGMENT_BYTES_MIN, SpoolOptions};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{AnnouncedCall, CallIntent, Durability, RecordOptions, Recorder, RelayPace, Settlement, open};

/// The mood of the receiver: how it treats the next batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Confirms,
    /// The batches that get no receipt, though they arrived.
    Silent(u32),
    /// Nothing arrives.
    Away,
    /// The next batch, or question, is answered with a loss.
    Forgot,
}

/// Keeps everything that arrives, in order.
#[derive(Debug)]
pub(super) struct Receiver {
    mood: Mutex<Mood>,
    batches: Mutex<Vec<Vec<Delivery>>>,
    packs: Option<usize>,
}

impl Receiver {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { mood: Mutex::new(Mood::Confirms), batches: Mutex::default(), packs: None })
    }

    /// One that takes several events in a message of so many bytes.
    pub(super) fn packing(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { mood: Mutex::new(Mood::Confirms), batches: Mutex::default(), packs: Some(bytes_max) })
    }

    pub(super) fn becomes(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(super) fn batches(&self) -> Vec<Vec<Delivery>> {
        self.batches.lock().clone()
    }

    /// Returns the numbers of events and of seals, without reading them.
    pub(super) fn counts(&self) -> (usize, usize) {
        let batches = self.batches.lock();
        let seals = batches.iter().flatten().filter(|delivery| delivery.subject.starts_with("usage.seal.")).count();
        (batches.iter().map(Vec::len).sum::<usize>() - seals, seals)
    }

    /// The ids of everything that arrived.
    pub(super) fn message_ids(&self) -> BTreeSet<String> {
        self.batches.lock().iter().flatten().map(|delivery| delivery.message_id.clone()).collect()
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        let read = |delivery: &Delivery| {
            let pieces = wire::pieces(&delivery.payload);
            pieces.into_iter().map(|place| wire::parse(&delivery.payload[place]).expect("readable")).collect::<Vec<_>>()
        };
        self.batches().concat().iter().flat_map(read).collect()
    }

    pub(super) fn events(&self) -> Vec<UsageEvent> {
        let event = |message| if let Message::Event(event) = message { Some(*event) } else { None };
        self.messages().into_iter().filter_map(event).collect()
    }

    pub(super) fn seals(&self) -> Vec<Seal> {
        let seal = |message| if let Message::Seal(seal) = message { Some(*seal) } else { None };
        self.messages().into_iter().filter_map(seal).collect()
    }

    fn answer(&self, batch: Option<Vec<Delivery>>) -> Result<(), PublishError> {
        let mut mood = self.mood.lock();
        let unconfirmed = Err(PublishError::Unconfirmed { reason: "no answer".into() });
        match *mood {
            Mood::Away => return unconfirmed,
            Mood::Forgot => {
                *mood = Mood::Confirms;
                return Err(PublishError::Rewound { reason: "another stream".into() });
            }
            // A question is no batch.
            Mood::Silent(_) if batch.is_none() => return unconfirmed,
            Mood::Silent(0) | Mood::Confirms => {}
            Mood::Silent(left) => *mood = Mood::Silent(left - 1),
        }
        let silent = matches!(*mood, Mood::Silent(_));
        if matches!(*mood, Mood::Silent(0)) {
            *mood = Mood::Confirms;
        }
        self.batches.lock().extend(batch);
        if silent { unconfirmed } else { Ok(()) }
    }
}

impl Publisher for Receiver {
    fn publish(&self, batch: Vec<Delivery>) -> PublishFuture<'_> {
        Box::pin(async { self.answer(Some(batch)) })
    }

    fn packs(&self) -> Option<usize> {
        self.packs
    }

    fn verify(&self) -> PublishFuture<'_> {
        Box::pin(async { self.answer(None) })
    }
}

/// A running record side.
pub(super) struct Running {
    pub(super) recorder: Recorder,
    pub(super) metrics: Metrics,
    stop: CancellationToken,
    relay: JoinHandle<u64>,
}

/// Small segments, which go once they are acknowledged.
pub(super) fn options(directory: &Path, durability: Durability) -> RecordOptions {
    let spool = SpoolOptions {
        bytes_max: 4 << 20,
        segment_bytes: SEGMENT_BYTES_MIN,
        sync_pause: Duration::ZERO,
        retain: Duration::ZERO,
        // A "killed" record side lives on in this process, and a stage would be its alone.
        stage_directory: None,
        ..SpoolOptions::new(directory)
    };
    RecordOptions::new(spool, durability)
}

impl Running {
    /// Opens, and relays at this pace.
    pub(super) async fn start(directory: &Path, receiver: &Arc<Receiver>, pace: RelayPace) -> Self {
        Self::start_with(options(directory, Durability::Available), receiver, pace).await
    }

    pub(super) async fn start_with(options: RecordOptions, receiver: &Arc<Receiver>, pace: RelayPace) -> Self {
        Self::start_on(RealFileSystem, options, receiver, pace).await
    }

    pub(super) async fn start_on(
        fs: impl FileSystem + Clone,
        options: RecordOptions,
        receiver: &Arc<Receiver>,
        pace: RelayPace,
    ) -> Self {
        let metrics = Metrics::new();
        let side = open(options, fs, &metrics).await.unwrap();
        let stop = CancellationToken::new();
        let publisher: Arc<dyn Publisher> = Arc::<Receiver>::clone(receiver);
        let relay = side.relay.at_pace(pace).run(publisher, stop.clone(), Duration::from_millis(500));
        Self { recorder: side.recorder, metrics, stop, relay: tokio::spawn(relay) }
    }

    /// Stops in order; how many records are left.
    pub(super) async fn stop(self) -> u64 {
        self.stop.cancel();
        self.relay.await.unwrap()
    }

    /// Leaves everything as `kill -9` does: nothing is settled, sealed or relayed any more.
    pub(super) async fn kill(self) {
        self.relay.abort();
        assert!(self.relay.await.unwrap_err().is_cancelled());
    }

    /// Returns whether the metrics say so.
    pub(super) fn shows(&self, line: &str) -> bool {
        shows(&self.metrics, line)
    }
}

pub(super) fn shows(metrics: &Metrics, line: &str) -> bool {
    metrics.text().lines().any(|shown| shown == line)
}

/// Waits until it is so.
pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "it never came to be so");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Timers so slow that no test waits for them.
pub(super) const NEVER: RelayPace = RelayPace {
    seal: Duration::from_secs(3_600),
    verify: Duration::from_secs(3_600),
    gather: Duration::ZERO,
    open: Duration::from_millis(5),
};

pub(super) fn call(recorder: &Recorder) -> CallIntent {
    CallIntent {
        event_id: recorder.event_id(),
        tenant_id: "tenant-1".parse().unwrap(),
        user_id: "user-1".parse().unwrap(),
        ts: Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap(),
        traceparent: None,
        request_id: RequestId::from_uuid(Uuid::now_v7()),
        client_request_id: None,
        route: "/api/v1/documents".parse().unwrap(),
        method: "GET".into(),
        user_agent: None,
        client_ip: None,
    }
}

pub(super) fn settlement() -> Settlement {
    Settlement {
        outcome: Outcome::Completed,
        status_code: 200,
        units: Units::ONE,
        action: None,
        response_bytes: 17,
        processing_micros: 1_500,
        fingerprint: None,
    }
}

/// Announces a call. A burst may outrun the next small segment: then it is tried again, and counted as unrecorded once.
pub(super) async fn announce(recorder: &Recorder) -> AnnouncedCall {
    loop {
        if let Ok(owed) = recorder.intend(call(recorder)) {
            return owed;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Announces and settles so many calls.
pub(super) async fn capture(recorder: &Recorder, count: usize) -> Vec<EventId> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        let owed = announce(recorder).await;
        ids.push(owed.event_id());
        owed.publish(settlement());
        tokio::task::yield_now().await;
    }
    ids
}
