//! Events and seals as they travel: CloudEvents 1.0 in JSON, one subject a tenant and a source. Several events of one
//! tenant may share a message, as a CloudEvents JSON batch.
//!
//! Reading is careful, because what is read is billed. What fits is an event with every rule of its types; anything else
//! is [`Unreadable`], with all that can still be told of it, and is set aside with its bytes. Members that are not known
//! are ignored; a known member given twice is refused, for readers disagree on which one counts. A higher major version
//! in `type`, or a `part` (interim records), belongs to a newer worker. Bytes once written are read for ever: see the
//! golden files in `tests/golden`.

mod batch;
mod encode;
mod parse;
mod salvage;

use std::fmt;

use uuid::Uuid;

use crate::{Delivery, Epoch, EventId, Seal, Source, TenantId, Timestamp, UsageEvent};

pub use batch::{
    BATCH_BYTES_MAX, BATCH_CONTENT_TYPE, BATCH_EVENTS_MAX, EventBatch, Part, events_by_id, is_batch, parse_all, pieces,
};
pub use encode::{encode_event, encode_seal};
pub use parse::parse;

/// The `type` of an event.
pub(crate) const EVENT_TYPE: &str = "goldleaves.usage.v1";
/// The `type` of a seal.
pub(crate) const SEAL_TYPE: &str = "goldleaves.seal.v1";
/// Every tenant's subject.
pub const EVENT_SUBJECTS: &str = "usage.v1.*";
/// Every source's subject.
pub const SEAL_SUBJECTS: &str = "usage.seal.v1.*";

/// The content of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// One billable request.
    Event(Box<UsageEvent>),
    /// The seal of what a gateway handed out.
    Seal(Box<Seal>),
}

/// A payload that can't be recorded, and what can still be told of it. Everything told fits the ledger's columns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Unreadable {
    /// The reason, as the dead letter has it.
    pub reason: UnreadableReason,
    /// The event's id; none for what says it is something else than an event.
    pub event_id: Option<EventId>,
    /// A legal tenant.
    pub tenant_id: Option<String>,
    /// A legal request id.
    pub request_id: Option<String>,
    /// The epoch it says it belongs to.
    pub epoch: Option<Epoch>,
    /// The number it says it has there, at least 1, always fits `i64`.
    pub seq: Option<u64>,
    /// When the request arrived.
    pub ts: Option<Timestamp>,
    /// For people: which member is wrong and how, at most 300 characters, without control characters.
    pub detail: String,
}

/// The reason a payload can't be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnreadableReason {
    /// A newer worker knows it: to be drained by that.
    NewerVersion,
    /// Not JSON.
    NotJson,
    /// JSON that is no event and no seal, or breaks a rule of theirs.
    Malformed,
}

impl UnreadableReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NewerVersion, Self::NotJson, Self::Malformed];

    /// The word in `usage_dead_letters.reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewerVersion => "newer_version",
            Self::NotJson => "not_json",
            Self::Malformed => "malformed",
        }
    }
}

impl fmt::Display for UnreadableReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// `usage.v1.<tenant>`; at most 3,069 bytes, which NATS takes.
pub fn event_subject(tenant: &TenantId) -> String {
    subject("usage.v1.", tenant.as_str())
}

/// `usage.seal.v1.<source>`.
pub fn seal_subject(source: &Source) -> String {
    subject("usage.seal.v1.", &source.to_string())
}

/// Every byte outside `[A-Za-z0-9_-]` becomes `=` and two upper-case hex digits: one token, and different for
/// different names.
fn subject(prefix: &str, name: &str) -> String {
    let stays = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'_') | (byte == b'-');
    if name.bytes().fold(true, |all, byte| all & stays(byte)) {
        return [prefix, name].concat();
    }
    let mut subject = String::with_capacity(prefix.len() + name.len() * 3);
    subject.push_str(prefix);
    for byte in name.bytes() {
        if stays(byte) {
            subject.push(char::from(byte));
        } else {
            subject.push_str(&format!("={byte:02X}"));
        }
    }
    subject
}

/// An id with hyphens, in lower case.
fn id_text(id: &Uuid) -> String {
    id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

impl Delivery {
    /// An event, ready to be sent.
    pub fn of_event(event: &UsageEvent) -> Self {
        Self {
            subject: event_subject(&event.tenant_id),
            message_id: id_text(event.event_id.as_uuid()),
            payload: encode_event(event),
            traceparent: event.traceparent.clone(),
        }
    }

    /// A seal, ready to be sent.
    pub fn of_seal(seal: &Seal) -> Self {
        Self {
            subject: seal_subject(&seal.source),
            message_id: seal.id.as_hyphenated().to_string(),
            payload: encode_seal(seal),
            traceparent: None,
        }
    }
}
