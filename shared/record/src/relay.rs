//! The relay: from the spool to whatever takes events, in order, for ever.
//!
//! It reads what is durable only, hands it over in bounded batches and moves the cursor after the receipt, never before.
//! Everything it does may happen again: ids settle that at the receiver. It is woken by the spool and by a timer. The
//! seals of what was handed out are drawn here too, because this is where every event passes.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goldleaves_domain::{PublishError, Publisher, Receiver, Source};
use goldleaves_runtime::telemetry::TRACED;
use goldleaves_spool::{Lsn, Orphan, Reader, Record, Spool, SpoolError};
use goldleaves_trace::{Moment, Opening, SpanKind, Tracer, messaging};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info, info_span, warn};

use super::delivery::{self, ReadRecord};
use super::gather::Gathering;
use super::memo::Memo;
use super::metrics::{Attempt, RecordMetrics};
use super::outage::OutageWatch;
use super::packing::{self, PackingLimits};
use super::recorder::Recorder;
use super::recovery;
use super::sealer::Sealer;

/// The most of one batch where each record has a message of its own.
const ALONE: BatchLimits = BatchLimits { records: 4_000, bytes: 4 << 20 };
/// The most of one batch where events share messages: the more there are, the more share one.
const PACKED: BatchLimits = BatchLimits { records: 8_000, bytes: 4 << 20 };
/// Between two looks whether a batch is full already.
const GATHER_LOOK: Duration = Duration::from_millis(25);

/// A disk that stands still holds up no stop: what it does not have waits in the stage for the next start.
const CLOSE_MIN: Duration = Duration::from_secs(1);
/// More than this is not read at a stop for the sake of the last seal.
const CLOSE_BYTES_MAX: u64 = 64 << 20;
/// Between two looks whether there is room for what the start had none for.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// The pause after the spool could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// The interval at which what the relay does by itself is done.
#[derive(Debug, Clone, Copy)]
pub struct RelayPace {
    /// Between two seals of an epoch that changes.
    pub seal: Duration,
    /// Between two questions whether the receiver still has what it confirmed.
    pub verify: Duration,
    /// Between the beginnings of two batches, unless the first was large: what comes in the meantime shares a batch, its
    /// receipt and, in the embedded ledger, its transaction. A call after a silence does not wait. Where much comes the pause
    /// grows up to six times as long, so that more events of a tenant share a message, or more rows a transaction.
    pub gather: Duration,
    /// Between two attempts to open a spool that the disk did not let be opened.
    pub open: Duration,
}

impl Default for RelayPace {
    fn default() -> Self {
        Self {
            seal: Duration::from_secs(10),
            verify: Duration::from_secs(10),
            gather: Duration::from_millis(25),
            open: Duration::from_secs(2),
        }
    }
}

/// Hands what the spool holds to a [`Publisher`].
pub(super) struct Relay {
    spool: Spool,
    /// Away while a thread that may block reads with it.
    reader: Option<Reader>,
    source: Source,
    sealer: Sealer,
    /// Calls of earlier starts that the start had no room to settle.
    orphans: VecDeque<Orphan>,
    /// The receipt of an earlier start: what the receiver confirmed last.
    receipt: Bytes,
    recorder: Recorder,
    outage: OutageWatch,
    read_failures: OutageWatch,
    metrics: RecordMetrics,
    tracer: Tracer,
    pace: RelayPace,
    hurry: CancellationToken,
}

/// The most that is read and handed over at once.
#[derive(Debug, Clone, Copy)]
struct BatchLimits {
    records: usize,
    /// Counts them as they lie in the spool.
    bytes: usize,
}

impl BatchLimits {
    fn of(publisher: &dyn Publisher) -> Self {
        if publisher.packs().is_some() { PACKED } else { ALONE }
    }
}

/// The size of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchSize {
    /// There was none.
    Nothing,
    /// Less than half of what a batch may have: so many records.
    Small(usize),
    /// A batch so large that more is probably there.
    Large,
}

/// Says whether the cursor may move.
enum BatchEnd {
    Over,
    /// The receiver lost what it had: start again from the oldest record.
    Rewound,
}

impl Relay {
    pub(super) fn new(spool: Spool, sealer: Sealer, recorder: Recorder, metrics: RecordMetrics) -> Self {
        let (reader, source) = (Some(spool.reader()), Source::new(spool.id()));
        let (outage, read_failures) = (OutageWatch::default(), OutageWatch::default());
        let (tracer, pace, hurry) = (Tracer::off(), RelayPace::default(), CancellationToken::new());
        let (orphans, receipt) = (VecDeque::new(), Bytes::new());
        Self {
            spool,
            reader,
            source,
            sealer,
            orphans,
            receipt,
            recorder,
            outage,
            read_failures,
            metrics,
            tracer,
            pace,
            hurry,
        }
    }

