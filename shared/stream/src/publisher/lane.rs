//! One batch at a time over the wire: sends inside the window, reads the acks, and stops at the first sign of trouble.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderValue, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::{Message, StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use goldleaves_domain::{Delivery, PublishError, wire};
use goldleaves_runtime::Backoff;
use serde::Deserialize;
use tokio::time::Instant;

use super::StreamPublisher;
use super::run::Run;
use super::witness::Anchor;
use crate::connection::Connection;
use crate::topology::STREAM;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// More than any batch holds.
const KNOWN_MAX: usize = 100_000;

/// The state that survives from one batch to the next.
#[derive(Debug)]
pub(super) struct PublishLane {
    inbox: Option<Inbox>,
    /// Numbers the batches, so that an ack for an earlier one is not taken for this one's.
    batches: u64,
    /// The reason nothing but a probe may be sent. Set at the start: the stream has not been looked at yet.
    trouble: Option<Trouble>,
    /// The number of messages that may be unanswered now; doubles with each ack after trouble.
    allowance: usize,
    backoff: Backoff,
    /// The ids that were confirmed of batches that the caller heard were unconfirmed, so that they are not sent again
    /// with them.
    known: HashSet<String>,
    rewinds_seen: u64,
    /// The number of times the client had connected when the stream was looked at last.
    connects_seen: u64,
}

#[derive(Debug)]
struct Inbox {
    prefix: String,
    acks: Subscriber,
}

/// The reason sending stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    #[error("the stream has not been looked at yet")]
    NotLookedAt,
    #[error("the connection to NATS was lost in between")]
    Reconnected,
    #[error("the stream is not what it was")]
    Suspicion,
    #[error("not connected to NATS")]
    Disconnected,
    #[error("no receipt came in time")]
    Silence,
    #[error("nobody takes the stream's subjects (no responders): an election, or no stream")]
    NoResponders,
    #[error("JetStream refuses: {description} ({code})")]
    Refused { code: u64, description: String },
    #[error("the client can't send: {0}")]
    Client(String),
}

/// A PubAck, or what came in its place.
#[derive(Deserialize)]
struct PublishAnswer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<PublishAnswerError>,
}

#[derive(Deserialize)]
struct PublishAnswerError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Default for PublishLane {
    fn default() -> Self {
        Self {
            inbox: None,
            batches: 0,
            trouble: Some(Trouble::NotLookedAt),
            allowance: 1,
            backoff: BACKOFF,
            known: HashSet::new(),
            rewinds_seen: 0,
            connects_seen: 0,
        }
    }
}

impl PublishLane {
    pub(super) async fn publish(&mut self, with: &StreamPublisher, batch: Vec<Delivery>) -> Result<(), PublishError> {
        self.batches += 1;
        self.forget_after_a_rewind(with);
        let mut run = Run::new(batch, &self.known);
        let outcome = match self.drive(with, &mut run).await {
            // The loss was seen by a look beside this batch: what was confirmed before it may be gone.
            Ok(()) if with.witness.rewinds() != self.rewinds_seen => {
                Err(PublishError::Rewound { reason: "seen while the batch was on its way".to_owned() })
            }
            outcome => outcome,
        };
        match &outcome {
            // Hardly ever is anything known, and looking for each id of a batch costs as much as sending a header.
            Ok(()) if self.known.is_empty() => {}
            Ok(()) => run.confirmed_ids().for_each(|id| {
                self.known.remove(id);
            }),
            Err(PublishError::Unconfirmed { .. } | PublishError::TooLarge { .. }) => {
                self.known.extend(run.confirmed_ids().map(str::to_owned));
                // A caller that does not come back with its batch must not fill the memory.
                if self.known.len() > KNOWN_MAX {
                    self.known.clear();
                }
            }
            Err(PublishError::Rewound { .. }) => self.known.clear(),
        }
        outcome
    }

    fn forget_after_a_rewind(&mut self, with: &StreamPublisher) {
        let rewinds = with.witness.rewinds();
        if self.rewinds_seen != rewinds {
            self.rewinds_seen = rewinds;
            self.known.clear();
        }
    }

