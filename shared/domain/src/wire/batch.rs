//! Several events of one tenant in one message: a CloudEvents JSON batch.
//!
//! A batch is an array of the same CloudEvents that travel alone, so whoever reads one element reads an event. Taking it
//! apart looks at brackets and quotes only: an element that is damaged inside spoils none of the others.

use std::ops::Range;

use bytes::Bytes;

use super::encode::append_event;
use super::parse::{event_at, parse};
use super::{Message, Unreadable, event_subject, id_text};
use crate::{Delivery, EventId, TenantId, UsageEvent};

/// The `Content-Type` of a message with several events.
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";
/// The most events of one message.
pub const BATCH_EVENTS_MAX: usize = 64;
/// The most bytes of a message with several events.
pub const BATCH_BYTES_MAX: usize = 96 << 10;

/// Events of one tenant on their way into one message.
#[derive(Debug)]
pub struct EventBatch {
    tenant: TenantId,
    first: EventId,
    traceparent: Option<String>,
    events: usize,
    text: String,
}

impl EventBatch {
    /// A batch that begins with this event.
    pub fn of(event: &UsageEvent) -> Self {
        let mut text = String::with_capacity(1_024);
        text.push('[');
        append_event(event, &mut text);
        Self {
            tenant: event.tenant_id.clone(),
            first: event.event_id,
            traceparent: event.traceparent.clone(),
            events: 1,
            text,
        }
    }

    /// Adds an event, unless it is another tenant's or the message had more events than [`BATCH_EVENTS_MAX`] or more bytes
    /// than these. Returns whether it was added.
    pub fn add(&mut self, event: &UsageEvent, bytes_max: usize) -> bool {
        if self.events >= BATCH_EVENTS_MAX || event.tenant_id != self.tenant {
            return false;
        }
        let before = self.text.len();
        self.text.push(',');
        append_event(event, &mut self.text);
        // The bracket at the end.
        let fits = self.text.len() < bytes_max.min(BATCH_BYTES_MAX);
        if fits {
            self.events += 1;
        } else {
            self.text.truncate(before);
        }
        fits
    }

    /// The message: one event alone is not wrapped, and has the id and the trace of its own.
    pub fn finish(self) -> Delivery {
        let Self { tenant, first, traceparent, events, mut text } = self;
        let subject = event_subject(&tenant);
        if events == 1 {
            let payload = Bytes::from(text).slice(1..);
            return Delivery { subject, message_id: id_text(first.as_uuid()), payload, traceparent };
        }
        text.push(']');
        let message_id = format!("{first}+{events}");
        Delivery { subject, message_id, payload: Bytes::from(text), traceparent: None }
    }
}

/// Returns whether a payload is an array: the events of a batch.
pub fn is_batch(payload: &[u8]) -> bool {
    payload.trim_ascii_start().starts_with(b"[")
}

/// Returns the number of events that a message has, by its `Nats-Msg-Id` alone; never 0.
pub fn events_by_id(message_id: &str) -> usize {
    let count = message_id.rsplit_once('+').and_then(|(_, count)| count.parse().ok());
    count.map_or(1, |count: usize| count.clamp(1, BATCH_EVENTS_MAX))
}

/// The places of the events in a payload: of the elements of a batch, else of all of it. There is always one at least, and
/// what can't be told apart, from where an array is damaged to its end, is one as well.
pub fn pieces(payload: &[u8]) -> Vec<Range<usize>> {
    let whole = 0..payload.len();
    let opening = payload.len() - payload.trim_ascii_start().len();
    if !is_batch(payload) {
        return vec![whole];
    }
    match pieces_from(Elements { payload, at: opening + 1 }) {
        // Nothing but damage: then all of it is kept.
        (pieces, _) if pieces.is_empty() => vec![whole],
        (mut pieces, rest) => {
            pieces.extend(rest);
            pieces
        }
    }
}

/// The events of a payload and their places, read in one pass as long as they are events as they should be.
pub fn parse_all(payload: &[u8]) -> Vec<Part> {
    let opening = payload.len() - payload.trim_ascii_start().len();
    let (mut parts, mut elements) = (Vec::new(), Elements { payload, at: opening + 1 });
    while is_batch(payload) {
        let Some((place, event, ending)) = elements.event() else { break };
        parts.push(Part { place, read: Ok(event) });
        if ending == b']' {
            parts.extend(elements.rest().map(|place| elements.part(place)));
            return parts;
        }
    }
    let left = if parts.is_empty() {
        pieces(payload)
    } else {
        let (pieces, rest) = pieces_from(Elements { ..elements });
        pieces.into_iter().chain(rest).collect()
    };
    parts.extend(left.into_iter().map(|place| elements.part(place)));
    parts
}

/// One of the events of a payload.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it stands.
    pub place: Range<usize>,
    /// The event, or why it can't be recorded.
    pub read: Result<Message, Unreadable>,
}

/// The places of elements, and of what follows them and can't be told apart.
fn pieces_from(mut elements: Elements<'_>) -> (Vec<Range<usize>>, Option<Range<usize>>) {
    let mut pieces = Vec::new();
    loop {
        match elements.next() {
            Element::Followed(place) => pieces.push(place),
            Element::Last(place) => {
                pieces.extend(place);
                return (pieces, elements.rest());
            }
            Element::Damaged => return (pieces, elements.rest()),
        }
    }
}

/// The element before the next comma, or before the bracket that closes.
enum Element {
    Followed(Range<usize>),
    /// None in an empty array.
    Last(Option<Range<usize>>),
    /// From here on elements can't be told apart.
    Damaged,
}

struct Elements<'a> {
    payload: &'a [u8],
    /// Behind the opening bracket, or behind the last comma.
    at: usize,
}

impl Elements<'_> {
    fn next(&mut self) -> Element {
        let start = self.at;
        let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
        for (place, byte) in self.payload.iter().enumerate().skip(start) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                b',' | b']' if depth == 0 => {
                    let element = self.trimmed(start..place);
                    if *byte == b',' && element.is_empty() {
                        return Element::Damaged;
                    }
                    self.at = place + 1;
                    return match byte {
                        b']' => Element::Last((!element.is_empty()).then_some(element)),
                        _ => Element::Followed(element),
                    };
                }
                _ => {}
            }
        }
        Element::Damaged
    }

    /// Reads an event as it should be, with the comma or the bracket behind it. Else nothing is taken.
    fn event(&mut self) -> Option<(Range<usize>, Message, u8)> {
        let left = self.payload.get(self.at..)?;
        let start = self.payload.len() - left.trim_ascii_start().len();
        let (event, length) = event_at(left.trim_ascii_start())?;
        let behind = self.payload.get(start + length..)?.trim_ascii_start();
        let ending = *behind.first().filter(|byte| matches!(byte, b',' | b']'))?;
        self.at = self.payload.len() - behind.len() + 1;
        Some((start..start + length, event, ending))
    }

    fn part(&self, place: Range<usize>) -> Part {
        let read = parse(self.payload.get(place.clone()).unwrap_or_default());
        Part { place, read }
    }

    /// Returns where something stands that is no blank, behind what was taken.
    fn rest(&self) -> Option<Range<usize>> {
        let rest = self.trimmed(self.at..self.payload.len());
        (!rest.is_empty()).then_some(rest)
    }

    fn trimmed(&self, place: Range<usize>) -> Range<usize> {
        let bytes = self.payload.get(place.clone()).unwrap_or_default();
        let start = place.end - bytes.trim_ascii_start().len();
        start..start + bytes.trim_ascii().len()
    }
}
