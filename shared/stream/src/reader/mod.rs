//! Reads a part of the stream again, in its order and each message once, without taking anything from the workers.
//!
//! It pulls through a consumer of its own, which the server forgets by itself, acknowledges nothing, and lives in memory. After
//! any trouble another one takes its place, from the first message that was not handed over.

mod span;

use std::time::Duration;

use goldleaves_runtime::Backoff;
use serde_json::{Value, json};
use tokio::time::Instant;

pub use span::{Mark, Position, PositionError, Span};

use crate::api::{Api, ApiError};
use crate::connection::Connection;
use crate::consumer::pull::{Pull, PullSignal};
use crate::consumer::{Buffer, ConsumerOptions, Message};
use crate::topology::{RequestMax, STREAM};

/// The time for which the server keeps the consumer of a reader that is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The reason a part of the stream can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// JetStream has no such stream.
    #[error("there is no stream {STREAM} on this NATS server; migrate makes it")]
    NoStream,
    /// The stream holds nothing.
    #[error("the stream {STREAM} holds nothing; its next message will be sequence {next}")]
    Empty {
        /// The sequence of the next message.
        next: u64,
    },
    /// The messages that were asked for are gone.
    #[error("{asked} is no longer in the stream {STREAM}, which begins with {first}")]
    Expired {
        /// The position that was asked for.
        asked: Position,
        /// The first message there still is.
        first: Mark,
    },
    /// The messages that were asked for were never there.
    #[error("{asked} is not yet in the stream {STREAM}, which ends with {last}")]
    Beyond {
        /// The position that was asked for.
        asked: Position,
        /// The last message there is.
        last: Mark,
    },
    /// The end lies before the start.
    #[error("nothing lies between {from} and {to}: the end comes before the start")]
    Reversed {
        /// The start.
        from: Position,
        /// The end.
        to: Position,
    },
    /// Another stream took the place of the one that was looked at, or its messages expired meanwhile.
    #[error("the stream {STREAM} changed while it was looked at")]
    Changed,
    /// JetStream refuses a consumer.
    #[error("JetStream makes no consumer to read the stream {STREAM} with")]
    Refused(#[source] ApiError),
    /// JetStream can't be asked for so long that it is given up.
    #[error("the stream {STREAM} can't be read")]
    Unavailable(#[source] ApiError),
}

impl ReadError {
    fn of(error: ApiError) -> Self {
        match error {
            ApiError::Refused { .. } => Self::Refused(error),
            ApiError::Unavailable { .. } | ApiError::Unreadable(_) => Self::Unavailable(error),
        }
    }
}

/// The behaviour of a reader.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// The events that are handed over together, in whole messages.
    pub batch_events: usize,
    /// The time for which JetStream may be away before the reader gives up.
    pub patience: Duration,
    /// True where the login may delete a consumer; else the server forgets the reader's by itself, a minute later.
    pub may_delete: bool,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { batch_events: 4_000, patience: Duration::from_secs(60), may_delete: true }
    }
}

/// Reads one span of the stream.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    options: ReaderOptions,
    span: Span,
    /// The sequence from which on nothing was read yet.
    next: u64,
    /// Read, and not yet handed over.
    buffer: Buffer,
    source: Option<ReaderSource>,
    backoff: Backoff,
}

/// A consumer of its own, and the pull from it.
#[derive(Debug)]
struct ReaderSource {
    name: String,
    pull: Pull,
    /// The number of its messages that were read.
    places: u64,
}