    async fn drive(&mut self, with: &StreamPublisher, run: &mut Run) -> Result<(), PublishError> {
        let mut calm = Calm { last_progress: Instant::now(), patience: with.options.patience };
        while !run.is_done() {
            let connects = with.connection.connects();
            if self.trouble.is_none() && self.connects_seen != connects {
                self.trouble = Some(Trouble::Reconnected);
            }
            if self.trouble.is_none() && with.witness.is_suspicious() {
                self.trouble = Some(Trouble::Suspicion);
            }
            if let Some(trouble) = self.trouble.clone() {
                if let Err(error) = self.recover(with, &trouble, &calm).await {
                    if matches!(error, PublishError::Rewound { .. }) || calm.is_over() {
                        return Err(error);
                    }
                    tokio::time::sleep(self.backoff.pause().min(calm.left())).await;
                    continue;
                }
                self.trouble = None;
                self.connects_seen = connects;
            }
            let bytes_max = with.payload_bytes_max();
            if run.has_larger_than(bytes_max) {
                return Err(PublishError::TooLarge { bytes_max });
            }
            let before = run.confirmed();
            let outcome = self.pump(with, run).await;
            if run.confirmed() > before {
                calm.last_progress = Instant::now();
                self.backoff.reset();
            }
            if let Err(trouble) = outcome {
                tracing::debug!(%trouble, "publishing to the stream stopped");
                with.counters.troubles.fetch_add(1, Ordering::Relaxed);
                let given_up = run.give_up_unanswered() as u64;
                with.counters.without_receipt.fetch_add(given_up, Ordering::Relaxed);
                self.allowance = 1;
                let reason = reason(&trouble, &with.connection);
                self.trouble = Some(trouble);
                if calm.is_over() {
                    return Err(PublishError::Unconfirmed { reason });
                }
                tokio::time::sleep(self.backoff.pause().min(calm.left())).await;
            }
        }
        Ok(())
    }

    /// Nothing is sent but the look at the stream, and that only while a server is connected.
    async fn recover(&self, with: &StreamPublisher, trouble: &Trouble, calm: &Calm) -> Result<(), PublishError> {
        if tokio::time::timeout(calm.left(), with.connection.connected()).await.is_err() {
            return Err(PublishError::Unconfirmed { reason: reason(&Trouble::Disconnected, &with.connection) });
        }
        with.look().await.map_err(|error| match error {
            PublishError::Unconfirmed { reason } if *trouble != Trouble::NotLookedAt => {
                PublishError::Unconfirmed { reason: format!("{trouble}; then {reason}") }
            }
            other => other,
        })
    }

    /// Sends and reads acks until the batch is confirmed or there is trouble.
    async fn pump(&mut self, with: &StreamPublisher, run: &mut Run) -> Result<(), Trouble> {
        let mut inbox = match self.inbox.take() {
            Some(inbox) => inbox,
            None => Inbox::open(&with.connection).await?,
        };
        let mut newest = None;
        let outcome = self.exchange(with, run, &mut inbox, &mut newest).await;
        if let Some(anchor) = newest {
            with.witness.confirmed(anchor);
        }
        self.inbox = Some(inbox);
        outcome
    }

    async fn exchange(
        &mut self,
        with: &StreamPublisher,
        run: &mut Run,
        inbox: &mut Inbox,
        newest: &mut Option<Anchor>,
    ) -> Result<(), Trouble> {
        let mut trouble = None;
        let mut answered = Instant::now();
        loop {
            if trouble.is_none() {
                self.fill_window(with, run, inbox).await?;
            }
            if run.unanswered() == 0 {
                return trouble.map_or(Ok(()), Err);
            }
            // A server that hangs stays connected, and one that is killed never answers: both must end the wait.
            let message = tokio::select! {
                biased;
                message = inbox.acks.next() => message.ok_or(Trouble::Disconnected)?,
                () = with.connection.disconnected() => return Err(Trouble::Disconnected),
                () = tokio::time::sleep_until(answered + with.options.ack_timeout) => {
                    return Err(trouble.unwrap_or(Trouble::Silence));
                }
            };
            let mut next = Some(message);
            while let Some(message) = next {
                if let Err(refusal) = self.take_answer(with, run, &message, newest) {
                    trouble = Some(refusal);
                }
                next = inbox.acks.next().now_or_never().flatten();
            }
            answered = Instant::now();
        }
    }

