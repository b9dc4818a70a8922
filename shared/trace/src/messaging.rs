//! The attributes of spans of messages, in the words of the semantic conventions.

use goldleaves_domain::{EventId, Receiver};

use crate::OpenSpan;

/// Describes the handing over of one event through `receiver`.
pub fn say_event(span: &mut OpenSpan, operation: &'static str, event_id: EventId, receiver: Receiver) {
    span.set("messaging.system", receiver.system);
    span.set("messaging.destination.name", receiver.destination);
    span.set("messaging.operation.type", operation);
    span.set("messaging.operation.name", operation);
    span.set("messaging.message.id", event_id.to_string());
}
