//! An event as bytes that are the same at the gateway and, years later, from the ledger's row.
//!
//! They cover every column of an event that never changes: not the label (`request_id`, which displacement changes),
//! not the table it is in, not what was computed from it (`cost_cents`, `rate_version`). Each field has its length
//! before it, so no two events share their bytes. The format never changes; a new one gets a new first line.

use sha2::{Digest, Sha256};

use crate::{Epoch, EventId, Timestamp, UsageEvent};

/// The columns that identify what happened, whichever side they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImmutableColumns<'a> {
    /// `id`.
    pub event_id: EventId,
    /// `tenant_id`.
    pub tenant_id: &'a str,
    /// `user_id`.
    pub user_id: &'a str,
    /// `ts`.
    pub ts: Timestamp,
    /// `client_request_id`.
    pub client_request_id: Option<&'a str>,
    /// `route`.
    pub route: &'a str,
    /// `action`.
    pub action: &'a str,
    /// `units_micro`.
    pub units_micro: u64,
    /// `outcome`.
    pub outcome: &'a str,
    /// `metadata`, the very text.
    pub metadata: &'a str,
    /// `fingerprint`.
    pub fingerprint: Option<&'a str>,
    /// `epoch`.
    pub epoch: Epoch,
    /// `seq`.
    pub seq: u64,
}

impl<'a> ImmutableColumns<'a> {
    /// An event's columns; `metadata` is its [`UsageEvent::metadata_json`], which whoever writes the row needs anyway.
    pub fn of(event: &'a UsageEvent, metadata: &'a str) -> Self {
        Self {
            event_id: event.event_id,
            tenant_id: event.tenant_id.as_str(),
            user_id: event.user_id.as_str(),
            ts: event.ts,
            client_request_id: event.client_request_id.as_ref().map(|id| id.as_str()),
            route: event.route.as_str(),
            action: event.action.as_str(),
            units_micro: event.units.micro(),
            outcome: event.outcome.as_str(),
            metadata,
            fingerprint: event.fingerprint.as_ref().map(|fingerprint| fingerprint.as_str()),
            epoch: event.epoch,
            seq: event.seq,
        }
    }

    /// The bytes that are digested: a first line, then every field in the order of the struct.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512 + self.metadata.len());
        bytes.extend_from_slice(b"goldleaves.event.v1\n");
        bytes.extend_from_slice(self.event_id.as_uuid().as_bytes());
        push_text(&mut bytes, Some(self.tenant_id));
        push_text(&mut bytes, Some(self.user_id));
        bytes.extend_from_slice(&self.ts.unix_micros().to_be_bytes());
        push_text(&mut bytes, self.client_request_id);
        push_text(&mut bytes, Some(self.route));
        push_text(&mut bytes, Some(self.action));
        bytes.extend_from_slice(&self.units_micro.to_be_bytes());
        push_text(&mut bytes, Some(self.outcome));
        push_text(&mut bytes, Some(self.metadata));
        push_text(&mut bytes, self.fingerprint);
        bytes.extend_from_slice(self.epoch.as_uuid().as_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    /// SHA-256 of the canonical bytes.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.canonical_bytes()).into()
    }
}

/// The length (all ones for an absent text), then the text.
fn push_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    let length = text.map_or(u64::MAX, |text| text.len() as u64);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
}

impl UsageEvent {
    /// The metadata column: JSON with the guide's keys, at most 2,000 characters. See [`crate::CallMetadata::json`].
    pub fn metadata_json(&self) -> String {
        self.metadata.json()
    }

    /// The event's immutable columns as bytes. See [`ImmutableColumns::canonical_bytes`].
    pub fn canonical_bytes(&self) -> Vec<u8> {
        ImmutableColumns::of(self, &self.metadata_json()).canonical_bytes()
    }

    /// SHA-256 of [`canonical_bytes`](Self::canonical_bytes): what set hashes are made of.
    pub fn digest(&self) -> [u8; 32] {
        ImmutableColumns::of(self, &self.metadata_json()).digest()
    }
}
