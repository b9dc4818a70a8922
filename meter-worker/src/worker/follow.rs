//! Follows whether the ledger still has what was acknowledged to the stream, and drives it again from there if not.
//!
//! A worker acknowledges after the commit, and the commit says which sequences it holds. A ledger that has less than was
//! acknowledged was restored from a backup or failed over to a standby that was behind. What it has changes nothing, so it
//! may all be driven again, beside the workers that work.
//!
//! A stream that went back gives out its last sequences again. What the ledger says of those is forgotten, once two looks
//! have found the same: it is about messages that are gone, and gateways hand those over again.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use goldleaves_ledger::{Incoming, RememberedCards, Sequences, StreamCourse, StreamPlace};
use tokio::sync::watch;

use super::lineage::{self, Lost};
use super::{BACKOFF, Connection, Footing, Position, Reader, STREAM, Topology};
use crate::Meter;

/// Between two looks, unless the database was connected to anew.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks of which both have to find that the stream lost something.
const DOUBT_PAUSE: Duration = Duration::from_secs(3);
/// The time that other workers are given to drive the ledger again.
const OTHERS_FIRST: Duration = Duration::from_secs(2);
/// The number of messages by which a ledger that knows of no progress is found to have what was acknowledged.
const SAMPLE: u64 = 1_000;

/// Compares ledger and stream.
#[derive(Debug)]
pub(super) struct Follower {
    connection: Connection,
    meter: Meter,
    has_looked: bool,
    /// The place of the ledger at the last look, while it lacks something.
    behind: Option<u64>,
    /// The messages that the stream lost, as the last look found: a replica that leads since a moment may still be reading.
    doubted: Vec<Lost>,
    /// True once ledger and stream were compared message by message since the database was connected to.
    compared: bool,
    /// True once it is known by which rate cards usage was priced so far.
    recalled: watch::Sender<bool>,
    /// True once it was said that the note can't be read.
    warned: bool,
}

impl Follower {
    pub(super) fn new(connection: Connection, meter: Meter) -> Self {
        Self {
            connection,
            meter,
            has_looked: false,
            behind: None,
            doubted: Vec::new(),
            compared: false,
            recalled: watch::Sender::default(),
            warned: false,
        }
    }

    /// Follows whether it is known by which rate cards usage was priced so far. Nothing is to be priced before that.
    pub(super) fn recalled(&self) -> watch::Receiver<bool> {
        self.recalled.subscribe()
    }

