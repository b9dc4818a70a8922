//! The one door from the relay to whatever takes events: JetStream, or the ledger in the same process.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

/// One message on its way: a usage event, several of one tenant, or a seal, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The JetStream subject, `usage.v1.<tenant>` or `usage.seal.v1.<source>`.
    pub subject: String,
    /// The `Nats-Msg-Id`: the event's id, or the seal's own; of several events the first one's, `+` and their number.
    pub message_id: String,
    /// The CloudEvent as JSON, or a JSON array of several.
    pub payload: Bytes,
    /// The `traceparent` of the request, for the trace to go on; of several events each says its own.
    pub traceparent: Option<String>,
}

/// The reason a batch has no receipt. Every error is ambiguous: the batch may have arrived, so it is sent again with
/// the same ids.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The receiver is away, slow or full: the same batch, later.
    #[error("the receiver did not confirm the batch: {reason}")]
    Unconfirmed {
        /// The words of the receiver or the transport.
        reason: String,
    },
    /// A message of the batch is larger than the receiver takes: the same batch, in smaller messages.
    #[error("a message is larger than the {bytes_max} bytes that the receiver takes")]
    TooLarge {
        /// The most bytes of a payload.
        bytes_max: usize,
    },
    /// The receiver lost what it had confirmed: start again from the oldest retained record.
    #[error("the receiver lost what it had confirmed: {reason}")]
    Rewound {
        /// The sign by which the loss showed.
        reason: String,
    },
}

/// The receiver of events, as traces name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver {
    /// The messaging system.
    pub system: &'static str,
    /// The part of it that takes them.
    pub destination: &'static str,
}

impl Receiver {
    /// The ledger, in the process that hands over.
    pub const LEDGER: Self = Self { system: "goldleaves", destination: "ledger" };
}

/// The future that [`Publisher::publish`] returns.
pub type PublishFuture<'a> = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + 'a>>;

/// The most bytes of a [`Publisher::receipt`] that are kept.
pub const RECEIPT_BYTES_MAX: usize = 255;

/// Takes batches and confirms them once they are durable at the receiver.
pub trait Publisher: Send + Sync + 'static {
    /// Resolves to `Ok` only when every message of the batch is durable at the receiver; may be called again with the
    /// same batch, and with what was confirmed before.
    fn publish(&self, batch: Vec<Delivery>) -> PublishFuture<'_>;

    /// The most bytes of a message that holds several events; `None` where each has a message of its own.
    fn packs(&self) -> Option<usize> {
        None
    }

    /// Returns the receiver's name for traces.
    fn receiver(&self) -> Receiver {
        Receiver::LEDGER
    }

    /// Called every few seconds: whether the receiver still has what it confirmed.
    fn verify(&self) -> PublishFuture<'_> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns what the receiver confirmed last, in its own words and in at most [`RECEIPT_BYTES_MAX`]: kept beside the place up to
    /// which everything was confirmed, and given to [`Publisher::recall`] by the next start.
    fn receipt(&self) -> Bytes {
        Bytes::new()
    }

    /// Called once, before anything else: what an earlier process kept of [`Publisher::receipt`]; empty when there was none.
    fn recall(&self, _receipt: &[u8]) {}
}
