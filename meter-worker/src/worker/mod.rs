//! The worker's loop: a batch from JetStream, the meter's COMMIT, then the acknowledgements. The only file that names the
//! stream.
//!
//! - Acknowledged is only what is committed: billed, a repeat, a replay or set aside. What no ledger can hold is
//!   terminated instead, so that operations see it in JetStream's advisories.
//! - While the database is away the batch is held, not handed back, and recorded again and again with growing pauses.
//! - Told to stop, the worker records what it was handed and asks for nothing more; without a database it hands it back
//!   for another worker.

mod follow;
mod lineage;
mod stream_watch;

use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goldleaves_ledger::{Incoming, LackingCards, LedgerError, Sequences, StreamCourse, StreamPlace};
use goldleaves_runtime::process::chain;
use goldleaves_runtime::settings::{Values, parse, table};
use goldleaves_runtime::{Backoff, Metrics, Quiet};
use goldleaves_stream::{
    Batch, ConnectError, ConnectSettings, Connection, Consumer, ConsumerOptions, ConsumerState, Existence, Footing,
    Lag, Next, Position, RECEIVER, ReadError, Reader, ReaderOptions, STREAM, Servers, StreamRoom, Topology,
    TopologyError,
};
use goldleaves_trace::Moment;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Meter;
use crate::spans::BatchArrival;
use follow::Follower;
pub use stream_watch::{StreamMetrics, StreamWatch, WatchPace};

/// The pauses between two attempts to record a batch.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// The least time between two lines about the same trouble.
const QUIET: Duration = Duration::from_secs(30);
/// The longest time the last acknowledgements may take to leave.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Upper bounds of the seconds a batch takes.
const BATCH_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// `NATS_URL` and what belongs to it.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    servers: Servers,
    credentials_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl ConsumerSettings {
    /// Reads them; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let servers = values.required(table::NATS_URL, parse::from_str::<Servers>);
        let credentials_file = values.optional(table::NATS_CREDENTIALS_FILE, goldleaves_stream::credentials_file);
        let ca_file = values.optional(table::NATS_CA_FILE, goldleaves_stream::ca_file);
        Some(Self { servers: servers?, credentials_file: credentials_file?, ca_file: ca_file? })
    }

    /// Connects, or goes on trying in the background.
    ///
    /// # Errors
    /// What is wrong rather than away: credentials, files.
    pub async fn connect(self, name: &str) -> Result<Connection, ConnectError> {
        let Self { servers, credentials_file, ca_file } = self;
        Connection::connect(&ConnectSettings { servers, credentials_file, ca_file, name: name.to_owned() }).await
    }
}

/// A batch that was not recorded before the worker had to stop.
#[derive(Debug, thiserror::Error)]
#[error("{messages} messages were not recorded and will be delivered again: {cause}")]
pub struct UnrecordedBatch {
    messages: usize,
    cause: String,
}

/// Feeds a meter from JetStream.
#[derive(Debug)]
pub struct Worker {
    connection: Connection,
    consumer: Consumer,
    meter: Meter,
    metrics: WorkerMetrics,
    trouble: watch::Sender<Option<String>>,
    /// Limits the lines about what keeps the ledger from recording.
    lines: Quiet,
    /// Follows the stream, once it is known which one it is.
    follower: Option<Follower>,
    /// True once it is known by which rate cards usage was priced so far.
    recalled: watch::Receiver<bool>,
}

/// Says whether a worker works. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerHealth {
    consumer: watch::Receiver<ConsumerState>,
    trouble: watch::Receiver<Option<String>>,
    lacking_cards: watch::Receiver<Option<LackingCards>>,
}

#[derive(Debug, Clone)]
struct WorkerMetrics {
    batches: Counter,
    messages: Counter,
    redeliveries: Counter,
    batch_seconds: Histogram,
}

impl Worker {
    /// A worker that pulls over `connection` and records with `meter`.
    pub fn new(connection: Connection, meter: Meter, metrics: &Metrics) -> Self {
        let consumer = Consumer::new(connection.clone(), ConsumerOptions::default());
        let follower = Follower::new(connection.clone(), meter.clone());
        let (metrics, trouble) = (WorkerMetrics::register(metrics), watch::channel(None).0);
        let (recalled, lines) = (follower.recalled(), Quiet::new(QUIET));
        Self { connection, consumer, meter, metrics, trouble, lines, follower: Some(follower), recalled }
    }

    /// Follows whether it works.
    pub fn health(&self) -> WorkerHealth {
        WorkerHealth {
            consumer: self.consumer.state(),
            trouble: self.trouble.subscribe(),
            lacking_cards: self.meter.ledger().lacking_cards(),
        }
    }

    /// Works until `stop`, then records what it was handed. Beside that it follows whether the ledger still has what was
    /// acknowledged.
    ///
    /// # Errors
    /// The last batch could not be recorded.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), UnrecordedBatch> {
        let follower = self.follower.take();
        let following = async {
            if let Some(follower) = follower {
                follower.run().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            done = self.work_until(stop) => done,
            never = following => never,
        }
    }

