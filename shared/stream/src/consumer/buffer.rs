//! Messages that the server handed out and that no batch has yet, with how much they hold.

use std::collections::VecDeque;

use super::{ConsumerOptions, Message};

/// Messages in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) messages: VecDeque<Message>,
    /// The events of all of them.
    pub(crate) events: usize,
    bytes: usize,
}

impl Buffer {
    pub(crate) fn push(&mut self, message: Message) {
        self.events += message.events;
        self.bytes += bytes(&message);
        self.messages.push_back(message);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns whether a batch would be no larger if more came.
    pub(crate) fn is_full(&self, options: &ConsumerOptions) -> bool {
        self.events >= options.batch_events || self.bytes > options.batch_bytes
    }

    /// Takes the messages of the next batch: those that fit, one at least.
    pub(crate) fn take(&mut self, options: &ConsumerOptions) -> Vec<Message> {
        let (mut batch, mut events_left, mut bytes_left) = (Vec::new(), options.batch_events, options.batch_bytes);
        while let Some(message) = self.messages.front() {
            let fits = message.events <= events_left && bytes(message) <= bytes_left;
            if !fits && !batch.is_empty() {
                break;
            }
            events_left = events_left.saturating_sub(message.events);
            bytes_left = bytes_left.saturating_sub(bytes(message));
            batch.extend(self.messages.pop_front());
        }
        self.events -= batch.iter().map(|message| message.events).sum::<usize>();
        self.bytes -= batch.iter().map(bytes).sum::<usize>();
        batch
    }
}

/// The bytes of a message, which no message has none of.
fn bytes(message: &Message) -> usize {
    message.payload.len().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A message of so many bytes; the fifth of five is a batch of as many events as the header says.
    fn message(sequence: u64, length: usize) -> Message {
        let mut headers = async_nats::HeaderMap::new();
        let is_batch = sequence.is_multiple_of(5);
        headers.insert("Nats-Msg-Id", if is_batch { format!("id+{}", sequence % 64 + 1) } else { "id".to_owned() });
        let payload = if is_batch { format!("[{}]", "x".repeat(length)) } else { "x".repeat(length) };
        let message = async_nats::Message {
            subject: "usage.v1.acme".into(),
            reply: Some(format!("$JS.ACK.USAGE.meter.1.{sequence}.{sequence}.1700000000000001999.0").into()),
            payload: payload.into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        Message::from_nats(message, &Arc::from("")).unwrap()
    }

    fn events(messages: &[Message]) -> usize {
        messages.iter().map(|message| message.events).sum()
    }

    #[test]
    fn the_running_sums_are_those_of_what_is_held() {
        let options = ConsumerOptions { batch_events: 200, batch_bytes: 20_000, ..ConsumerOptions::default() };
        let (mut buffer, mut sequence, mut taken) = (Buffer::default(), 0, Vec::new());
        for round in 0..200 {
            for _ in 0..round % 7 * 3 {
                sequence += 1;
                buffer.push(message(sequence, (sequence as usize * 7_919) % 4_000));
            }
            if round % 3 == 0 || buffer.is_full(&options) {
                let batch = buffer.take(&options);
                let length: usize = batch.iter().map(bytes).sum();
                let is_bounded = events(&batch) <= options.batch_events && length <= options.batch_bytes;
                assert!(batch.len() == 1 || is_bounded, "{} events, {length} bytes", events(&batch));
                taken.extend(batch);
            }
            let held: Vec<Message> = buffer.messages.iter().cloned().collect();
            assert_eq!(buffer.events, events(&held));
            assert_eq!(buffer.bytes, held.iter().map(bytes).sum::<usize>());
            assert_eq!(buffer.is_empty(), held.is_empty());
        }
        taken.extend(buffer.messages);
        assert!(taken.iter().map(|message| message.sequence).eq(1..=sequence), "each once, in their order");
        assert!(taken.iter().any(|message| message.events > 1));
    }
}
