//! The fields of a usage event, and where each of them goes: one list that the spool's codec, the wire, the canonical form
//! and the ledger's columns are held against by the tests of their crates.
//!
//! Nothing is read or written by this list: who adds a field adds it here, and each test that fails then names the next
//! place.

/// One field of a [`UsageEvent`](crate::UsageEvent), or of its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventField {
    /// The name in the struct.
    pub name: &'static str,
    /// The part of a spool record that holds it.
    pub kept: Kept,
    /// The member of the CloudEvent, `data.` before those of its data.
    pub member: &'static str,
    /// The column of `usage_events`; `None` = no row has it.
    pub column: Option<&'static str>,
    /// The rule for the canonical bytes.
    pub canonical: Canonical,
}

/// The part of a spool record that holds a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The INTENT: it is known before the upstream is asked.
    Call,
    /// The settlement behind it.
    Settlement,
    /// The spool's own frame.
    Frame,
}

/// Says whether a field is part of the canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canonical {
    /// It never changes, so it is covered.
    Covered,
    /// It may change, or no row has it.
    Left,
}

const fn field(name: &'static str, kept: Kept, member: &'static str) -> EventField {
    EventField { name, kept, member, column: None, canonical: Canonical::Left }
}

impl EventField {
    const fn column(self, column: &'static str) -> Self {
        Self { column: Some(column), ..self }
    }

    const fn covered(self) -> Self {
        Self { canonical: Canonical::Covered, ..self }
    }
}

/// Every field, those of the metadata included.
pub const EVENT_FIELDS: [EventField; 21] = [
    field("event_id", Kept::Call, "id").column("id").covered(),
    field("source", Kept::Frame, "source"),
    field("tenant_id", Kept::Call, "subject").column("tenant_id").covered(),
    field("user_id", Kept::Call, "data.user_id").column("user_id").covered(),
    field("ts", Kept::Call, "time").column("ts").covered(),
    field("traceparent", Kept::Call, "traceparent"),
    field("request_id", Kept::Call, "data.request_id").column("request_id"),
    field("client_request_id", Kept::Call, "data.client_request_id").column("client_request_id").covered(),
    field("route", Kept::Call, "data.route").column("route").covered(),
    field("action", Kept::Settlement, "data.action").column("action").covered(),
    field("units", Kept::Settlement, "data.units").column("units_micro").covered(),
    field("outcome", Kept::Settlement, "data.outcome").column("outcome").covered(),
    field("fingerprint", Kept::Settlement, "data.fingerprint").column("fingerprint").covered(),
    field("epoch", Kept::Frame, "data.epoch").column("epoch").covered(),
    field("seq", Kept::Frame, "data.seq").column("seq").covered(),
    field("method", Kept::Call, "data.method").column("metadata").covered(),
    field("status_code", Kept::Settlement, "data.status_code").column("metadata").covered(),
    field("user_agent", Kept::Call, "data.user_agent").column("metadata").covered(),
    field("client_ip", Kept::Call, "data.client_ip").column("metadata").covered(),
    field("response_bytes", Kept::Settlement, "data.response_size").column("metadata").covered(),
    field("processing_micros", Kept::Settlement, "data.processing_time").column("metadata").covered(),
];