    async fn work_until(&mut self, stop: CancellationToken) -> Result<(), UnrecordedBatch> {
        let handle = self.consumer.stop_handle();
        let mut stopping = false;
        loop {
            let next = tokio::select! {
                next = self.consumer.next() => next,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    handle.stop();
                    continue;
                }
            };
            let Next::Batch(batch) = next else { break };
            if let Err(unrecorded) = self.work(&batch, &stop).await {
                self.consumer.hand_back(&batch).await;
                self.flush().await;
                return Err(unrecorded);
            }
        }
        self.flush().await;
        Ok(())
    }

    async fn flush(&self) {
        if !self.connection.flush(FLUSH_MAX).await {
            tracing::warn!("the last acknowledgements did not leave in time; their messages will be delivered again");
        }
    }

    async fn work(&mut self, batch: &Batch, stop: &CancellationToken) -> Result<(), UnrecordedBatch> {
        let start = Instant::now();
        let poison = self.record(batch, stop, BatchArrival { through: RECEIVER, started: Moment::now() }).await?;
        self.consumer.settle(batch, |index| poison.contains(&index)).await;
        self.metrics.batches.inc();
        self.metrics.messages.inc_by(batch.messages().len() as u64);
        let again = batch.messages().iter().filter(|message| message.delivered > 1).count();
        self.metrics.redeliveries.inc_by(again as u64);
        self.metrics.batch_seconds.observe(start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Records a batch, however long that takes. Which messages have something that is poison.
    async fn record(
        &mut self,
        batch: &Batch,
        stop: &CancellationToken,
        arrival: BatchArrival,
    ) -> Result<HashSet<usize>, UnrecordedBatch> {
        let mut recalled = self.recalled.clone();
        self.holding(batch, async {
            tokio::select! {
                _ = recalled.wait_for(|recalled| *recalled) => {}
                () = stop.cancelled() => {}
            }
        })
        .await;
        if !*self.recalled.borrow() {
            let cause = "it was not known yet by which rate cards usage was priced so far".to_owned();
            return Err(UnrecordedBatch { messages: batch.messages().len(), cause });
        }
        let mut backoff = BACKOFF;
        loop {
            let (incoming, owners) = incoming(batch);
            let meter = self.meter.clone();
            let recorded = self.holding(batch, async move { meter.record_naming(incoming, arrival).await }).await;
            let cause = match recorded {
                Ok((_, poison)) => {
                    self.well();
                    return Ok(poison.into_iter().filter_map(|index| owners.get(index).copied()).collect());
                }
                Err(cause) => cause,
            };
            self.unwell(&cause);
            if stop.is_cancelled() {
                return Err(UnrecordedBatch { messages: batch.messages().len(), cause: chain(&cause) });
            }
            let wait = backoff.pause();
            self.holding(batch, async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    // One more try, and the last.
                    () = stop.cancelled() => {}
                }
            })
            .await;
        }
    }

    /// Awaits `work` while JetStream hears that the batch is being worked on.
    async fn holding<T>(&mut self, batch: &Batch, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep_until(self.consumer.hold_at()) => {}
            }
            // The work goes on beside it: it may have a transaction open, and NATS may take its time.
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.consumer.hold(batch) => {}
            }
        }
    }

    fn well(&self) {
        if self.trouble.send_replace(None).is_some() {
            tracing::info!("the ledger records again");
        }
    }

    /// Says it at once, and again now and then: what is not away but wrong is for a person to mend.
    fn unwell(&mut self, error: &LedgerError) {
        let cause = chain(error);
        let is_new = self.trouble.send_replace(Some(cause.clone())).is_none();
        if is_new {
            self.lines.reset();
        }
        if !self.lines.may_speak(Instant::now()) {
            return;
        }
        if error.is_transient() {
            tracing::warn!(cause, "the ledger can't record; the batch is held and retried");
        } else {
            tracing::error!(
                cause,
                "the ledger is not as it should be; the batch is held and retried until it is mended"
            );
        }
    }
}

/// Returns the events of a batch of messages, and to which message each of them belongs.
fn incoming(batch: &Batch) -> (Vec<Incoming>, Vec<usize>) {
    let (mut incoming, mut owners) = (Vec::new(), Vec::new());
    let mut last: Option<Arc<StreamCourse>> = None;
    for (index, message) in batch.messages().iter().enumerate() {
        let sequences = Sequences { first: message.sequence, last: message.sequence };
        // Messages of two streams may be in one batch, where one took the other's place.
        let course = last.take().filter(|course| *course.created == *message.stream_created).unwrap_or_else(|| {
            Arc::new(StreamCourse { stream: STREAM.to_owned(), created: message.stream_created.to_string() })
        });
        last = Some(Arc::clone(&course));
        let of_message = Incoming::of_message(&message.payload, Some(StreamPlace { course, sequences }));
        incoming.extend(of_message.into_iter().map(|part| part.stored(message.stored)));
        owners.resize(incoming.len(), index);
    }
    (incoming, owners)
}

impl WorkerHealth {
    /// Returns what keeps the worker from working, in words; `None` when nothing does.
    pub fn trouble(&self) -> Option<String> {
        if let Some(lacking) = self.lacking_cards.borrow().as_ref() {
            return Some(lacking.to_string());
        }
        if let Some(cause) = self.trouble.borrow().as_ref() {
            return Some(format!("the ledger can't record: {cause}"));
        }
        match &*self.consumer.borrow() {
            ConsumerState::Ready => None,
            ConsumerState::Waiting(reason) => Some(reason.clone()),
        }
    }
}

impl WorkerMetrics {
    fn register(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register(name, help, Counter::default());
        let seconds = "From a batch's arrival to its acknowledgements";
        Self {
            batches: counter("worker_batches", "Batches recorded and acknowledged"),
            messages: counter("worker_messages", "Messages recorded and acknowledged"),
            redeliveries: counter("worker_redeliveries", "Messages that had been delivered before"),
            batch_seconds: metrics.register("worker_batch_seconds", seconds, Histogram::new(BATCH_SECONDS)),
        }
    }
}