    async fn fill_window(&self, with: &StreamPublisher, run: &mut Run, inbox: &Inbox) -> Result<(), Trouble> {
        let window = self.allowance.min(with.options.window);
        while run.unanswered() < window {
            if !with.connection.is_connected() {
                return Err(Trouble::Disconnected);
            }
            let Some((index, delivery)) = run.next() else { break };
            let sending = with.connection.client().publish_with_reply_and_headers(
                delivery.subject.clone(),
                format!("{}.{}.{index}", inbox.prefix, self.batches),
                headers(delivery)?,
                delivery.payload.clone(),
            );
            // The client queues without bound of time while a server hangs.
            match tokio::time::timeout(with.options.ack_timeout, sending).await {
                Ok(sent) => sent.map_err(|error| Trouble::Client(error.to_string()))?,
                Err(_) => return Err(Trouble::Silence),
            }
        }
        Ok(())
    }

    fn take_answer(
        &mut self,
        with: &StreamPublisher,
        run: &mut Run,
        message: &Message,
        newest: &mut Option<Anchor>,
    ) -> Result<(), Trouble> {
        let Some(index) = self.index_of(message) else { return Ok(()) };
        let refusal = if message.status == Some(StatusCode::NO_RESPONDERS) {
            Trouble::NoResponders
        } else {
            match serde_json::from_slice::<PublishAnswer>(&message.payload) {
                Ok(PublishAnswer { seq, duplicate, error: None }) if seq > 0 => {
                    if let Some(id) = run.confirm(index) {
                        count(&with.counters.confirmed, true);
                        count(&with.counters.duplicates, duplicate);
                        Anchor::keep_newest(newest, seq, id);
                        self.allowance = self.allowance.saturating_mul(2);
                    }
                    return Ok(());
                }
                Ok(PublishAnswer { error: Some(PublishAnswerError { err_code: code, description }), .. }) => {
                    Trouble::Refused { code, description }
                }
                _ => Trouble::Refused { code: 0, description: "an answer that is no PubAck".into() },
            }
        };
        run.refuse(index);
        count(&with.counters.without_receipt, true);
        Err(refusal)
    }

    /// Finds the message of this batch that an answer is for.
    fn index_of(&self, message: &Message) -> Option<usize> {
        let mut tokens = message.subject.rsplit('.');
        let index = tokens.next()?.parse().ok()?;
        let batch: u64 = tokens.next()?.parse().ok()?;
        (batch == self.batches).then_some(index)
    }
}

impl Inbox {
    async fn open(connection: &Connection) -> Result<Self, Trouble> {
        let prefix = connection.client().new_inbox();
        let subscribing = connection.client().subscribe(format!("{prefix}.*.*"));
        let acks = subscribing.await.map_err(|error| Trouble::Client(error.to_string()))?;
        Ok(Self { prefix, acks })
    }
}

/// The time that a caller has been kept without progress.
struct Calm {
    last_progress: Instant,
    patience: Duration,
}

impl Calm {
    fn left(&self) -> Duration {
        self.patience.saturating_sub(self.last_progress.elapsed())
    }

    fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// The trouble, and what server or client complained of last: a missing permission shows nowhere else.
fn reason(trouble: &Trouble, connection: &Connection) -> String {
    match connection.complaint() {
        Some(complaint) => format!("{trouble}; {complaint}"),
        None => trouble.to_string(),
    }
}

fn headers(delivery: &Delivery) -> Result<HeaderMap, Trouble> {
    let mut headers = HeaderMap::new();
    let id = header_value(&delivery.message_id);
    let id = id.ok_or_else(|| Trouble::Client(format!("{:?} is no header's value", delivery.message_id)))?;
    headers.insert(NATS_MESSAGE_ID, id);
    headers.insert(NATS_EXPECTED_STREAM, STREAM);
    if wire::is_batch(&delivery.payload) {
        headers.insert("Content-Type", wire::BATCH_CONTENT_TYPE);
    }
    // A trace is worth no event: one that is no header is left out.
    if let Some(trace) = delivery.traceparent.as_deref().and_then(header_value) {
        headers.insert("traceparent", trace);
    }
    Ok(headers)
}

/// A text as the value of a header, unless it has characters that end one. Our own are plain, and are looked at much faster than the
/// client does.
fn header_value(text: &str) -> Option<HeaderValue> {
    let is_plain = text.bytes().fold(true, |plain, byte| plain & byte.is_ascii_graphic());
    if is_plain { Some(HeaderValue::from(text)) } else { text.parse().ok() }
}

fn count(counter: &AtomicU64, one: bool) {
    counter.fetch_add(u64::from(one), Ordering::Relaxed);
}
