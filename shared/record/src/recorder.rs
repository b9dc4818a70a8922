//! The door itself: an INTENT in, and something that owes its settlement out.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use goldleaves_domain::{EventId, RequestId};
use goldleaves_spool::{AppendError, IntentId, Lsn, Spool, SpoolError};
use parking_lot::Mutex;
use tracing::{debug, error};
use uuid::Uuid;

use super::call::{CallIntent, Durability, Settlement, VoidReason};
use super::codec;
use super::metrics::{FailedStep, RecordMetrics};

/// Records calls in the spool. Cheap to clone; one for the whole gateway.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<RecorderInner>,
}

struct RecorderInner {
    /// Missing as long as the disk does not let the spool be opened.
    log: OnceLock<Arc<CallLog>>,
    /// The disk has not answered yet whether the spool can be opened.
    unanswered: AtomicBool,
    /// Calls served without a record that no spool has counted yet.
    uncounted: Mutex<u64>,
    durability: Durability,
    /// The number of calls that one tenant may have open, for the spool.
    calls_max: usize,
    metrics: RecordMetrics,
    /// Calls of this start that have no record, for health; the spool keeps the count that is sealed.
    unrecorded: AtomicU64,
    /// The last second (since the start) in which a call without a record was logged as an error.
    spoke: AtomicU64,
    start: Instant,
}

/// The spool as calls see it.
struct CallLog {
    spool: Spool,
    metrics: RecordMetrics,
    /// The epoch's last seal is being written: what is settled from now on is left to the next start.
    sealed: AtomicBool,
}

/// The reason a call has no record.
#[derive(Debug, thiserror::Error)]
enum NoRecord {
    #[error("the spool could not be opened yet")]
    NoSpool,
    /// `strict`: what is appended would not become durable while the client waits.
    #[error("the spool's disk stands still")]
    StandsStill,
    #[error("the spool did not take it")]
    Append(#[from] AppendError),
}

impl NoRecord {
    /// Returns whether the disk only has to catch up.
    const fn may_pass_at_once(&self) -> bool {
        matches!(self, Self::Append(AppendError::Behind))
    }
}

/// The time for which a call waits at most for a spool whose disk is behind.
const BEHIND_MAX: Duration = Duration::from_millis(50);
const BEHIND_PAUSE: Duration = Duration::from_millis(2);
/// Between two looks whether the disk that is waited for stands still.
const STILL_LOOK: Duration = Duration::from_millis(200);

impl fmt::Debug for RecorderInner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Recorder").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// A call's INTENT, ready to be written: what it says is in bytes already, so that it can be kept without its request.
#[derive(Debug)]
pub struct PreparedCall {
    event_id: EventId,
    request_id: RequestId,
    payload: Vec<u8>,
}

impl<T: AsRef<str>> From<CallIntent<T>> for PreparedCall {
    fn from(call: CallIntent<T>) -> Self {
        Self { payload: codec::encode_call(&call), event_id: call.event_id, request_id: call.request_id }
    }
}

/// The INTENT could not be written. It is counted already: `available` serves on without `X-Usage-Event-ID`,
/// `strict` answers 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the call could not be recorded")]
pub struct Unrecorded;

/// The INTENT is in the kernel, but the disk did not take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the call's record did not reach the disk")]
pub struct NotDurable;

/// The state of recording, as health shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHealth {
    /// True if the spool takes records: the gateway's readiness.
    pub has_room: bool,
    /// Calls served without a record since the start; not 0 is red.
    pub unrecorded: u64,
    /// True if the spool's disk answers nothing.
    pub stands_still: bool,
}

/// The detail that health shows.
impl fmt::Display for RecordHealth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.has_room { "the spool takes records" } else { "the spool takes no records" })?;
        if self.stands_still {
            out.write_str("; its disk does not answer and is waited for")?;
        }
        match self.unrecorded {
            0 => Ok(()),
            count => write!(out, "; {count} calls were served without a record since the start"),
        }
    }
}

// === impl Recorder ===