    pub(super) fn with_orphans(self, orphans: VecDeque<Orphan>) -> Self {
        Self { orphans, ..self }
    }

    pub(super) fn with_receipt(self, receipt: Bytes) -> Self {
        Self { receipt, ..self }
    }

    pub(super) fn at_pace(self, pace: RelayPace) -> Self {
        Self { pace, ..self }
    }

    pub(super) fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    pub(super) fn hurried_by(self, hurry: CancellationToken) -> Self {
        Self { hurry, ..self }
    }

    /// Works like [`super::RelayStart::run`].
    pub(super) async fn run(mut self, publisher: Arc<dyn Publisher>, stop: CancellationToken, grace: Duration) -> u64 {
        publisher.recall(&std::mem::take(&mut self.receipt));
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.serve(&*publisher) => {}
        }
        let end = tokio::time::Instant::now() + grace;
        self.recorder.seal();
        let hurry = self.hurry.clone();
        let finish = async {
            self.close().await;
            self.drain(&*publisher).await;
        };
        let in_time = tokio::select! {
            biased;
            () = finish => true,
            () = tokio::time::sleep_until(end) => false,
            () = hurry.cancelled() => false,
        };
        let spool = self.spool.clone();
        let closing = tokio::task::spawn_blocking(move || spool.close());
        if !matches!(tokio::time::timeout(grace.max(CLOSE_MIN), closing).await, Ok(Ok(()))) {
            error!("the spool could not be closed in order; the next start recovers it");
        }
        let unsent = self.spool.stats().unsent_records;
        info!(unsent, in_time, "relay stopped");
        unsent
    }

    async fn serve(&mut self, publisher: &dyn Publisher) {
        self.sealer.close_dead(false).await;
        // What is wrong with the receiver is known before there is anything to hand over.
        self.verify(publisher).await;
        let mut seal = interval(self.pace.seal);
        let mut verify = interval(self.pace.verify);
        let mut settle = interval(SETTLE_PAUSE);
        let (mut earliest, mut gathering) = (tokio::time::Instant::now(), Gathering::new());
        loop {
            let limits = BatchLimits::of(publisher);
            let reader = self.reader.get_or_insert_with(|| self.spool.reader());
            tokio::select! {
                _ = seal.tick() => self.sealer.seal_open().await,
                _ = verify.tick() => self.verify(publisher).await,
                _ = settle.tick(), if !self.orphans.is_empty() => self.settle_orphans().await,
                ready = gathered(earliest, limits, &self.spool, reader) => self.heed(ready).await,
            }
            let begun = tokio::time::Instant::now();
            let size = self.pass(publisher).await;
            earliest = match size {
                BatchSize::Nothing | BatchSize::Large => begun,
                BatchSize::Small(records) => begun + gathering.pause(begun, records, self.pace.gather),
            };
        }
    }

    async fn settle_orphans(&mut self) {
        if !self.spool.is_writable() {
            return;
        }
        match recovery::settle_orphans(&self.spool, &mut self.orphans, &self.metrics).await {
            Ok(()) => info!("the spool has room again; the calls that a previous run left open are settled"),
            Err(cause) => warn!(cause = &cause as &dyn Error, "calls of a previous run stay open; retrying"),
        }
    }

    /// Relays one batch, if there is one.
    async fn pass(&mut self, publisher: &dyn Publisher) -> BatchSize {
        let limits = BatchLimits::of(publisher);
        let records = match self.next_batch(limits).await {
            Ok(records) => records,
            Err(cause) => {
                self.heed(Err(cause)).await;
                return BatchSize::Nothing;
            }
        };
        let Some(next) = records.last().map(|last| last.next_lsn) else {
            self.sealer.close_dead(true).await;
            return BatchSize::Nothing;
        };
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        let (count, is_large) = (records.len(), records.len() > limits.records / 2 || bytes > limits.bytes / 2);
        let batch: Vec<_> = records.into_iter().map(|record| self.read(record)).collect();
        let span = info_span!(target: TRACED, parent: None, "relay a batch", goldleaves.batch_size = batch.len());
        match self.hand_over(publisher, &batch).instrument(span).await {
            BatchEnd::Over => self.advance(next, &publisher.receipt()).await,
            BatchEnd::Rewound => self.rewind().await,
        }
        if is_large { BatchSize::Large } else { BatchSize::Small(count) }
    }

    /// Reads where it may block: a disk that stands still must not hold a thread that others need.
    async fn next_batch(&mut self, limits: BatchLimits) -> Result<Vec<Record>, SpoolError> {
        let mut reader = self.reader.take().unwrap_or_else(|| self.spool.reader());
        let reading = tokio::task::spawn_blocking(move || {
            let records = reader.next_batch(limits.records, limits.bytes);
            (reader, records)
        });
        match reading.await {
            Ok((reader, records)) => {
                self.reader = Some(reader);
                records
            }
            Err(failed) => Err(SpoolError::Read(failed.into())),
        }
    }

    /// Waits a moment after the spool could not be read; it is asked again, and passes over what it never can.
    async fn heed(&mut self, read: Result<(), SpoolError>) {
        if let Err(cause) = read {
            if self.read_failures.may_speak(Instant::now()) {
                error!(cause = &cause as &dyn Error, "the spool cannot be read; retrying");
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }

    fn read(&mut self, record: Record) -> (Record, ReadRecord) {
        let read = delivery::read(&record, self.source);
        match &read {
            ReadRecord::Event(event) => self.sealer.absorb(event),
            ReadRecord::Seal(_) => {}
            ReadRecord::Unreadable(cause) => {
                self.metrics.unreadable.inc();
                error!(%cause, lsn = %record.lsn, "a record of the spool cannot be read; its bytes are forwarded undecoded");
            }
        }
        (record, read)
    }

    /// Hands a batch over, however long that takes.
    async fn hand_over(&mut self, publisher: &dyn Publisher, batch: &[(Record, ReadRecord)]) -> BatchEnd {
        let (mut left, started) = (batch, Moment::now());
        let mut bytes_max = None;
        while !left.is_empty() {
            let length = if self.outage.is_probing() { 1 } else { left.len() };
            let (window, rest) = left.split_at(length);
            let limits = PackingLimits { bytes_max, packs: publisher.packs() };
            match publisher.publish(packing::messages(window, self.source, limits)).await {
                Ok(()) => {
                    self.confirmed(window);
                    self.trace(window, started, publisher.receiver());
                    left = rest;
                }
                Err(PublishError::Rewound { reason }) => {
                    self.metrics.attempt(Attempt::Rewound);
                    warn!(reason, "the receiver lost what it had confirmed; everything retained is sent again");
                    return BatchEnd::Rewound;
                }
                Err(PublishError::TooLarge { bytes_max: most }) if bytes_max != Some(most) => {
                    self.name_oversized(window, most);
                    bytes_max = Some(most);
                }
                Err(cause) => self.pause(&cause).await,
            }
        }
        BatchEnd::Over
    }

    fn name_oversized(&self, window: &[(Record, ReadRecord)], bytes_max: usize) {
        for (record, read) in window {
            let whole = delivery::message(record, read, self.source);
            if whole.payload.len() > bytes_max {
                self.metrics.oversized.inc();
                error!(
                    message_id = whole.message_id,
                    bytes = whole.payload.len(),
                    bytes_max,
                    "a record is larger than the receiver takes (max_payload of nats-server, or max_msg_size of the \
                     stream), its bytes are handed over in parts and set aside"
                );
            }
        }
    }

    fn confirmed(&mut self, window: &[(Record, ReadRecord)]) {
        self.metrics.attempt(Attempt::Confirmed);
        self.metrics.failures_in_a_row.set(0);
        self.metrics.relayed.inc_by(window.len() as u64);
        if let Some(outage) = self.outage.succeeded(Instant::now()) {
            let lasted_secs = outage.lasted.as_secs();
            info!(failures = outage.failures, lasted_secs, "the receiver confirms again");
        }
        for (_, read) in window {
            match read {
                ReadRecord::Event(event) => debug!(
                    request_id = %event.request_id, event_id = %event.event_id, tenant_id = %event.tenant_id,
                    seq = event.seq, "usage event handed over"
                ),
                ReadRecord::Seal(seal) => debug!(epoch = %seal.epoch, last_seq = seal.last_seq, "seal handed over"),
                ReadRecord::Unreadable(_) => {}
            }
        }
    }

    /// A span for each event whose trace is exported, from the batch's first attempt to the receipt.
    fn trace(&self, window: &[(Record, ReadRecord)], started: Moment, receiver: Receiver) {
        for (_, read) in window {
            let ReadRecord::Event(event) = read else { continue };
            let Some(parent) = self.tracer.continued(event.traceparent.as_deref()) else { continue };
            let name = "send usage".into();
            let opening = Opening { parent: Some(parent), kind: SpanKind::Producer, name, started };
            let Some(mut span) = self.tracer.open(opening) else { continue };
            messaging::say_event(&mut span, "send", event.event_id, receiver);
            span.end();
        }
    }

    async fn pause(&mut self, cause: &PublishError) {
        self.metrics.attempt(Attempt::Retried);
        let (now, random) = (Instant::now(), rand::random());
        let pause = self.outage.failed(now, random);
        self.metrics.failures_in_a_row.set(self.outage.failures().into());
        if self.outage.may_speak(now) {
            let failures = self.outage.failures();
            warn!(failures, cause = cause as &dyn Error, "no receipt, the same batch is handed over again");
        }
        tokio::time::sleep(pause).await;
    }

    /// Moves the cursor, and with it the checkpoint and what the receiver confirmed last.
    async fn advance(&mut self, next: Lsn, receipt: &[u8]) {
        if self.sealer.is_crowded() {
            self.sealer.seal_open().await;
        }
        let memo = Memo::write(receipt, |bytes_max| self.sealer.checkpoint(bytes_max));
        if let Err(cause) = self.spool.advance_with(next, memo.into()) {
            error!(cause = &cause as &dyn Error, "the spool's cursor does not move");
        }
    }

    async fn rewind(&mut self) {
        let spool = self.spool.clone();
        match tokio::task::spawn_blocking(move || spool.rewind()).await {
            Ok(Ok(_)) => {}
            Ok(Err(cause)) => {
                error!(
                    cause = &cause as &dyn Error,
                    "could not save the relay position; a crash would forget to resend"
                );
            }
            Err(cause) => error!(cause = &cause as &dyn Error, "the relay position was not moved back"),
        }
        self.reader = Some(self.spool.reader());
    }

    async fn verify(&mut self, publisher: &dyn Publisher) {
        match publisher.verify().await {
            Ok(()) => {}
            Err(PublishError::Rewound { reason }) => {
                self.metrics.attempt(Attempt::Rewound);
                warn!(reason, "the receiver lost what it had confirmed; everything retained is sent again");
                self.rewind().await;
            }
            Err(cause) => debug!(cause = &cause as &dyn Error, "the receiver could not be asked what it has"),
        }
    }

    /// Reads what is not handed over yet, so that the last seal speaks for everything, and writes it. When much waits, the
    /// next start does that: it reads it all anyway.
    async fn close(&mut self) {
        let waiting = self.spool.stats().unsent_bytes;
        if waiting > CLOSE_BYTES_MAX {
            info!(bytes = waiting, "too much waits to be handed over for a last seal, the next start writes it");
            return;
        }
        if let Err(cause) = self.spool.sync_all().await {
            error!(cause = &cause as &dyn Error, "the spool could not be synced, the next start writes the last seal");
            return;
        }
        let mut ahead = self.spool.history(Some(self.spool.cursor()));
        loop {
            let reading = tokio::task::spawn_blocking(move || {
                let records = ahead.next_batch(ALONE.records, ALONE.bytes);
                (ahead, records)
            });
            let records = match reading.await {
                Ok((_, Ok(records))) if records.is_empty() => break,
                Ok((back, Ok(records))) => {
                    ahead = back;
                    records
                }
                Ok((_, Err(cause))) => {
                    error!(
                        cause = &cause as &dyn Error,
                        "the spool cannot be read, the next start writes the last seal"
                    );
                    return;
                }
                Err(cause) => {
                    error!(
                        cause = &cause as &dyn Error,
                        "the spool cannot be read, the next start writes the last seal"
                    );
                    return;
                }
            };
            for record in records {
                if let ReadRecord::Event(event) = delivery::read(&record, self.source) {
                    self.sealer.absorb(&event);
                }
            }
        }
        self.sealer.close_dead(true).await;
        self.sealer.close_current().await;
    }

    /// Relays until nothing is left. It starts from the cursor: a batch that was cut off is handed over again.
    async fn drain(&mut self, publisher: &dyn Publisher) {
        self.reader = Some(self.spool.reader());
        while self.pass(publisher).await != BatchSize::Nothing {}
    }
}

/// Waits for something to relay, not before `earliest` unless enough for a large batch waits.
async fn gathered(
    earliest: tokio::time::Instant,
    limits: BatchLimits,
    spool: &Spool,
    reader: &mut Reader,
) -> Result<(), SpoolError> {
    loop {
        let left = earliest.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(left.min(GATHER_LOOK)).await;
        let stats = spool.stats();
        let (records, bytes) = (limits.records as u64 / 2, limits.bytes as u64 / 2);
        if stats.unsent_records > records || stats.unsent_bytes > bytes {
            break;
        }
    }
    reader.wait_ready().await
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
