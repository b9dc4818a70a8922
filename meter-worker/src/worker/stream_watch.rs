//! Looks after stream and consumer: shows how they are, lets history that the ledger has make room, and makes a deleted
//! consumer again.
//!
//! - A number that is not known has no sample: a zero would say that all is well.
//! - Only what `ledger_progress` confirms is purged, oldest first; what is not recorded never goes, however full the stream.
//! - Every worker does all of this. Purging twice up to one place purges once, and a consumer is made once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use goldleaves_ledger::{Ledger, Sequences, StreamCourse};
use goldleaves_runtime::process::chain;
use goldleaves_runtime::{KnownGauge, Metrics, Quiet};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::Instant;

use super::lineage;
use super::{Connection, Existence, Lag, STREAM, StreamRoom, Topology, TopologyError};

/// The least time between two log lines about what stays as it is.
const QUIET: Duration = Duration::from_secs(300);

/// More than this many messages on their way would be no help to anybody: three batches for each of 300 workers.
const ACK_PENDING_MAX: u64 = 1_000_000;

/// The interval at which what is done by itself is done.
#[derive(Debug, Clone, Copy)]
pub struct WatchPace {
    /// Between two looks.
    pub look: Duration,
    /// Between two looks while history has to make room.
    pub look_crowded: Duration,
    /// A consumer counts as deleted once JetStream has said so for this long.
    pub missing_grace: Duration,
}

impl Default for WatchPace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(5),
            look_crowded: Duration::from_secs(1),
            missing_grace: Duration::from_secs(30),
        }
    }
}

/// Looks after the stream of one ledger.
#[derive(Debug)]
pub struct StreamWatch {
    connection: Connection,
    ledger: Ledger,
    metrics: StreamMetrics,
    pace: WatchPace,
    missing: Missing,
    /// Limits the lines about what stays as it is.
    lines: Quiet,
}

impl StreamWatch {
    /// Over `connection`, for what `ledger` has.
    pub fn new(connection: Connection, ledger: Ledger, metrics: StreamMetrics) -> Self {
        Self {
            connection,
            ledger,
            metrics,
            pace: WatchPace::default(),
            missing: Missing::default(),
            lines: Quiet::new(QUIET),
        }
    }

    /// Another pace, for tests.
    #[must_use]
    pub fn at_pace(self, pace: WatchPace) -> Self {
        Self { pace, ..self }
    }