impl Recorder {
    /// Records nothing until it is given a spool.
    pub(super) fn new(durability: Durability, metrics: RecordMetrics, calls_max: usize) -> Self {
        Self {
            shared: Arc::new(RecorderInner {
                log: OnceLock::new(),
                unanswered: AtomicBool::new(false),
                uncounted: Mutex::new(0),
                durability,
                calls_max,
                metrics,
                unrecorded: AtomicU64::new(0),
                spoke: AtomicU64::new(0),
                start: Instant::now(),
            }),
        }
    }

    /// From now on calls are recorded there, and those that were served without a record are counted there.
    pub(super) fn records_in(&self, spool: Spool) {
        let (metrics, sealed) = (self.shared.metrics.clone(), AtomicBool::new(false));
        let uncounted = self.shared.uncounted.lock();
        let log = self.shared.log.get_or_init(|| Arc::new(CallLog { spool, metrics, sealed }));
        log.spool.unrecorded_before(*uncounted);
    }

    /// Says whether the disk leaves the opening of the spool unanswered.
    pub(super) fn is_unanswered(&self, unanswered: bool) {
        self.shared.unanswered.store(unanswered, Ordering::Relaxed);
    }

    /// Where calls are recorded, once that could be opened.
    pub(super) fn spool(&self) -> Option<&Spool> {
        self.shared.log.get().map(|log| &log.spool)
    }

    /// A new event id, a UUIDv7.
    pub fn event_id(&self) -> EventId {
        // Without the counter that orders the ids of one millisecond: it is behind one lock for all cores.
        EventId::new(Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)))
    }

    /// Returns what a call waits for.
    pub fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// Returns the number of calls that one tenant may have open, so that the spool has room for those of others.
    pub fn calls_max(&self) -> usize {
        self.shared.calls_max
    }

    /// Returns what health says of recording; asks no disk.
    pub fn health(&self) -> RecordHealth {
        let is_slow = |spool: &Spool| self.durability() == Durability::Strict && spool.stands_still();
        let has_room = self.spool().is_some_and(|spool| spool.is_writable() && !is_slow(spool));
        let stands_still =
            self.spool().map_or_else(|| self.shared.unanswered.load(Ordering::Relaxed), Spool::stands_still);
        RecordHealth { has_room, unrecorded: self.shared.unrecorded.load(Ordering::Relaxed), stands_still }
    }

    /// Writes the INTENT of a billable call, before the upstream hears of it.
    ///
    /// # Errors
    /// When the spool does not take it; that is counted already.
    pub fn intend(&self, call: impl Into<PreparedCall>) -> Result<AnnouncedCall, Unrecorded> {
        self.try_intend(call.into()).map_err(|(call, refusal)| self.shared.unrecorded(&call, &refusal))
    }

    /// Works like [`Recorder::intend`], but waits a moment, at most 50 ms, for a disk that is only behind.
    ///
    /// # Errors
    /// As [`Recorder::intend`].
    pub async fn intend_soon(&self, call: impl Into<PreparedCall>) -> Result<AnnouncedCall, Unrecorded> {
        let (mut call, mut since) = (call.into(), None);
        loop {
            match self.try_intend(call) {
                Ok(owed) => return Ok(owed),
                Err((back, refusal)) => {
                    let waited = since.get_or_insert_with(Instant::now).elapsed();
                    if !refusal.may_pass_at_once() || waited >= BEHIND_MAX {
                        return Err(self.shared.unrecorded(&back, &refusal));
                    }
                    call = back;
                }
            }
            tokio::time::sleep(BEHIND_PAUSE).await;
        }
    }

    /// Returns whether a call is to be refused before anything is done for it: in `strict`, when it could not be recorded. It is
    /// counted as [`Recorder::intend`] does.
    ///
    /// # Errors
    /// When it is.
    pub fn check(&self, call: &PreparedCall) -> Result<(), Unrecorded> {
        if self.durability() == Durability::Available {
            return Ok(());
        }
        let refusal = match self.spool() {
            None => NoRecord::NoSpool,
            Some(spool) if spool.stands_still() => NoRecord::StandsStill,
            Some(spool) => match spool.refuses() {
                None | Some(AppendError::Behind) => return Ok(()),
                Some(cause) => NoRecord::Append(cause),
            },
        };
        Err(self.shared.unrecorded(call, &refusal))
    }

    fn try_intend(&self, call: PreparedCall) -> Result<AnnouncedCall, (PreparedCall, NoRecord)> {
        let Some(log) = self.shared.log.get() else { return Err((call, NoRecord::NoSpool)) };
        match log.spool.intent(codec::CALL_VERSION, &call.payload) {
            Ok(intent) => {
                log_announced(&call.payload);
                let PreparedCall { event_id, request_id, payload } = call;
                Ok(AnnouncedCall { log: Arc::clone(log), event_id, request_id, intent, payload: Some(payload) })
            }
            Err(cause) => Err((call, cause.into())),
        }
    }

    /// From now on settlements are left to the next start: the epoch's last seal is being written.
    pub(super) fn seal(&self) {
        if let Some(log) = self.shared.log.get() {
            log.sealed.store(true, Ordering::SeqCst);
        }
    }
}

