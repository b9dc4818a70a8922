//! Messages that the server handed out and that no batch has yet, with how much they hold.

use std::collections::VecDeque;

use super::{ConsumerOptions, Message};

/// Messages in the order they came.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) messages: VecDeque<Message>,
    /// The events of all of them.
    pub(super) events: usize,
    bytes: usize,
}

impl Buffer {
    pub(super) fn push(&mut self, message: Message) {
        self.events += message.events;
        self.bytes += bytes(&message);
        self.messages.push_back(message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns whether a batch would be no larger if more came.
    pub(super) fn is_full(&self, options: &ConsumerOptions) -> bool {
        self.events >= options.batch_events || self.bytes > options.batch_bytes
    }

    /// Takes the messages of the next batch: those that fit, one at least.
    pub(super) fn take(&mut self, options: &ConsumerOptions) -> Vec<Message> {
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