    /// Looks for ever.
    pub(super) async fn run(mut self) {
        let mut connections = self.meter.ledger().store().connections();
        let mut remembered = self.meter.ledger().remembered_cards();
        loop {
            if let Err(cause) = self.look().await {
                self.meter.metrics().lacks(None);
                let cause: &(dyn Error + 'static) = cause.as_ref();
                tracing::debug!(cause, "ledger and stream can't be compared now");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            let pause = match (self.has_looked, self.doubted.is_empty()) {
                (false, _) => LOOK_PAUSE,
                (true, false) => DOUBT_PAUSE,
                (true, true) => LOOK_EVERY,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = connections.changed() => self.compared = false,
                Ok(()) = remembered.changed() => {}
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        // Before the ledger is asked: whatever is acknowledged then was committed before.
        let Some(footing) = Footing::read(&self.connection).await? else { return Ok(()) };
        self.remember(footing.note.as_deref()).await;
        let Footing { created, first, last, acknowledged, .. } = footing;
        let course = Arc::new(StreamCourse { stream: STREAM.to_owned(), created });
        self.has_looked = true;
        let known = self.meter.ledger().progress(&course, first).await?;
        let lacks = known.unwrap_or(first.saturating_sub(1)) < acknowledged;
        if known.is_some()
            && (lacks || !self.compared || !self.doubted.is_empty() || self.is_beyond(&course, last).await?)
        {
            let sure = self.compare(&course, Sequences { first, last }).await?;
            self.compared = sure;
            if !sure {
                return Ok(());
            }
        }
        let acknowledgeable = Sequences { first, last: acknowledged };
        if known.is_none() && first <= acknowledged && self.has_the_newest(acknowledgeable).await? {
            tracing::info!(
                acknowledged,
                "the ledger has what an earlier release acknowledged, it is noted as recorded"
            );
            return Ok(self.meter.ledger().pass_over(&course, acknowledgeable).await?);
        }
        let reached = known.unwrap_or(first.saturating_sub(1));
        self.meter.metrics().lacks(acknowledged.saturating_sub(reached));
        if reached >= acknowledged {
            if self.behind.take().is_some() {
                tracing::info!(acknowledged, "the ledger has again what was acknowledged");
            }
            return Ok(());
        }
        if self.is_driven_by_others(&course, first, reached).await? {
            return Ok(());
        }
        self.drive(&course, Sequences { first: reached + 1, last: acknowledged }).await
    }

    /// Recalls by which rate cards usage was priced, as the note beside the acknowledgements says, and writes there what this worker
    /// knows. Then looks whether the ledger has them all: that is found by who prices, too, but not while nothing is served.
    async fn remember(&mut self, noted: Option<&str>) {
        let ledger = self.meter.ledger();
        let readable = match RememberedCards::of_note(noted.unwrap_or_default()) {
            Ok(noted) => {
                ledger.recall(&noted);
                true
            }
            // A newer worker may have written it, and then knows what to do with it.
            Err(cause) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        cause,
                        "what is noted about rate cards beside the consumer can't be read; it is left as it is, and a \
                         price that went back with the ledger is not noticed"
                    );
                }
                false
            }
        };
        self.recalled.send_replace(true);
        if let Err(error) = ledger.check_cards().await {
            tracing::debug!(%error, "the rate cards are not all there, or can't be read now");
        }
        let known = ledger.remembered_cards().borrow().note();
        if readable && !known.is_empty() && noted != Some(known.as_str()) {
            match Topology::note(&self.connection, &known).await {
                Ok(()) => tracing::debug!("noted beside the consumer by which rate cards usage is priced"),
                Err(error) => tracing::warn!(
                    %error,
                    "the rate cards that usage is priced by can't be noted beside the consumer; it is tried again"
                ),
            }
        }
    }

    /// Says whether the ledger has more than the stream ever gave out, or what contradicts itself.
    async fn is_beyond(&self, course: &StreamCourse, last: u64) -> Result<bool> {
        let landmarks = self.meter.ledger().landmarks(course).await?;
        Ok(landmarks.len() > 1 || landmarks.iter().any(|landmark| landmark.sequence > last))
    }

    /// Compares the newest messages that the ledger has with the stream. Whether it has none that the stream lost.
    async fn compare(&mut self, course: &StreamCourse, held: Sequences) -> Result<bool> {
        let lost = lineage::lost(&self.connection, self.meter.ledger(), course, held).await?;
        let before = std::mem::replace(&mut self.doubted, lost.clone());
        for Lost { landmark, first } in &lost {
            // What the stream gives out meanwhile moves the end, not the landmark.
            if !before.iter().any(|doubted| doubted.landmark == *landmark) {
                continue;
            }
            self.meter.metrics().stream_went_back();
            tracing::warn!(
                from = first,
                to = landmark.sequence,
                "the stream went back: it lost messages that the ledger has and gives their sequences out again; what it \
                 stores there is recorded as new"
            );
            self.meter.ledger().cut(course, *landmark, *first).await?;
        }
        if lost.is_empty() {
            self.meter.ledger().confirm(course).await?;
        }
        Ok(lost.is_empty())
    }

    /// Says once that something is lacking. Of several workers one is enough: whoever sees that the ledger comes on leaves
    /// it to the other.
    async fn is_driven_by_others(&mut self, course: &StreamCourse, first: u64, reached: u64) -> Result<bool> {
        let before = self.behind.replace(reached);
        if before.is_none() {
            self.meter.metrics().went_back();
            tracing::warn!(
                recorded = reached,
                stream_created = course.created,
                "the ledger went back: it lacks what was acknowledged to the stream, which is driven again from there"
            );
            tokio::time::sleep(OTHERS_FIRST.mul_f64(rand::random_range(0.0..1.0))).await;
        }
        let now = self.meter.ledger().progress(course, first).await?.unwrap_or(reached);
        self.behind = Some(now);
        Ok(now > before.unwrap_or(reached))
    }

    /// Records this part of the stream once more.
    async fn drive(&self, course: &Arc<StreamCourse>, span: Sequences) -> Result<()> {
        let (from, to) = (Position::Sequence(span.first), Position::Sequence(span.last));
        let (mut next, mut gone) = (span.first, 0);
        if let Some(mut reader) = Reader::open(&self.connection, from, Some(to), lineage::reading()).await? {
            while let Some(batch) = reader.next().await? {
                let mut incoming = Vec::with_capacity(batch.len());
                for message in batch {
                    let sequences = Sequences { first: next, last: message.sequence };
                    gone += message.sequence - next;
                    next = message.sequence + 1;
                    let place = StreamPlace { course: Arc::clone(course), sequences };
                    let of_message = Incoming::of_message(&message.payload, Some(place)).into_iter();
                    incoming.extend(of_message.map(|part| part.stored(message.stored)));
                }
                self.record(incoming).await;
            }
        }
        if next <= span.last {
            gone += span.last + 1 - next;
            self.meter.ledger().pass_over(course, Sequences { first: next, last: span.last }).await?;
        }
        if gone > 0 {
            self.meter.metrics().gone(gone);
            tracing::error!(
                gone,
                "the stream no longer holds messages that the ledger lacks; `goldleaves spool resend` brings those that a \
                 gateway's spool retains"
            );
        }
        Ok(())
    }

    /// Records a batch, however long that takes.
    async fn record(&self, incoming: Vec<Incoming>) {
        let mut backoff = BACKOFF;
        while let Err(cause) = self.meter.record_incoming(incoming.clone()).await {
            tracing::debug!(cause = &cause as &dyn Error, "the ledger can't record now; retrying the batch");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Returns whether the ledger knows the newest of these messages: then an earlier release recorded them, which did not note how
    /// far it was.
    async fn has_the_newest(&self, span: Sequences) -> Result<bool> {
        let first = span.first.max((span.last + 1).saturating_sub(SAMPLE));
        let (from, to) = (Position::Sequence(first), Position::Sequence(span.last));
        let Some(mut reader) = Reader::open(&self.connection, from, Some(to), lineage::reading()).await? else {
            return Ok(false);
        };
        let (mut events, mut known) = (0, 0);
        while let Some(batch) = reader.next().await? {
            let incoming: Vec<Incoming> =
                batch.iter().flat_map(|message| Incoming::of_message(&message.payload, None)).collect();
            events += incoming.iter().filter(|message| !message.is_seal()).count() as u64;
            known += self.meter.ledger().count_known(&incoming).await?;
        }
        Ok(events > 0 && known == events)
    }
}
