//! Pulls batches from the durable consumer `meter` and acknowledges them when the caller says so.
//!
//! A batch is handed over when it is full or when its first message has waited long enough; it never waits for a pull to
//! expire. Pulls carry a heartbeat, so that a consumer that is gone, moved or made anew is noticed within seconds. While
//! stream or consumer is missing this waits, says so, and makes neither: that is `migrate`'s and the relay's.

mod batch;
mod buffer;
pub(crate) mod pull;

use std::time::Duration;

use goldleaves_runtime::Backoff;
use tokio::sync::watch;
use tokio::time::Instant;

pub use batch::{Batch, Message};

use crate::connection::Connection;
use crate::topology::{ACK_WAIT, CONSUMER, STREAM, TopologyError, find_consumer, find_stream};
pub(crate) use buffer::Buffer;
use pull::{Pull, PullSignal};

/// The interval at which a consumer that stops looks whether a pull that is over still got something.
const LATE_LOOK: Duration = Duration::from_millis(50);
/// The longest time acknowledgements may take to be queued before the rest is left to redelivery.
const SETTLE_SECS: u64 = 5;

/// The behaviour of a consumer. The defaults are what production uses; tests shorten the times.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// A batch is full with this many events; one message alone may have more.
    pub batch_events: usize,
    /// A batch is full as well with this many bytes of payloads; one message alone may have more.
    pub batch_bytes: usize,
    /// A batch that is not full is handed over this long after its first message.
    pub batch_wait: Duration,
    /// The time for which one pull request lives at the server. Also the longest an idle consumer takes to stop.
    pub pull_expires: Duration,
    /// The interval at which the server says that a pull request lives; at most half of `pull_expires`.
    pub heartbeat: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            batch_events: 4_000,
            batch_bytes: 4 << 20,
            batch_wait: Duration::from_millis(50),
            pull_expires: Duration::from_secs(2),
            heartbeat: Duration::from_secs(1),
        }
    }
}

/// Says whether a consumer gets what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerState {
    /// Pulling.
    Ready,
    /// Not pulling, with the reason: not connected, no stream, no consumer, an incompatible one.
    Waiting(String),
}

/// The outcome of [`Consumer::next`].
#[derive(Debug)]
pub enum Next {
    /// Messages to record and acknowledge.
    Batch(Batch),
    /// Stopped, and nothing handed out by the server is left here.
    Stopped,
}

/// The distance by which the consumer is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Messages never delivered yet.
    pub pending: u64,
    /// Messages delivered and not acknowledged.
    pub ack_pending: u64,
    /// The part of these that was delivered more than once.
    pub redelivered: u64,
    /// Pull requests that wait for a message.
    pub waiting: u64,
    /// The most messages that may be delivered and not acknowledged; `None`: no limit.
    pub ack_pending_max: Option<u64>,
}

/// Tells a consumer to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// No more pulls; what was handed out already still comes, then [`Next::Stopped`].
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// One worker's end of the durable consumer.
#[derive(Debug)]
pub struct Consumer {
    connection: Connection,
    options: ConsumerOptions,
    pull: Option<Pull>,
    /// Pulls that ended in trouble: the server may have sent to them what has not arrived yet, and would not send it again
    /// before [`ACK_WAIT`]. Each is read until nothing can come any more.
    parting: Vec<(Pull, Instant)>,
    /// Handed out by the server, not yet by this.
    buffer: Buffer,
    backoff: Backoff,
    ack_wait: Duration,
    hold_at: Instant,
    state: watch::Sender<ConsumerState>,
    stop: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
}

impl Consumer {
    /// A consumer over `connection`. Nothing is asked of the server yet.
    pub fn new(connection: Connection, options: ConsumerOptions) -> Self {
        let (state, _) = watch::channel(ConsumerState::Waiting("not started".to_owned()));
        let (stop, stopping) = watch::channel(false);
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let (pull, parting, buffer) = (None, Vec::new(), Buffer::default());
        let (ack_wait, hold_at) = (ACK_WAIT, Instant::now());
        Self { connection, options, pull, parting, buffer, backoff, ack_wait, hold_at, state, stop, stopping }
    }

