//! A pulled batch: bytes, and what the server says of their delivery.

use std::sync::Arc;

use async_nats::Subject;
use bytes::Bytes;
use goldleaves_domain::{Timestamp, wire};

/// One message of the stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// The CloudEvent as it was published, or several as a JSON array.
    pub payload: Bytes,
    /// The number of events it has, or may have at the most: it is not read for that.
    pub events: usize,
    /// The trace of an event alone.
    pub traceparent: Option<String>,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The number of times it has been delivered, this time included.
    pub delivered: u64,
    /// When the stream stored it.
    pub stored: Timestamp,
    /// The number of messages of the stream that its consumer had not delivered yet.
    pub pending: u64,
    /// Counts what its consumer delivered: without redelivery a gap is a message that was lost on its way.
    pub(crate) place: u64,
    /// When the stream was made that it comes from, in its own words: one of the same name may have taken its place.
    pub stream_created: Arc<str>,
    reply: Subject,
}

impl Message {
    /// `None`: not a message of a JetStream consumer.
    pub(crate) fn from_nats(message: async_nats::Message, stream_created: &Arc<str>) -> Option<Self> {
        let reply = message.reply?;
        let Delivered { deliveries: delivered, sequence, place, stored, pending } = Delivered::of(&reply)?;
        let header = |name| message.headers.as_ref().and_then(|headers| headers.get(name));
        let (trace, id) = (header("traceparent"), header("Nats-Msg-Id"));
        let several = || id.map_or(wire::BATCH_EVENTS_MAX, |id| wire::events_by_id(id.as_str()));
        Some(Self {
            events: if wire::is_batch(&message.payload) { several() } else { 1 },
            traceparent: trace.map(|trace| trace.as_str().to_owned()),
            payload: message.payload,
            sequence,
            delivered,
            stored,
            pending,
            place,
            stream_created: Arc::clone(stream_created),
            reply,
        })
    }

    pub(super) const fn reply(&self) -> &Subject {
        &self.reply
    }
}

/// Messages that are recorded and acknowledged together.
#[derive(Debug)]
pub struct Batch {
    messages: Vec<Message>,
}

impl Batch {
    pub(super) const fn new(messages: Vec<Message>) -> Self {
        Self { messages }
    }

    /// The messages, in the order they were delivered.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }
}

/// The subject that acknowledges, in parts: `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer
/// sequence>.<time in nanoseconds>.<pending>`, in newer servers with domain and account before the stream.
#[derive(Debug, PartialEq, Eq)]
struct Delivered {
    deliveries: u64,
    sequence: u64,
    place: u64,
    stored: Timestamp,
    pending: u64,
}

impl Delivered {
    fn of(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.split('.').collect();
        if !reply.starts_with("$JS.ACK.") {
            return None;
        }
        let first = match tokens.len() {
            9 => 4,
            11.. => 6,
            _ => return None,
        };
        let number = |index: usize| tokens.get(first + index)?.parse::<u64>().ok();
        let micros = i64::try_from(number(3)? / 1_000).ok()?;
        Some(Self {
            deliveries: number(0)?,
            sequence: number(1)?,
            place: number(2)?,
            stored: Timestamp::from_unix_micros(micros).ok()?,
            pending: number(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_ack_subject_are_read() {
        let stored = "2023-11-14T22:13:20.000001Z".parse().unwrap();
        let delivered =
            |deliveries, sequence, place, pending| Some(Delivered { deliveries, sequence, place, stored, pending });
        let old = "$JS.ACK.USAGE.meter.3.1024.7.1700000000000001999.12";
        assert_eq!(Delivered::of(old), delivered(3, 1024, 7, 12));
        let new = "$JS.ACK._.HASH.USAGE.meter.2.55.9.1700000000000001000.0.RND";
        assert_eq!(Delivered::of(new), delivered(2, 55, 9, 0));
        for wrong in ["", "$JS.ACK.USAGE.meter", "$JS.ACK.USAGE.meter.x.1.1.1.1", "_INBOX.a.b.c.d.e.f.g.h"] {
            assert_eq!(Delivered::of(wrong), None, "{wrong}");
        }
    }
}
