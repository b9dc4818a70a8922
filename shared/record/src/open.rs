//! Opening the record side: recovery first, then a recorder for the request path and a relay for behind it. On a disk that
//! does not let the spool be opened, or does not answer, both start without it, and get it as soon as it does.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goldleaves_domain::Publisher;
use goldleaves_runtime::Metrics;
use goldleaves_spool::{AppendError, FileSystem, OpenError, Recovered, Spool, SpoolOptions};
use goldleaves_trace::Tracer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::call::Durability;
use super::memo::Memo;
use super::metrics::RecordMetrics;
use super::outage::OutageWatch;
use super::recorder::Recorder;
use super::recovery::{self, RecoverError};
use super::relay::{Relay, RelayPace};
use super::sealer::{Sealer, SealerStart};
use super::shown::show_spool;
use crate::clock::{self, Clock};

/// The time for which the start waits for a disk that does not answer. What the spool holds is not read in that time,
/// so that a disk that is only slow needs far less.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The same, and for a disk that refuses too, where whoever would be served meanwhile can wait: with sockets that were handed
/// over, an older process or their queues have the callers.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// The number of times the spool is tried in that time on a disk that refuses.
const TRIED_EVERY: Duration = Duration::from_millis(500);

/// Less is taken, and warned of: with nobody to take events it is full within seconds, and a tenant may have fewer calls
/// open than `CALLS_PER_TENANT_MAX` says by default.
const SPOOL_BYTES_USEFUL: u64 = 32 << 20;
/// A tenant may have one call open for so much of the spool: it holds several tenants' open calls then, and their records.
const SPOOL_BYTES_A_CALL: u64 = 8 << 10;

/// The options of the record side.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// Where and how large the spool is.
    pub spool: SpoolOptions,
    /// The thing that a call waits for.
    pub durability: Durability,
    /// Where time comes from.
    pub clock: Clock,
    /// Ends the patience of [`Self::patient`].
    patience: Option<CancellationToken>,
}

impl RecordOptions {
    /// With the machine's clock.
    pub fn new(spool: SpoolOptions, durability: Durability) -> Self {
        Self { spool, durability, clock: clock::now, patience: None }
    }

    /// With a start that waits a minute for a spool before it goes on without, or until `hurry`: for a program that serves
    /// nobody before, and whose callers can wait or are another's meanwhile.
    #[must_use]
    pub fn patient(self, hurry: CancellationToken) -> Self {
        Self { patience: Some(hurry), ..self }
    }
}

/// The reason the record side could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecordOpenError {
    /// The spool could not be opened.
    #[error("the spool could not be opened")]
    Spool(#[from] OpenError),
    /// The calls that earlier starts left could not be settled.
    #[error("what an earlier start left in the spool could not be settled")]
    Recover(#[from] RecoverError),
}

/// The record side of one gateway.
pub struct RecordSide {
    /// For the request path.
    pub recorder: Recorder,
    /// For a runtime of its own; nothing is handed over before it runs.
    pub relay: RelayStart,
}

/// Opens the spool, settles durably what earlier starts left open, and only then lets anything be recorded.
///
/// A disk that is full, broken, may only be read or does not answer is no reason not to start: calls are unrecorded then (`available`) or
/// refused (`strict`), and the relay goes on trying.
///
/// # Errors
/// When the spool cannot be opened for another reason, or what it holds cannot be settled.
pub async fn open(
    options: RecordOptions,
    fs: impl FileSystem + Clone,
    metrics: &Metrics,
) -> Result<RecordSide, RecordOpenError> {
    let record_metrics = RecordMetrics::register(metrics);
    let bytes_max = options.spool.bytes_max;
    if bytes_max < SPOOL_BYTES_USEFUL {
        warn!(
            bytes_max,
            "SPOOL_BYTES_MAX is small: it is soon full when nobody takes events; 32MiB is the least of use"
        );
    }
    let calls_max = usize::try_from(bytes_max / SPOOL_BYTES_A_CALL).unwrap_or(usize::MAX);
    let recorder = Recorder::new(options.durability, record_metrics.clone(), calls_max);
    show_spool(metrics, recorder.clone());
    metrics.show_limit("spool_bytes_max", "SPOOL_BYTES_MAX: bytes that the spool may use", bytes_max);
    let (directory, spool) = (options.spool.directory.clone(), options.spool);
    let open = move || Spool::open(spool.clone(), fs.clone()).map(|(spool, recovered)| Opened { spool, recovered });
    let (clock, metrics) = (options.clock, record_metrics);
    let opening = SpoolOpening { directory, open: Arc::new(open), recorder: recorder.clone(), clock, metrics };
    let state = opening.start(options.patience).await?;
    Ok(RecordSide {
        recorder,
        relay: RelayStart { state, pace: RelayPace::default(), tracer: Tracer::off(), hurry: CancellationToken::new() },
    })
}

/// A spool that was opened, and what was found in it.
struct Opened {
    spool: Spool,
    recovered: Recovered,
}

/// One attempt to open the spool, in a thread that may wait for the disk.
type Attempt = JoinHandle<Result<Opened, OpenError>>;

/// The end of an attempt, or of the time for it.
enum AttemptEnd {
    Open(Box<Opened>),
    Refused(OpenError),
    Unanswered(Attempt),
}

impl AttemptEnd {
    fn may_be_open_later(&self) -> bool {
        match self {
            Self::Open(_) => false,
            Self::Refused(cause) => cause.may_pass(),
            Self::Unanswered(_) => true,
        }
    }
}

/// The time for which something is waited for.
struct Wait {
    until: Instant,
    hurry: CancellationToken,
}

impl Wait {
    fn at_most(limit: Duration, hurry: CancellationToken) -> Self {
        Self { until: Instant::now() + limit, hurry }
    }

    fn is_over(&self) -> bool {
        self.hurry.is_cancelled() || self.until <= Instant::now()
    }

    async fn over(&self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.until.into()) => {}
            () = self.hurry.cancelled() => {}
        }
    }
}