    /// Follows whether it is ready.
    pub fn state(&self) -> watch::Receiver<ConsumerState> {
        self.state.subscribe()
    }

    /// Stops it from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.stop.clone())
    }

    /// The next batch. May be dropped before it is done: nothing is lost.
    pub async fn next(&mut self) -> Next {
        let mut deadline = None;
        loop {
            self.read_late();
            let full = self.buffer.is_full(&self.options);
            let due = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if full || (due && !self.buffer.is_empty()) {
                return self.hand_over();
            }
            if self.pull.is_none() && !self.open().await {
                if !self.buffer.is_empty() {
                    return self.hand_over();
                }
                if self.parting.is_empty() {
                    return Next::Stopped;
                }
                tokio::time::sleep(LATE_LOOK).await;
                continue;
            }
            if deadline.is_none() && !self.buffer.is_empty() {
                deadline = Some(Instant::now() + self.options.batch_wait);
            }
            self.step(deadline).await;
        }
    }

    /// Opens a pull, waiting for stream and consumer. `false`: told to stop.
    async fn open(&mut self) -> bool {
        while !*self.stopping.borrow() {
            match self.try_open().await {
                Ok((pull, ack_wait)) => {
                    self.pull = Some(pull);
                    self.ack_wait = ack_wait.unwrap_or(ACK_WAIT);
                    self.state.send_if_modified(|state| replace(state, ConsumerState::Ready));
                    return true;
                }
                Err(reason) => {
                    tracing::debug!(reason, "the consumer waits");
                    self.state.send_if_modified(|state| replace(state, ConsumerState::Waiting(reason)));
                }
            }
            if !self.buffer.is_empty() {
                return false;
            }
            let delay = self.backoff.pause();
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
        false
    }

    async fn try_open(&self) -> Result<(Pull, Option<Duration>), String> {
        if !self.connection.is_connected() {
            let complaint = self.connection.complaint().map(|text| format!(": {text}")).unwrap_or_default();
            return Err(format!("not connected to NATS{complaint}"));
        }
        let found = match find_consumer(&self.connection.api()).await {
            Ok(Some(found)) => found,
            Ok(None) => return Err(format!("there is no consumer {CONSUMER} on a stream {STREAM}")),
            Err(TopologyError::Unavailable(source)) => return Err(source.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let mismatches = found.mismatches();
        if !mismatches.is_empty() {
            return Err(TopologyError::Incompatible { mismatches }.to_string());
        }
        let stream = find_stream(&self.connection.api()).await.map_err(|error| error.to_string())?;
        let created = stream.ok_or_else(|| format!("there is no stream {STREAM}"))?.created;
        let pull = Pull::open(&self.connection, &created, CONSUMER, &self.options, found.request_max()).await?;
        Ok((pull, found.ack_wait()))
    }

    /// Asks for more where there is room, then takes what comes first: a message, trouble, the deadline or the stop.
    async fn step(&mut self, deadline: Option<Instant>) {
        let Some(pull) = &mut self.pull else { return };
        let stopping = *self.stopping.borrow();
        if stopping && pull.is_spent() {
            self.pull = None;
            return;
        }
        if !stopping && let Err(reason) = pull.top_up(self.buffer.events).await {
            return self.close(&reason);
        }
        let mut stop = self.stopping.clone();
        let heard = tokio::select! {
            biased;
            heard = pull.hear() => heard,
            () = sleep_until(deadline) => return,
            () = self.connection.disconnected() => PullSignal::Over("the connection is lost".to_owned()),
            _ = stop.wait_for(|stop| *stop), if !stopping => return,
        };
        match heard {
            PullSignal::Message(message) => {
                self.backoff.reset();
                self.buffer.push(message);
            }
            PullSignal::Sign => self.backoff.reset(),
            PullSignal::Over(reason) => self.close(&reason),
        }
    }

    fn close(&mut self, reason: &str) {
        tracing::info!(reason, "the pull from the stream ended, opening another one");
        if let Some(pull) = self.pull.take().filter(|pull| !pull.is_spent()) {
            // Its requests are dead at the server by then, and a heartbeat's time is enough for what was on its way.
            self.parting.push((pull, Instant::now() + self.options.pull_expires + self.options.heartbeat));
        }
    }

    fn hand_over(&mut self) -> Next {
        let now = Instant::now();
        if self.hold_at <= now {
            self.hold_at = now + self.ack_wait / 3;
        }
        Next::Batch(Batch::new(self.buffer.take(&self.options)))
    }

    /// Acknowledges what is committed, or set aside for good (`+TERM`). Plain: whoever needs proof has it in
    /// the database. What can't be sent is left to redelivery.
    pub async fn settle(&self, batch: &Batch, is_set_aside: impl Fn(usize) -> bool + Send) {
        let messages = batch.messages().iter().enumerate();
        self.say(messages.map(|(index, message)| (message, if is_set_aside(index) { "+TERM" } else { "+ACK" }))).await;
    }

    /// When [`Consumer::hold`] is to be called next, if a batch is worked on then. It does not move with every batch and
    /// every try: what is handed over in between may have lain here since the last time.
    pub const fn hold_at(&self) -> Instant {
        self.hold_at
    }

    /// Keeps the server from delivering again what is still being worked on, here and in the buffer.
    pub async fn hold(&mut self, batch: &Batch) {
        self.hold_at = Instant::now() + self.ack_wait / 3;
        self.read_what_came();
        self.say(batch.messages().iter().chain(&self.buffer.messages).map(|message| (message, "+WPI"))).await;
    }

    /// Gives a batch that can't be recorded now, and all that came behind it, to whichever worker asks first. The last
    /// thing a worker says before it ends.
    pub async fn hand_back(&mut self, batch: &Batch) {
        self.read_what_came();
        self.pull = None;
        self.parting.clear();
        self.say(batch.messages().iter().chain(&self.buffer.messages).map(|message| (message, "-NAK"))).await;
        self.buffer = Buffer::default();
    }

    /// Moves what has arrived into the buffer.
    fn read_what_came(&mut self) {
        self.read_late();
        let Some(pull) = &mut self.pull else { return };
        while let Some(heard) = pull.heard_already() {
            match heard {
                PullSignal::Message(message) => self.buffer.push(message),
                PullSignal::Sign => {}
                PullSignal::Over(reason) => return self.close(&reason),
            }
        }
    }

    /// Moves what has arrived for pulls that are over into the buffer, and forgets those to which nothing comes any more.
    fn read_late(&mut self) {
        let (now, buffer) = (Instant::now(), &mut self.buffer);
        self.parting.retain_mut(|(pull, until)| {
            while let Some(heard) = pull.heard_already() {
                match heard {
                    PullSignal::Message(message) => buffer.push(message),
                    PullSignal::Sign => {}
                    PullSignal::Over(_) => break,
                }
            }
            now < *until
        });
    }

    async fn say<'a>(&self, words: impl Iterator<Item = (&'a Message, &'static str)>) {
        // While disconnected the client would queue words whose messages are delivered again anyway.
        if !self.connection.is_connected() {
            return;
        }
        let saying = async {
            for (message, word) in words {
                if self.connection.client().publish(message.reply().clone(), word.into()).await.is_err() {
                    break;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(SETTLE_SECS), saying).await.is_err() {
            tracing::warn!("NATS takes no acknowledgements; the messages will be delivered again");
        }
    }
}

impl Lag {
    /// Returns whether workers wait for messages because others hold as many as the consumer allows: then it has to allow more.
    pub fn starves_workers(&self) -> bool {
        let held = self.ack_pending.saturating_mul(10);
        self.waiting > 0 && self.pending > 0 && self.ack_pending_max.is_some_and(|most| held >= most.saturating_mul(9))
    }

    /// Asks the server. `None`: there is no consumer.
    ///
    /// # Errors
    /// JetStream can't be asked now.
    pub async fn read(connection: &Connection) -> Result<Option<Self>, TopologyError> {
        let found = find_consumer(&connection.api()).await?;
        Ok(found.map(|found| Self {
            pending: found.num_pending,
            ack_pending: found.num_ack_pending,
            redelivered: found.num_redelivered,
            waiting: found.num_waiting,
            ack_pending_max: found.ack_pending_max(),
        }))
    }
}

fn replace(state: &mut ConsumerState, with: ConsumerState) -> bool {
    let changed = *state != with;
    *state = with;
    changed
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