    /// Until it is dropped. Ends only when stream and consumer can't be used.
    ///
    /// # Errors
    /// An incompatible stream or consumer.
    pub async fn run(mut self) -> Result<(), TopologyError> {
        let mut checked = false;
        loop {
            if !checked {
                match Topology::check(&self.connection).await {
                    Ok(present) => checked = present.stream && present.consumer,
                    Err(error) if error.is_transient() => {}
                    Err(error) => return Err(error),
                }
            }
            let lag = Lag::read(&self.connection).await.ok();
            self.metrics.consumer(lag);
            let room = StreamRoom::read(&self.connection).await.ok().flatten();
            self.metrics.room(room.as_ref());
            if let Some(lag) = lag.flatten() {
                self.feed_all(lag).await;
            }
            let mut pause = self.pace.look;
            if let Some(room) = &room {
                self.mind_consumer(lag.map(|lag| lag.is_some()), room).await;
                if self.make_room(room).await {
                    pause = self.pace.look_crowded;
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Up to where everything that the stream holds is recorded; the sequence before its first one where that is not.
    async fn reached(&self, room: &StreamRoom) -> Result<u64> {
        let course = StreamCourse { stream: STREAM.to_owned(), created: room.created.clone() };
        let held = Sequences { first: room.first_sequence, last: room.last_sequence };
        if !lineage::lost(&self.connection, &self.ledger, &course, held).await?.is_empty() {
            bail!("the ledger has messages that the stream lost");
        }
        let reached = self.ledger.progress(&course, room.first_sequence).await?;
        Ok(reached.unwrap_or_else(|| room.first_sequence.saturating_sub(1)))
    }

    /// Makes a deleted consumer again, from where the ledger is. `is_there`: `None` = nobody knows.
    async fn mind_consumer(&mut self, is_there: Option<bool>, room: &StreamRoom) {
        let missing_for = self.missing.heard(is_there, Instant::now());
        if missing_for.is_none_or(|long| long < self.pace.missing_grace) {
            return;
        }
        let made = match self.reached(room).await {
            Ok(reached) => Topology::make_consumer(&self.connection, reached + 1)
                .await
                .map(|existence| (existence, reached + 1))
                .map_err(|cause| chain(&cause)),
            Err(cause) => Err(chain(cause.as_ref())),
        };
        match made {
            Ok((Existence::Created, from)) => {
                self.missing = Missing::default();
                self.metrics.consumers_made.inc();
                tracing::warn!(
                    from,
                    "the consumer of the workers was gone and has been made again, from where the ledger is"
                );
            }
            Ok((Existence::Found, _)) => self.missing = Missing::default(),
            Err(cause) if self.may_speak() => {
                let complaint = self.connection.complaint();
                tracing::error!(cause, complaint, "the consumer of the workers is gone and can't be made again yet");
            }
            Err(_) => {}
        }
    }

    /// Lets more messages be on their way where workers wait because others hold all there may be.
    async fn feed_all(&mut self, lag: Lag) {
        let Some(most) = lag.ack_pending_max.filter(|most| lag.starves_workers() && *most < ACK_PENDING_MAX) else {
            return;
        };
        let wanted = most.saturating_mul(2).min(ACK_PENDING_MAX);
        match Topology::raise_ack_pending(&self.connection, wanted).await {
            Ok(()) => tracing::info!(
                most,
                wanted,
                "workers wait while others hold as many messages as the consumer allows: max_ack_pending is raised"
            ),
            Err(error) => tracing::debug!(%error, "max_ack_pending can't be raised yet"),
        }
    }

    /// Purges history where it fills the stream. Whether it has to be looked again soon.
    async fn make_room(&mut self, room: &StreamRoom) -> bool {
        let Some(excess) = room.excess_before() else { return false };
        let reached = match self.reached(room).await {
            Ok(reached) => reached,
            Err(cause) => {
                let cause = chain(cause.as_ref());
                tracing::debug!(cause, "the stream is filling, and the ledger can't be asked what may go");
                return true;
            }
        };
        let before = excess.min(reached + 1);
        let (bytes, bytes_max) = (room.bytes, room.bytes_max);
        if before <= room.first_sequence {
            if self.may_speak() {
                tracing::warn!(
                    bytes,
                    bytes_max,
                    "the stream is filling with what no ledger has yet: nothing of it goes, gateways wait when it is full"
                );
            }
            return true;
        }
        match StreamRoom::purge(&self.connection, before).await {
            Ok(purged) => {
                self.metrics.purged.inc_by(purged);
                tracing::info!(purged, before, bytes, bytes_max, "history that the ledger has made room in the stream");
            }
            Err(error) if self.may_speak() => {
                let complaint = self.connection.complaint();
                tracing::error!(
                    %error, complaint,
                    "history fills the stream and can't be purged: the login needs $JS.API.STREAM.PURGE.USAGE, and a stream \
                     that was made with deny_purge has to be made anew"
                );
            }
            Err(_) => {}
        }
        true
    }

    fn may_speak(&mut self) -> bool {
        self.lines.may_speak(Instant::now().into_std())
    }
}

/// The time since when JetStream says that there is no consumer.
#[derive(Debug, Default)]
struct Missing {
    since: Option<Instant>,
}

impl Missing {
    /// Returns how long it has been missing by this answer. One that did not come says nothing, least of all against those before
    /// it: where every other one is late, a consumer would stay away.
    fn heard(&mut self, is_there: Option<bool>, now: Instant) -> Option<Duration> {
        if is_there == Some(true) {
            self.since = None;
        }
        (is_there == Some(false)).then(|| now.saturating_duration_since(*self.since.get_or_insert(now)))
    }
}

/// The numbers of stream and consumer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    pending: KnownGauge<u64>,
    unacknowledged: KnownGauge<u64>,
    redelivered: KnownGauge<u64>,
    consumer_present: KnownGauge<u64>,
    bytes: KnownGauge<u64>,
    bytes_max: KnownGauge<u64>,
    messages: KnownGauge<u64>,
    oldest_age: KnownGauge<f64>,
    age_max: KnownGauge<f64>,
    purged: Counter,
    consumers_made: Counter,
    full: watch::Sender<Option<String>>,
}

impl StreamMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        let count = |name, help| metrics.register(name, help, KnownGauge::<u64>::default());
        let counter = |name, help| metrics.register(name, help, Counter::default());
        let seconds = |name, help| metrics.register(name, help, KnownGauge::<f64>::default());
        Self {
            pending: count("stream_pending_messages", "Messages that no worker was handed yet"),
            unacknowledged: count("stream_unacknowledged_messages", "Messages handed to a worker and not acknowledged"),
            redelivered: count("stream_redelivered_messages", "Of the unacknowledged, those handed out more than once"),
            consumer_present: count("consumer_present", "Whether JetStream has the workers' consumer: 1 or 0"),
            bytes: count("stream_bytes", "Bytes the stream holds"),
            bytes_max: count("stream_bytes_max", "Bytes the stream may hold; above 80 % history gives way"),
            messages: count("stream_messages", "Messages the stream holds"),
            oldest_age: seconds("stream_oldest_age_seconds", "Age of the oldest message of the stream, 0 for none"),
            age_max: seconds("stream_age_max_seconds", "How long the stream keeps a message at the most"),
            purged: counter("stream_purged_messages", "Messages the ledger has, purged to make room in the stream"),
            consumers_made: counter("consumers_made", "Times the workers' consumer was gone and made again"),
            full: watch::channel(None).0,
        }
    }

    /// Follows whether the stream is full, in words.
    pub(crate) fn fullness(&self) -> watch::Receiver<Option<String>> {
        self.full.subscribe()
    }

    /// The outer `None`: nobody knows; the inner one: there is no consumer.
    fn consumer(&self, lag: Option<Option<Lag>>) {
        self.consumer_present.set(lag.map(|lag| u64::from(lag.is_some())));
        let lag = lag.flatten();
        self.pending.set(lag.map(|lag| lag.pending));
        self.unacknowledged.set(lag.map(|lag| lag.ack_pending));
        self.redelivered.set(lag.map(|lag| lag.redelivered));
    }

    fn room(&self, room: Option<&StreamRoom>) {
        self.bytes.set(room.map(|room| room.bytes));
        self.bytes_max.set(room.and_then(|room| room.bytes_max));
        self.messages.set(room.map(|room| room.messages));
        self.age_max.set(room.and_then(|room| room.age_max).map(|age| age.as_secs_f64()));
        let age =
            |room: &StreamRoom| room.oldest.map_or(0.0, |oldest| (now_micros() - oldest.unix_micros()) as f64 / 1e6);
        self.oldest_age.set(room.map(age).map(|age| age.max(0.0)));
        let full = room.filter(|room| room.is_full()).map(|room| {
            format!("the stream holds {} of {} bytes and takes no more", room.bytes, room.bytes_max.unwrap_or(0))
        });
        self.full.send_if_modified(|known| {
            if let Some(full) = full.as_ref().filter(|_| known.is_none()) {
                tracing::error!(full, "gateways keep their events in their spools until the stream has room");
            }
            let changed = known.is_some() != full.is_some();
            *known = full;
            changed
        });
    }
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_do_not_come_make_a_missing_consumer_no_younger() {
        let (mut missing, start) = (Missing::default(), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        assert_eq!(missing.heard(None, start), None);
        assert_eq!(missing.heard(Some(false), start), Some(Duration::ZERO));
        assert_eq!(missing.heard(None, after(25)), None);
        assert_eq!(missing.heard(Some(false), after(30)), Some(Duration::from_secs(30)));
        assert_eq!(missing.heard(Some(true), after(35)), None);
        assert_eq!(missing.heard(Some(false), after(40)), Some(Duration::ZERO));
    }
}
