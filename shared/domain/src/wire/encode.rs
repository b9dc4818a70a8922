//! Writing events and seals. Every value that exists can be written; nothing here fails.

use bytes::Bytes;

use crate::decimal::Micro;
use crate::json::ObjectWriter;
use crate::wire::{EVENT_TYPE, SEAL_TYPE};
use crate::{Seal, UsageEvent};

/// The event as a CloudEvent.
pub fn encode_event(event: &UsageEvent) -> Bytes {
    let mut text = String::with_capacity(1_024);
    append_event(event, &mut text);
    Bytes::from(text)
}

/// The same behind what `text` already holds.
pub(super) fn append_event(event: &UsageEvent, text: &mut String) {
    let mut envelope = ObjectWriter::new(text);
    envelope.quoted("specversion", "1.0");
    envelope.quoted("id", event.event_id.as_uuid());
    envelope.quoted("type", EVENT_TYPE);
    envelope.quoted("source", &event.source);
    envelope.text("subject", event.tenant_id.as_str());
    envelope.quoted("time", &event.ts);
    envelope.quoted("datacontenttype", "application/json");
    if let Some(traceparent) = &event.traceparent {
        envelope.text("traceparent", traceparent);
    }
    event_data(event, envelope.member("data"));
    envelope.finish();
}

fn event_data(event: &UsageEvent, text: &mut String) {
    let metadata = &event.metadata;
    let mut data = ObjectWriter::new(text);
    data.text("request_id", event.request_id.as_str());
    data.text_or_null("client_request_id", event.client_request_id.as_ref().map(|id| id.as_str()));
    data.text("user_id", event.user_id.as_str());
    data.text("route", event.route.as_str());
    data.text("action", event.action.as_str());
    data.quoted("units", &Micro(event.units.micro()));
    data.text("method", &metadata.method);
    data.plain("status_code", &metadata.status_code);
    if let Some(agent) = &metadata.user_agent {
        data.text("user_agent", agent);
    }
    if let Some(address) = &metadata.client_ip {
        data.text("client_ip", address);
    }
    data.quoted("response_size", &metadata.response_bytes);
    data.plain("processing_time", &Micro(metadata.processing_micros));
    data.quoted("outcome", event.outcome.as_str());
    data.text_or_null("fingerprint", event.fingerprint.as_ref().map(|fingerprint| fingerprint.as_str()));
    data.quoted("epoch", event.epoch.as_uuid());
    data.plain("seq", &event.seq);
    data.plain("part", "null");
    data.finish();
}

/// The seal as a CloudEvent.
pub fn encode_seal(seal: &Seal) -> Bytes {
    let mut text = String::with_capacity(512 + seal.blocks.len() * 128);
    let mut envelope = ObjectWriter::new(&mut text);
    envelope.quoted("specversion", "1.0");
    envelope.quoted("id", &seal.id);
    envelope.quoted("type", SEAL_TYPE);
    envelope.quoted("source", &seal.source);
    envelope.quoted("time", &seal.ts);
    envelope.quoted("datacontenttype", "application/json");
    seal_data(seal, envelope.member("data"));
    envelope.finish();
    Bytes::from(text)
}

fn seal_data(seal: &Seal, text: &mut String) {
    let mut data = ObjectWriter::new(text);
    data.quoted("epoch", seal.epoch.as_uuid());
    data.plain("last_seq", &seal.last_seq);
    data.plain("count", &seal.count);
    data.plain("unrecorded", &seal.unrecorded);
    data.plain("closed", &seal.closed);
    seal_blocks(seal, data.member("blocks"));
    data.finish();
}

fn seal_blocks(seal: &Seal, text: &mut String) {
    let mut separator = '[';
    for block in &seal.blocks {
        text.push(separator);
        separator = ',';
        let mut object = ObjectWriter::new(text);
        object.plain("block", &block.block);
        object.plain("count", &block.count);
        object.quoted("hash", &block.hash);
        object.finish();
    }
    text.push_str(if separator == '[' { "[]" } else { "]" });
}