impl Reader {
    /// Finds the span. `from` and `to` belong to it, but for a time as `to`: what was stored before it does. Without `to` the
    /// span ends with what is the last message now. `None`: nothing lies in it.
    ///
    /// # Errors
    /// No such stream, no such place in it, or JetStream away.
    pub async fn open(
        connection: &Connection,
        from: Position,
        to: Option<Position>,
        options: ReaderOptions,
    ) -> Result<Option<Self>, ReadError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let deadline = Instant::now() + options.patience;
        let span = loop {
            match Span::find(&connection.api(), from, to).await {
                Err(ReadError::Unavailable(error)) if Instant::now() < deadline => {
                    tracing::debug!(%error, "the stream can't be looked at yet");
                    tokio::time::sleep(backoff.pause()).await;
                }
                found => break found.map_err(|error| explained(connection, error))?,
            }
        };
        backoff.reset();
        let reader = |span: Span| Self {
            connection: connection.clone(),
            options,
            next: span.first,
            buffer: Buffer::default(),
            span,
            source: None,
            backoff,
        };
        Ok(span.map(reader))
    }

    /// Returns what is read.
    pub const fn span(&self) -> Span {
        self.span
    }

    /// The next messages; `None` after the last. May be dropped before it is done: nothing is lost.
    ///
    /// # Errors
    /// JetStream is away for longer than the reader waits, or makes no consumer.
    pub async fn next(&mut self) -> Result<Option<Vec<Message>>, ReadError> {
        let mut deadline = Instant::now() + self.options.patience;
        let bounds = self.bounds();
        while self.next <= self.span.last && !self.buffer.is_full(&bounds) {
            match self.step().await {
                Ok(ReaderStep::Message(message)) => {
                    deadline = Instant::now() + self.options.patience;
                    self.take(message);
                }
                Ok(ReaderStep::Sign) => {}
                Ok(ReaderStep::End) => self.next = self.span.last + 1,
                Err(ReadError::Unavailable(error)) if Instant::now() < deadline => {
                    tracing::debug!(%error, "the stream can't be read now, trying again");
                    self.source = None;
                    tokio::time::sleep(self.backoff.pause()).await;
                }
                Err(error) => return Err(explained(&self.connection, error)),
            }
        }
        if self.next > self.span.last {
            self.end().await;
        }
        let batch = self.buffer.take(&bounds);
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// The bounds of a batch.
    fn bounds(&self) -> ConsumerOptions {
        ConsumerOptions { batch_events: self.options.batch_events, ..ConsumerOptions::default() }
    }

    async fn step(&mut self) -> Result<ReaderStep, ReadError> {
        match &mut self.source {
            Some(source) => source.step(&self.connection, self.buffer.events).await,
            None => self.begin().await,
        }
    }

    fn take(&mut self, message: Message) {
        self.backoff.reset();
        // Behind it there is nothing, or nothing that is wanted: the rest of the span expired.
        let is_last = message.pending == 0 || message.sequence >= self.span.last;
        self.next = if is_last { self.span.last + 1 } else { message.sequence + 1 };
        if message.sequence <= self.span.last {
            self.buffer.push(message);
        }
    }

    /// Makes a consumer of what is not read yet.
    async fn begin(&mut self) -> Result<ReaderStep, ReadError> {
        let name = format!("replay-{:016x}", rand::random::<u64>());
        let request = json!({ "stream_name": STREAM, "action": "create", "config": declaration(&name, self.next) });
        let api = self.connection.api();
        let made: Value =
            api.ask(&format!("CONSUMER.CREATE.{STREAM}.{name}"), &request).await.map_err(ReadError::of)?;
        let pull = Pull::open(&self.connection, "", &name, &self.bounds(), RequestMax::default()).await;
        let pull = pull.map_err(|reason| ReadError::Unavailable(ApiError::unavailable(reason)))?;
        self.source = Some(ReaderSource { name, pull, places: 0 });
        let is_over = made.get("num_pending").and_then(Value::as_u64) == Some(0);
        Ok(if is_over { ReaderStep::End } else { ReaderStep::Sign })
    }

    /// The server would forget the consumer by itself, a minute later.
    async fn end(&mut self) {
        if let Some(source) = self.source.take().filter(|_| self.options.may_delete) {
            let _: Result<Value, _> = forget(&self.connection.api(), &source.name).await;
        }
    }
}

async fn forget(api: &Api, name: &str) -> Result<Value, ApiError> {
    api.ask(&format!("CONSUMER.DELETE.{STREAM}.{name}"), &Value::Null).await
}

/// The result of one look at the source.
#[derive(Debug)]
enum ReaderStep {
    Message(Message),
    Sign,
    End,
}

impl ReaderSource {
    async fn step(&mut self, connection: &Connection, buffered: usize) -> Result<ReaderStep, ReadError> {
        let away = |reason: String| ReadError::Unavailable(ApiError::unavailable(reason));
        self.pull.top_up(buffered).await.map_err(away)?;
        let heard = tokio::select! {
            biased;
            heard = self.pull.hear() => heard,
            () = connection.disconnected() => PullSignal::Over("the connection is lost".to_owned()),
        };
        match heard {
            PullSignal::Message(message) if message.place == self.places + 1 => {
                self.places += 1;
                Ok(ReaderStep::Message(message))
            }
            PullSignal::Message(_) => Err(away("messages were lost on their way".to_owned())),
            PullSignal::Sign => Ok(ReaderStep::Sign),
            PullSignal::Over(reason) => Err(away(reason)),
        }
    }
}

/// The server tells of a missing permission beside the request, which then has no answer.
fn explained(connection: &Connection, error: ReadError) -> ReadError {
    match (error, connection.complaint()) {
        (ReadError::Unavailable(ApiError::Unavailable { reason }), Some(complaint)) => {
            ReadError::Unavailable(ApiError::unavailable(format!("{reason}; NATS says: {complaint}")))
        }
        (error, _) => error,
    }
}

fn declaration(name: &str, first: u64) -> Value {
    json!({
        "name": name,
        "description": "Goldleaves: reads a part of the stream again",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": first,
        "replay_policy": "instant",
        "ack_policy": "none",
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": u64::try_from(FORGOTTEN_AFTER.as_nanos()).unwrap_or(u64::MAX),
    })
}
