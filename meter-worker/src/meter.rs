//! Recording a batch, and finding what no ledger can hold.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use goldleaves_domain::wire::Message;
use goldleaves_domain::{Receiver, UsageEvent};
use goldleaves_ledger::{Incoming, Ledger, LedgerError, Recorded, StoreError};
use goldleaves_runtime::Metrics;
use goldleaves_runtime::process::chain;
use goldleaves_runtime::telemetry::TRACED;
use goldleaves_trace::{Moment, Tracer};
use tracing::{Instrument as _, debug, error, info_span, warn};

use crate::handed::Handed;
use crate::metrics::MeterMetrics;
use crate::spans::{BatchArrival, BatchSpans};

/// Records messages in the ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Meter {
    ledger: Ledger,
    metrics: MeterMetrics,
    tracer: Tracer,
    handed: Arc<Handed>,
}

impl Meter {
    /// A meter for this ledger.
    pub fn new(ledger: Ledger, metrics: &Metrics) -> Self {
        let shown = MeterMetrics::register(metrics);
        shown.show_lacking_cards(metrics, ledger.lacking_cards());
        Self { ledger, metrics: shown, tracer: Tracer::off(), handed: Arc::default() }
    }

    /// With spans of what it records.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Records a batch; `Ok` only after everything in it is committed: billed, recognised as a repeat or a replay, or
    /// set aside with its reason. What no ledger can hold is found by halving and set aside alone.
    ///
    /// # Errors
    /// Only what has nothing to do with the batch: the database is away, busy or not migrated. Then the same batch may
    /// come again, however much of it was recorded.
    pub async fn record(&self, payloads: Vec<Bytes>) -> Result<Recorded, LedgerError> {
        self.record_incoming(payloads.iter().flat_map(|payload| Incoming::of_message(payload, None)).collect()).await
    }

    /// Works like [`Meter::record`], for messages that say where they come from.
    ///
    /// # Errors
    /// As [`Meter::record`].
    pub async fn record_incoming(&self, incoming: Vec<Incoming>) -> Result<Recorded, LedgerError> {
        let arrival = BatchArrival { through: Receiver::LEDGER, started: Moment::now() };
        self.record_naming(incoming, arrival).await.map(|(recorded, _)| recorded)
    }

    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) const fn metrics(&self) -> &MeterMetrics {
        &self.metrics
    }

    pub(crate) fn handed(&self) -> &Handed {
        &self.handed
    }

    /// Works like [`Meter::record`], for a batch that came like this; and which of it no ledger can hold: what can't be read
    /// and what it refused.
    pub(crate) async fn record_naming(
        &self,
        incoming: Vec<Incoming>,
        arrival: BatchArrival,
    ) -> Result<(Recorded, Vec<usize>), LedgerError> {
        incoming.iter().for_each(log_incoming);
        self.metrics.clocks(&incoming);
        let unreadable = incoming.iter().enumerate().filter(|(_, message)| message.parsed.is_err());
        let mut poison: Vec<usize> = unreadable.map(|(index, _)| index).collect();
        let mut spans = BatchSpans::begin(&self.tracer, self.ledger.store().system(), &incoming, arrival);
        let span = info_span!(target: TRACED, "record a batch", goldleaves.batch_size = incoming.len());
        let recorded = self.halve(0, &incoming, &mut spans, &mut poison).instrument(span).await;
        spans.end_if(recorded.is_ok());
        if recorded.is_err() {
            self.metrics.failed();
        }
        recorded.map(|recorded| (recorded, poison))
    }

    /// Records a part of a batch, `first` being its place, or each half of it when something in it is refused.
    fn halve<'a>(
        &'a self,
        first: usize,
        batch: &'a [Incoming],
        spans: &'a mut BatchSpans,
        poison: &'a mut Vec<usize>,
    ) -> Pin<Box<dyn Future<Output = Result<Recorded, LedgerError>> + Send + 'a>> {
        Box::pin(async move {
            let mut recorded = Recorded::default();
            let commit = spans.commit(first..first + batch.len());
            let outcome = self.ledger.record_counting(batch, &mut recorded).await;
            self.metrics.recorded(&recorded);
            spans.end_commit_if(outcome.is_ok(), commit);
            let cause = match outcome {
                Ok(()) => return Ok(recorded),
                Err(cause) if is_poison(&cause) => cause,
                Err(cause) => return Err(cause),
            };
            match batch {
                [] => Err(cause),
                [message] => {
                    poison.push(first);
                    let commit = spans.commit(first..first + 1);
                    let set_aside = self.set_aside(message, &cause).await;
                    spans.end_commit_if(set_aside.is_ok(), commit);
                    recorded += set_aside?;
                    Ok(recorded)
                }
                _ => {
                    let middle = batch.len() / 2;
                    let (left, right) = batch.split_at(middle);
                    recorded += self.halve(first, left, spans, poison).await?;
                    recorded += self.halve(first + middle, right, spans, poison).await?;
                    Ok(recorded)
                }
            }
        })
    }

    async fn set_aside(&self, message: &Incoming, cause: &LedgerError) -> Result<Recorded, LedgerError> {
        let detail = chain(cause);
        let event = event_of(message);
        error!(
            request_id = event.map(|event| tracing::field::display(&event.request_id)),
            event_id = event.map(|event| tracing::field::display(event.event_id)),
            cause = detail,
            "the ledger refuses this message; it is set aside"
        );
        let recorded = self.ledger.refuse(message, &detail).await?;
        self.metrics.recorded(&recorded);
        Ok(recorded)
    }
}

/// Returns whether it is something in the batch that the ledger refuses, and not the ledger that is away or not as it should be: a
/// constraint that somebody made, a missing partition, a column of another type, or a stored row that can't be read say
/// nothing of what comes.
fn is_poison(cause: &LedgerError) -> bool {
    match cause {
        LedgerError::Unstorable { .. } => true,
        LedgerError::Store(StoreError::Database(_)) => !cause.is_transient(),
        LedgerError::Store(_)
        | LedgerError::NoRate
        | LedgerError::RatesChanged
        | LedgerError::CardsWentBack(_)
        | LedgerError::CardsNotKept(_)
        | LedgerError::Contended => false,
    }
}

fn event_of(message: &Incoming) -> Option<&UsageEvent> {
    match &message.parsed {
        Ok(Message::Event(event)) => Some(event),
        _ => None,
    }
}

fn log_incoming(message: &Incoming) {
    match &message.parsed {
        Ok(Message::Event(event)) => debug!(
            request_id = %event.request_id, event_id = %event.event_id, tenant_id = %event.tenant_id,
            outcome = %event.outcome, "usage event received"
        ),
        Ok(Message::Seal(seal)) => debug!(epoch = %seal.epoch, last_seq = seal.last_seq, "seal received"),
        Err(unreadable) => warn!(
            request_id = unreadable.request_id, reason = %unreadable.reason, detail = unreadable.detail,
            "a message cannot be read; it is set aside"
        ),
    }
}
