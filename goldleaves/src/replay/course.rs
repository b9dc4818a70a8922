//! A part of the stream goes through the meter once more, or is only looked at. What the ledger has changes nothing, so it
//! may be done again, broken off, and done beside workers that work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use goldleaves_domain::wire::Message as Content;
use goldleaves_domain::{TenantId, Timestamp};
use goldleaves_ledger::{Incoming, Ledger, LedgerError, Recorded};
use goldleaves_meter_worker::Meter;
use goldleaves_runtime::Backoff;
use goldleaves_stream::{Mark, Message, ReadError, Reader};
use tokio_util::sync::CancellationToken;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The point that it has reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplayProgress {
    /// The last message that is done.
    pub(crate) at: Mark,
    /// Messages done so far.
    pub(crate) read: u64,
    /// Sequences of the span behind that message.
    pub(crate) remaining: u64,
    /// The time since the start.
    pub(crate) elapsed: Duration,
}

/// Says whether a replay came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything in the span is done.
    Finished,
    /// It was told to stop.
    Stopped,
}

/// The contents of a part of the stream.
#[derive(Debug, Default)]
pub(crate) struct StreamContents {
    /// Messages.
    pub(crate) messages: u64,
    /// Events by outcome.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// Seals.
    pub(crate) seals: u64,
    /// The number of messages that can't be read, by reason.
    pub(crate) unreadable: BTreeMap<&'static str, u64>,
    /// The tenants whose events they are.
    pub(crate) tenants: BTreeSet<TenantId>,
    /// When the first and the last call arrived.
    pub(crate) calls: Option<(Timestamp, Timestamp)>,
    /// The number of events, readable or not, that the ledger has; `None` without a ledger to ask.
    pub(crate) known: Option<u64>,
}

/// Goes through one span of the stream.
#[derive(Debug)]
pub(crate) struct Replay {
    reader: Reader,
    /// The time for which a ledger that can't record now is waited for.
    patience: Duration,
    start: Instant,
    read: u64,
    done: Option<Mark>,
}

impl Replay {
    /// Over what `reader` reads.
    pub(crate) fn new(reader: Reader, patience: Duration) -> Self {
        Self { reader, patience, start: Instant::now(), read: 0, done: None }
    }

    /// The first sequence that is not done: where to go on after an error or a stop.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.done.map_or(self.reader.span().first, |mark| mark.sequence + 1)
    }

    /// Returns the point that it has reached; `None` before the first message.
    pub(crate) fn progress(&self) -> Option<ReplayProgress> {
        let at = self.done?;
        let remaining = self.reader.span().last.saturating_sub(at.sequence);
        Some(ReplayProgress { at, read: self.read, remaining, elapsed: self.start.elapsed() })
    }

    /// Records everything, a batch at a time, and adds up what that changed.
    ///
    /// # Errors
    /// Stream or ledger are away for too long. Everything before [`Replay::next_sequence`] is recorded.
    pub(crate) async fn record(
        &mut self,
        meter: &Meter,
        recorded: &mut Recorded,
        stop: &CancellationToken,
        mut tell: impl FnMut(ReplayProgress),
    ) -> Result<Ending> {
        while let Some(batch) = self.next(stop).await? {
            *recorded += self.record_batch(meter, &batch, stop).await.context("recording")?;
            self.advance(&batch, &mut tell);
        }
        Ok(self.ending(stop))
    }

    /// Looks at everything and changes nothing; the ledger is asked what it has.
    ///
    /// # Errors
    /// Stream or ledger are away.
    pub(crate) async fn look(
        &mut self,
        ledger: Option<&Ledger>,
        contents: &mut StreamContents,
        stop: &CancellationToken,
        mut tell: impl FnMut(ReplayProgress),
    ) -> Result<Ending> {
        while let Some(batch) = self.next(stop).await? {
            let incoming: Vec<_> = batch.iter().flat_map(incoming).collect();
            if let Some(ledger) = ledger {
                *contents.known.get_or_insert_default() +=
                    ledger.count_known(&incoming).await.context("asking the ledger")?;
            }
            contents.messages += batch.len() as u64;
            incoming.iter().for_each(|part| contents.add(part));
            self.advance(&batch, &mut tell);
        }
        Ok(self.ending(stop))
    }

    async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Vec<Message>>, ReadError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(None),
            batch = self.reader.next() => batch,
        }
    }

    /// Records a batch, waiting for a ledger that is away, unless told to stop.
    async fn record_batch(
        &self,
        meter: &Meter,
        batch: &[Message],
        stop: &CancellationToken,
    ) -> Result<Recorded, LedgerError> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            match meter.record_incoming(batch.iter().flat_map(incoming).collect()).await {
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    tracing::debug!(%error, "the ledger can't record now, trying again");
                    tokio::select! {
                        () = tokio::time::sleep(backoff.pause()) => {}
                        () = stop.cancelled() => return Err(error),
                    }
                }
                recorded => return recorded,
            }
        }
    }

    fn advance(&mut self, batch: &[Message], tell: &mut impl FnMut(ReplayProgress)) {
        self.read += batch.len() as u64;
        if let Some(last) = batch.last() {
            self.done = Some(Mark { sequence: last.sequence, stored: last.stored });
        }
        self.progress().into_iter().for_each(tell);
    }

    fn ending(&self, stop: &CancellationToken) -> Ending {
        let more = self.next_sequence() <= self.reader.span().last;
        if stop.is_cancelled() && more { Ending::Stopped } else { Ending::Finished }
    }
}

impl StreamContents {
    /// Everything but seals: what the ledger has by its id.
    pub(crate) fn records(&self) -> u64 {
        self.events.values().chain(self.unreadable.values()).sum()
    }

    fn add(&mut self, incoming: &Incoming) {
        match &incoming.parsed {
            Ok(Content::Event(event)) => {
                *self.events.entry(event.outcome.as_str()).or_default() += 1;
                let (first, last) = self.calls.unwrap_or((event.ts, event.ts));
                self.calls = Some((first.min(event.ts), last.max(event.ts)));
                if !self.tenants.contains(&event.tenant_id) {
                    self.tenants.insert(event.tenant_id.clone());
                }
            }
            Ok(Content::Seal(_)) => self.seals += 1,
            Err(unreadable) => *self.unreadable.entry(unreadable.reason.as_str()).or_default() += 1,
        }
    }
}

fn incoming(message: &Message) -> impl Iterator<Item = Incoming> {
    Incoming::of_message(&message.payload, None).into_iter().map(|part| part.stored(message.stored))
}
