//! Publishes batches to the stream and reports them done when JetStream has confirmed every message.
//!
//! The rules, each with a test:
//! - Only a PubAck is a receipt. Every other answer, and silence, is ambiguous: the message is sent again under the same
//!   `Nats-Msg-Id`, so that JetStream or the ledger drops the second one.
//! - At most a window of messages is unanswered at a time. Acks come to an inbox of this publisher's own, so that a message
//!   that is never answered leaves nothing behind in the client.
//! - After any trouble nothing is sent but a probe until the stream has been looked at: it must be the same stream, and
//!   still hold what it confirmed. Then one message goes first, and the window opens as acks come back.
//! - What is larger than server or stream take is named at once, before anything of its batch is sent.
//! - A stream that is gone for good is made again, and the caller is told to start from its oldest record.

mod lane;
mod run;
mod witness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use goldleaves_domain::wire::BATCH_BYTES_MAX;
use goldleaves_domain::{Delivery, PublishError, PublishFuture, Publisher, Receiver};
use tokio::sync::Mutex;

use crate::connection::Connection;
use crate::topology::{RECEIVER, Topology};
use lane::PublishLane;
use witness::Witness;

/// More than the headers of any message take.
const HEADERS_BYTES_MAX: usize = 256;

/// The behaviour of a publisher. The defaults are what production uses; tests shorten the times.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// The most messages that may be unanswered.
    pub window: usize,
    /// After this long without any answer everything unanswered is sent again.
    pub ack_timeout: Duration,
    /// After this long without a single confirmation the caller hears that the batch is unconfirmed.
    pub patience: Duration,
    /// A stream counts as deleted once JetStream has said so for this long.
    pub missing_grace: Duration,
    /// A stream counts as having lost messages once every look has said so for this long.
    pub loss_grace: Duration,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            window: 1_024,
            ack_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(15),
            missing_grace: Duration::from_secs(30),
            loss_grace: Duration::from_secs(10),
        }
    }
}

/// The counts of a publisher since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublisherStats {
    /// Messages confirmed, repeats included.
    pub confirmed: u64,
    /// The part of these that JetStream already had.
    pub duplicates: u64,
    /// Sendings that were refused or never answered, after which the message is sent again.
    pub without_receipt: u64,
    /// Times that sending stopped because of trouble.
    pub troubles: u64,
    /// Times that the stream had lost what it confirmed.
    pub rewinds: u64,
}

#[derive(Debug, Default)]
struct PublisherCounters {
    confirmed: AtomicU64,
    duplicates: AtomicU64,
    without_receipt: AtomicU64,
    troubles: AtomicU64,
}

/// The relay's last hop in the distributed deployment.
#[derive(Debug)]
pub struct StreamPublisher {
    connection: Connection,
    options: PublisherOptions,
    counters: PublisherCounters,
    witness: Witness,
    lane: Mutex<PublishLane>,
}

impl StreamPublisher {
    /// A publisher over `connection`; makes `topology` again when it was deleted.
    pub fn new(connection: Connection, topology: Topology, options: PublisherOptions) -> Self {
        let witness = Witness::new(topology, &options);
        Self {
            connection,
            options,
            counters: PublisherCounters::default(),
            witness,
            lane: Mutex::new(PublishLane::default()),
        }
    }

    /// Returns what it has done so far.
    pub fn stats(&self) -> PublisherStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PublisherStats {
            confirmed: read(&self.counters.confirmed),
            duplicates: read(&self.counters.duplicates),
            without_receipt: read(&self.counters.without_receipt),
            troubles: read(&self.counters.troubles),
            rewinds: self.witness.rewinds(),
        }
    }

    /// The connection it uses.
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The most bytes of a payload that server and stream take.
    fn payload_bytes_max(&self) -> usize {
        let of_stream = self.witness.message_bytes_max().and_then(|most| usize::try_from(most).ok());
        let most = self.connection.client().max_payload().min(of_stream.unwrap_or(usize::MAX));
        most.saturating_sub(HEADERS_BYTES_MAX)
    }

    async fn publish_batch(&self, batch: Vec<Delivery>) -> Result<(), PublishError> {
        self.lane.lock().await.publish(self, batch).await
    }

    async fn look(&self) -> Result<(), PublishError> {
        self.witness.look(&self.connection).await
    }
}

impl Publisher for StreamPublisher {
    fn publish(&self, batch: Vec<Delivery>) -> PublishFuture<'_> {
        Box::pin(self.publish_batch(batch))
    }

    fn packs(&self) -> Option<usize> {
        Some(self.payload_bytes_max().min(BATCH_BYTES_MAX))
    }

    fn receiver(&self) -> Receiver {
        RECEIVER
    }

    fn verify(&self) -> PublishFuture<'_> {
        Box::pin(self.look())
    }

    fn receipt(&self) -> Bytes {
        self.witness.receipt()
    }

    fn recall(&self, receipt: &[u8]) {
        self.witness.recall(receipt);
    }
}