// === impl Shared ===

impl RecorderInner {
    /// Counts a call that has no record. In `strict` it is not served either, so the seals do not speak of it.
    fn unrecorded(&self, call: &PreparedCall, cause: &NoRecord) -> Unrecorded {
        let PreparedCall { event_id, request_id, payload } = call;
        let cause: &(dyn Error + 'static) = cause;
        self.metrics.failed(FailedStep::Intent);
        if self.durability == Durability::Available {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
            self.metrics.unrecorded.inc();
            self.count();
        }
        let call = codec::peek_call(codec::CALL_VERSION, payload).ok();
        let tenant_id = call.as_ref().map(|call| tracing::field::display(&call.tenant_id));
        if self.may_speak() {
            let unrecorded = self.unrecorded.load(Ordering::Relaxed);
            error!(%request_id, %event_id, tenant_id, cause, unrecorded, "calls cannot be recorded, this is one of them");
        } else {
            debug!(%request_id, %event_id, tenant_id, cause, "the call could not be recorded");
        }
        Unrecorded
    }

    /// In the spool, or here until there is one.
    fn count(&self) {
        let mut uncounted = self.uncounted.lock();
        match self.log.get() {
            Some(log) => log.spool.unrecorded(),
            None => *uncounted += 1,
        }
    }

    /// Once a second: a full disk must not be filled with lines about it.
    fn may_speak(&self) -> bool {
        let now = self.start.elapsed().as_secs() + 1;
        self.spoke.fetch_max(now, Ordering::Relaxed) < now
    }
}

// === impl CallLog ===

impl CallLog {
    fn settle(&self, intent: IntentId, mut payload: Vec<u8>, settlement: &Settlement) {
        if self.sealed.load(Ordering::SeqCst) {
            self.metrics.failed(FailedStep::Late);
            log_failure(&payload, "the call ended after the last seal, the next start records it as unknown", None);
            return;
        }
        codec::append_settlement(&mut payload, settlement);
        match self.spool.publish(intent, codec::CALL_VERSION, &payload) {
            Ok(appended) => {
                self.metrics.captured(settlement.outcome);
                log_captured(&payload, settlement, appended.seq);
            }
            Err(cause) => {
                self.metrics.failed(FailedStep::Settle);
                log_failure(&payload, "the call's end could not be recorded, the next start records it", Some(&cause));
            }
        }
    }

