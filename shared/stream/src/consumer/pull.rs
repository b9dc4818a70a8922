//! Pull requests to one consumer, of workers or of a reader, and what comes back to their inbox. A [`Pull`] is used until
//! its first trouble, then another one, with an inbox of its own, takes its place.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::ConsumerOptions;
use super::batch::Message;
use crate::connection::Connection;
use crate::topology::{RequestMax, STREAM};

/// The number of messages, about, whose mean of events is known.
const EVENTS_EACH_OF: f64 = 16.0;
/// The most messages that are asked for at once before one has come: all of them may be as large as a message can be.
const WANTED_AT_FIRST: usize = 250;
/// The server's words for a request that has no bytes left for the next message. It is over, and nothing is wrong.
const OVER_BYTES: &str = "Message Size Exceeds MaxBytes";
/// The server's words for a request that has all its messages and bytes to spare. It is over, and nothing is wrong.
const COMPLETED: &str = "Batch Completed";
/// The longest time a request may take to be queued in the client.
const SEND_SECS: u64 = 5;

/// One thing that came out of the inbox.
#[derive(Debug)]
pub(crate) enum PullSignal {
    /// A message of the stream.
    Message(Message),
    /// A heartbeat, or a request that ended as it should.
    Sign,
    /// This pull is of no more use.
    Over(String),
}

#[derive(Debug)]
pub(crate) struct Pull {
    connection: Connection,
    inbox: Subscriber,
    inbox_subject: String,
    /// Where the consumer is asked.
    next_subject: String,
    /// Messages asked for and not yet read.
    owed: usize,
    batch_events: usize,
    /// The number of events that a message has, of those that came last.
    events_each: f64,
    has_heard: bool,
    /// The most messages one request may ask for.
    request_max: usize,
    /// The most bytes one request may bring.
    request_bytes: usize,
    /// True if a message came since the last request.
    came: bool,
    /// True if the next message alone has more bytes than a request may bring.
    is_next_large: bool,
    /// When the stream was made.
    stream_created: Arc<str>,
    expires: Duration,
    heartbeat: Duration,
    last_sign: Instant,
}

impl Pull {
    pub(crate) async fn open(
        connection: &Connection,
        stream_created: &str,
        consumer: &str,
        options: &ConsumerOptions,
        most: RequestMax,
    ) -> Result<Self, String> {
        let inbox_subject = connection.client().new_inbox();
        let subscribing = connection.client().subscribe(inbox_subject.clone());
        let inbox = subscribing.await.map_err(|error| error.kind().to_string())?;
        Ok(Self {
            connection: connection.clone(),
            inbox,
            inbox_subject,
            next_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}"),
            owed: 0,
            batch_events: options.batch_events,
            events_each: 1.0,
            has_heard: false,
            request_max: usize_of(most.messages),
            request_bytes: options.batch_bytes.saturating_mul(2).min(usize_of(most.bytes)),
            came: false,
            is_next_large: false,
            stream_created: stream_created.into(),
            expires: options.pull_expires,
            heartbeat: options.heartbeat,
            last_sign: Instant::now(),
        })
    }

    /// Nothing more will come of what was asked.
    pub(crate) const fn is_spent(&self) -> bool {
        self.owed == 0
    }

    /// Asks for so much that the events of two batches are here or on their way, once less than one's are. Beside
    /// those that wait here, so many events.
    ///
    /// The server lets a request end where its messages have the bytes of two batches, which is much more than they have as a
    /// rule: it costs a round trip. One message that has more comes alone.
    pub(crate) async fn top_up(&mut self, buffered: usize) -> Result<(), String> {
        let here = buffered as f64 + self.owed as f64 * self.events_each;
        if here >= self.batch_events as f64 && self.owed > 0 {
            return Ok(());
        }
        let messages = (2.0 * self.batch_events as f64 - here) / self.events_each;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from a float saturates")]
        let wanted = (messages.ceil() as usize).clamp(1, self.request_max);
        let wanted = if self.has_heard { wanted } else { wanted.min(WANTED_AT_FIRST) };
        let is_large = std::mem::take(&mut self.is_next_large);
        let wanted = if is_large { 1 } else { wanted };
        let mut request = json!({
            "batch": wanted,
            "expires": nanos(self.expires),
            "idle_heartbeat": nanos(self.heartbeat),
        });
        if let Some(request) = request.as_object_mut().filter(|_| !is_large) {
            request.insert("max_bytes".to_owned(), json!(self.request_bytes));
        }
        self.came = false;
        let subject = self.next_subject.clone();
        let client = self.connection.client();
        let sending = client.publish_with_reply(subject, self.inbox_subject.clone(), request.to_string().into());
        match tokio::time::timeout(Duration::from_secs(SEND_SECS), sending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.kind().to_string()),
            Err(_) => return Err("NATS takes no pull requests".to_owned()),
        }
        if self.owed == 0 {
            self.last_sign = Instant::now();
        }
        self.owed += wanted;
        Ok(())
    }

    /// Waits for the next thing, at most until heartbeats are missing.
    pub(crate) async fn hear(&mut self) -> PullSignal {
        // One heartbeat may be late; two and a half are no coincidence.
        let silent_at = self.last_sign + self.heartbeat * 5 / 2;
        tokio::select! {
            biased;
            message = self.inbox.next() => self.read(message),
            () = tokio::time::sleep_until(silent_at) => PullSignal::Over("heartbeats are missing".to_owned()),
        }
    }

    /// Returns what has arrived and waits to be read.
    pub(crate) fn heard_already(&mut self) -> Option<PullSignal> {
        // Without tokio's budget: an exhausted one says that nothing has arrived.
        let message = tokio::task::unconstrained(self.inbox.next()).now_or_never()?;
        Some(self.read(message))
    }

    fn read(&mut self, message: Option<async_nats::Message>) -> PullSignal {
        let Some(message) = message else { return PullSignal::Over("the client is closed".to_owned()) };
        self.last_sign = Instant::now();
        match message.status {
            None | Some(StatusCode::OK) => {
                self.owed = self.owed.saturating_sub(1);
                self.came = true;
                let Some(message) = Message::from_nats(message, &self.stream_created) else { return PullSignal::Sign };
                self.has_heard = true;
                self.events_each += (message.events as f64 - self.events_each) / EVENTS_EACH_OF;
                PullSignal::Message(message)
            }
            Some(StatusCode::IDLE_HEARTBEAT) => PullSignal::Sign,
            // The request ended with so many messages never sent.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                self.forgive(&message);
                PullSignal::Sign
            }
            Some(_) if says(&message, COMPLETED) => PullSignal::Sign,
            Some(_) if says(&message, OVER_BYTES) => {
                self.forgive(&message);
                self.is_next_large = !self.came;
                PullSignal::Sign
            }
            Some(StatusCode::NO_RESPONDERS) => PullSignal::Over("nobody answers for the consumer".to_owned()),
            Some(status) => {
                let words = message.description.unwrap_or_default();
                PullSignal::Over(format!("the server ended it: {words} ({status})"))
            }
        }
    }

    /// Notes how many messages a request that ended never sent: all where it does not say.
    fn forgive(&mut self, status: &async_nats::Message) {
        let unsent = status.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let unsent = unsent.and_then(|count| count.as_str().parse().ok()).unwrap_or(self.owed);
        self.owed = self.owed.saturating_sub(unsent);
    }
}

fn says(status: &async_nats::Message, words: &str) -> bool {
    status.description.as_deref().is_some_and(|said| said.contains(words))
}

fn usize_of(most: Option<u64>) -> usize {
    most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
