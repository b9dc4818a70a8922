//! What was pulled: bytes, and what the server says of their delivery.

use async_nats::Subject;
use bytes::Bytes;

/// One message of the stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// The CloudEvent as it was published.
    pub payload: Bytes,
    /// The trace the event belongs to.
    pub traceparent: Option<String>,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// How often it has been delivered, this time included.
    pub delivered: u64,
    reply: Subject,
}

impl Message {
    /// `None`: not a message of a JetStream consumer.
    pub(super) fn from_nats(message: async_nats::Message) -> Option<Self> {
        let reply = message.reply?;
        let (delivered, sequence) = delivery_of(&reply)?;
        let trace = message.headers.as_ref().and_then(|headers| headers.get("traceparent"));
        Some(Self {
            traceparent: trace.map(|trace| trace.as_str().to_owned()),
            payload: message.payload,
            sequence,
            delivered,
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

/// Deliveries and stream sequence, from the subject that acknowledges: `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream
/// sequence>.<consumer sequence>.<time>.<pending>`, in newer servers with domain and account before the stream.
fn delivery_of(reply: &str) -> Option<(u64, u64)> {
    let tokens: Vec<&str> = reply.split('.').collect();
    if !reply.starts_with("$JS.ACK.") {
        return None;
    }
    let deliveries = match tokens.len() {
        9 => 4,
        11.. => 6,
        _ => return None,
    };
    let number = |index: usize| tokens.get(index)?.parse().ok();
    Some((number(deliveries)?, number(deliveries + 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_ack_subject_are_read() {
        assert_eq!(delivery_of("$JS.ACK.USAGE.meter.3.1024.7.1700000000000000000.12"), Some((3, 1024)));
        assert_eq!(delivery_of("$JS.ACK._.HASH.USAGE.meter.2.55.9.1700000000000000000.0.RND"), Some((2, 55)));
        for wrong in ["", "$JS.ACK.USAGE.meter", "$JS.ACK.USAGE.meter.x.1.1.1.1", "_INBOX.a.b.c.d.e.f.g.h"] {
            assert_eq!(delivery_of(wrong), None, "{wrong}");
        }
    }
}