    fn void(&self, intent: IntentId, payload: &[u8], reason: VoidReason) {
        if let Err(cause) = self.spool.void(intent, &codec::encode_void(reason)) {
            self.metrics.failed(FailedStep::Settle);
            log_failure(payload, "the call's end could not be recorded, the next start records it", Some(&cause));
            return;
        }
        self.metrics.voided(reason);
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Ok(call) = codec::peek_call(codec::CALL_VERSION, payload)
        {
            debug!(request_id = %call.request_id, event_id = %call.event_id, %reason, "call left no event");
        }
    }
}

fn log_announced(payload: &[u8]) {
    if tracing::enabled!(tracing::Level::DEBUG)
        && let Ok(call) = codec::peek_call(codec::CALL_VERSION, payload)
    {
        debug!(request_id = %call.request_id, event_id = %call.event_id, route = %call.route, "call announced");
    }
}

/// The guide's promise: `LOG_LEVEL=DEBUG` logs every captured event.
fn log_captured(payload: &[u8], settlement: &Settlement, seq: u64) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    if let Ok(call) = codec::peek_call(codec::CALL_VERSION, payload) {
        debug!(
            request_id = %call.request_id, event_id = %call.event_id, tenant_id = %call.tenant_id,
            user_id = %call.user_id, route = %call.route, method = call.method,
            status_code = settlement.status_code, outcome = %settlement.outcome, units = %settlement.units, seq,
            "usage event captured"
        );
    }
}

fn log_failure(payload: &[u8], what: &'static str, cause: Option<&AppendError>) {
    let cause = cause.map(|cause| cause as &dyn Error);
    match codec::peek_call(codec::CALL_VERSION, payload) {
        Ok(call) => error!(request_id = %call.request_id, event_id = %call.event_id, cause, "{what}"),
        Err(unreadable) => error!(%unreadable, cause, "{what}"),
    }
}

/// Waits until what lies at `lsn` is durable, but not for a disk that stands still.
///
/// # Errors
/// As [`Spool::durable`], and [`SpoolError::StandsStill`].
pub(super) async fn durable(spool: &Spool, lsn: Lsn) -> Result<(), SpoolError> {
    let mut reached = std::pin::pin!(spool.durable(lsn));
    loop {
        match tokio::time::timeout(STILL_LOOK, reached.as_mut()).await {
            Ok(reached) => return reached,
            Err(_) if spool.stands_still() => return Err(SpoolError::StandsStill),
            Err(_) => {}
        }
    }
}

/// Owes the spool exactly one SETTLE for one INTENT. Dropped unsettled (a bug, or a panic on its way up) it records the
/// call as `unknown`, which is set aside where people look, and counts.
#[must_use = "dropping it unsettled records the call as unknown and counts a bug"]
pub struct AnnouncedCall {
    log: Arc<CallLog>,
    event_id: EventId,
    request_id: RequestId,
    intent: IntentId,
    /// The INTENT's bytes, with room for the settlement; `None` once settled.
    payload: Option<Vec<u8>>,
}

// === impl AnnouncedCall ===

impl AnnouncedCall {
    /// The event's id, for `X-Usage-Event-ID`.
    pub const fn event_id(&self) -> EventId {
        self.event_id
    }

    /// Resolves when the INTENT is durable. It borrows nothing, so that it can run beside the upstream call.
    pub fn durable(&self) -> impl Future<Output = Result<(), NotDurable>> + Send + use<> {
        let (log, intent) = (Arc::clone(&self.log), self.intent);
        let (request_id, event_id) = (self.request_id.clone(), self.event_id);
        async move {
            durable(&log.spool, intent.lsn()).await.map_err(|cause| {
                log.metrics.failed(FailedStep::Durable);
                let cause: &dyn Error = &cause;
                error!(%request_id, %event_id, cause, "the call's record did not reach the disk");
                NotDurable
            })
        }
    }

    /// Settles the call as an event.
    pub fn publish(mut self, settlement: Settlement) {
        if let Some(payload) = self.payload.take() {
            self.log.settle(self.intent, payload, &settlement);
        }
    }

    /// Settles the call as no event.
    pub fn void(mut self, reason: VoidReason) {
        if let Some(payload) = self.payload.take() {
            self.log.void(self.intent, &payload, reason);
        }
    }
}

impl Drop for AnnouncedCall {
    fn drop(&mut self) {
        if let Some(payload) = self.payload.take() {
            self.log.metrics.failed(FailedStep::Dropped);
            log_failure(&payload, "the call was dropped unsettled, it is recorded as unknown", None);
            self.log.settle(self.intent, payload, &codec::unknown_settlement());
        }
    }
}

impl fmt::Debug for AnnouncedCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AnnouncedCall").field("event_id", &self.event_id).finish_non_exhaustive()
    }
}