/// All that is needed to open the spool, now or later.
struct SpoolOpening {
    directory: PathBuf,
    open: Arc<dyn Fn() -> Result<Opened, OpenError> + Send + Sync>,
    recorder: Recorder,
    clock: Clock,
    metrics: RecordMetrics,
}

impl SpoolOpening {
    fn say(&self, cause: &(dyn Error + 'static)) {
        let path = self.directory.display();
        error!(%path, cause, "the spool cannot be opened, nothing is recorded; retrying");
    }

    /// Opens the spool, or says that it goes on without.
    async fn start(self, patience: Option<CancellationToken>) -> Result<OpenState, RecordOpenError> {
        let wait = Wait::at_most(ANSWER_MAX, patience.clone().unwrap_or_default());
        let mut tried = self.tried(self.attempt(), &wait).await;
        if let Some(hurry) = patience {
            tried = self.patiently(tried, &Wait::at_most(PATIENCE_MAX.saturating_sub(ANSWER_MAX), hurry)).await;
        }
        match tried {
            AttemptEnd::Open(opened) => Ok(OpenState::Open(Box::new(self.complete(*opened).await?))),
            AttemptEnd::Refused(cause) if cause.may_pass() => {
                self.say(&cause);
                Ok(OpenState::Waiting(Box::new(self), None))
            }
            AttemptEnd::Refused(cause) => Err(cause.into()),
            AttemptEnd::Unanswered(attempt) => {
                let path = self.directory.display();
                error!(%path, "the spool's disk does not answer, nothing is recorded; it is waited for");
                self.recorder.is_unanswered(true);
                Ok(OpenState::Waiting(Box::new(self), Some(attempt)))
            }
        }
    }

    async fn tried(&self, mut attempt: Attempt, wait: &Wait) -> AttemptEnd {
        let opened = tokio::select! {
            biased;
            opened = &mut attempt => opened,
            () = wait.over() => return AttemptEnd::Unanswered(attempt),
        };
        self.outcome(opened).map_or_else(AttemptEnd::Refused, |opened| AttemptEnd::Open(Box::new(opened)))
    }

    /// Goes on with what has no spool yet, and tries again what may pass.
    async fn patiently(&self, mut tried: AttemptEnd, wait: &Wait) -> AttemptEnd {
        if tried.may_be_open_later() {
            let (path, most_s) = (self.directory.display(), PATIENCE_MAX.as_secs());
            warn!(%path, most_s, "there is no spool yet; nothing is accepted at the sockets that were handed over");
        }
        while tried.may_be_open_later() && !wait.is_over() {
            let attempt = match tried {
                AttemptEnd::Unanswered(attempt) => attempt,
                AttemptEnd::Refused(_) | AttemptEnd::Open(_) => {
                    tokio::select! {
                        () = tokio::time::sleep(TRIED_EVERY) => {}
                        () = wait.over() => {}
                    }
                    self.attempt()
                }
            };
            tried = self.tried(attempt, wait).await;
        }
        tried
    }

    fn attempt(&self) -> Attempt {
        let open = Arc::clone(&self.open);
        // Recovery reads and writes files.
        tokio::task::spawn_blocking(move || open())
    }

    fn outcome(&self, opened: Result<Result<Opened, OpenError>, tokio::task::JoinError>) -> Result<Opened, OpenError> {
        opened.unwrap_or_else(|failed| {
            let path = self.directory.clone();
            Err(OpenError::Io { action: "recover", path, source: failed.into() })
        })
    }

    /// Waits for the attempt that the disk has not answered yet, if there is one, and tries until it works.
    async fn wait(&self, mut unanswered: Option<Attempt>, pause: Duration) -> Relay {
        let mut outage = OutageWatch::default();
        // The start has spoken already.
        outage.may_speak(Instant::now());
        loop {
            let attempt = match unanswered.take() {
                Some(attempt) => attempt,
                None => {
                    tokio::time::sleep(pause).await;
                    self.attempt()
                }
            };
            let tried = self.finish(attempt).await;
            self.recorder.is_unanswered(false);
            match tried {
                Ok(relay) => return relay,
                Err(cause) if outage.may_speak(Instant::now()) => self.say(&cause),
                Err(_) => {}
            }
        }
    }

    async fn finish(&self, attempt: Attempt) -> Result<Relay, RecordOpenError> {
        let opened = attempt.await;
        self.complete(self.outcome(opened)?).await
    }

    /// From here on calls are recorded.
    async fn complete(&self, opened: Opened) -> Result<Relay, RecordOpenError> {
        let Opened { spool, recovered } = opened;
        info!(
            spool = %spool.id(), epoch = %spool.epoch(), open_calls = recovered.orphans.len(),
            open_epochs = recovered.epochs.len(), "spool opened"
        );
        if recovered.quarantined > 0 {
            warn!(quarantined = recovered.quarantined, "parts of the spool could not be read and were passed over");
        }
        let mut orphans = recovered.orphans.into();
        match recovery::settle_orphans(&spool, &mut orphans, &self.metrics).await {
            Err(RecoverError::Append(
                cause @ (AppendError::Full | AppendError::Unwritable { .. } | AppendError::Behind),
            )) => {
                let (open_calls, cause) = (orphans.len(), &cause as &dyn Error);
                warn!(open_calls, cause, "calls of a previous run stay open until the spool has room");
            }
            settled => settled?,
        }
        let Memo { receipt, checkpoint } = Memo::read(&recovered.memo);
        let found = SealerStart { dead: recovered.epochs, checkpoint };
        let sealer = Sealer::new(spool.clone(), found, self.clock, self.metrics.clone());
        let relay = Relay::new(spool.clone(), sealer, self.recorder.clone(), self.metrics.clone());
        self.recorder.records_in(spool);
        Ok(relay.with_orphans(orphans).with_receipt(receipt))
    }
}

/// Hands what the spool holds to a [`Publisher`], as soon as there is a spool.
pub struct RelayStart {
    state: OpenState,
    pace: RelayPace,
    tracer: Tracer,
    hurry: CancellationToken,
}

enum OpenState {
    Open(Box<Relay>),
    Waiting(Box<SpoolOpening>, Option<Attempt>),
}

impl RelayStart {
    /// Another pace, for tests.
    #[must_use]
    pub fn at_pace(self, pace: RelayPace) -> Self {
        Self { pace, ..self }
    }

    /// With spans of what it hands over.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// With what ends the grace of [`Self::run`] early.
    #[must_use]
    pub fn hurried_by(self, hurry: CancellationToken) -> Self {
        Self { hurry, ..self }
    }

    /// Relays until `stop`; then nothing may be recorded any more, the epoch gets its last seal, what is left is relayed
    /// for at most `grace`, and the spool is closed. Returns the number of records left for the next start.
    pub async fn run(self, publisher: Arc<dyn Publisher>, stop: CancellationToken, grace: Duration) -> u64 {
        let relay = match self.state {
            OpenState::Open(relay) => *relay,
            OpenState::Waiting(opening, unanswered) => tokio::select! {
                relay = opening.wait(unanswered, self.pace.open) => relay,
                () = stop.cancelled() => {
                    warn!("stopped without ever having had a spool; nothing was recorded");
                    return 0;
                }
            },
        };
        let hurry = self.hurry;
        relay.at_pace(self.pace).traced(self.tracer).hurried_by(hurry).run(publisher, stop, grace).await
    }
}
