//! Writing events and seals. Every value that exists can be written; nothing here fails.

use bytes::Bytes;

use crate::decimal::Micro;
use crate::json::ObjectWriter;
use crate::wire::{EVENT_TYPE, SEAL_TYPE};
use crate::{Seal, UsageEvent};

/// The event as a CloudEvent.
pub fn encode_event(event: &UsageEvent) -> Bytes {
    Bytes::from(append_event(event, String::with_capacity(1_024)))
}

/// The same behind what `text` already holds.
pub(super) fn append_event(event: &UsageEvent, text: String) -> String {
    let mut envelope = ObjectWriter::nested(text);
    envelope.plain("specversion", "\"1.0\"");
    envelope.quoted("id", event.event_id);
    envelope.plain("type", format_args!("\"{EVENT_TYPE}\""));
    envelope.quoted("source", event.source);
    envelope.text("subject", event.tenant_id.as_str());
    envelope.quoted("time", event.ts);
    envelope.plain("datacontenttype", "\"application/json\"");
    if let Some(traceparent) = &event.traceparent {
        envelope.text("traceparent", traceparent);
    }
    envelope.raw("data", |text| event_data(event, text));
    envelope.finish()
}

fn event_data(event: &UsageEvent, text: String) -> String {
    let metadata = &event.metadata;
    let mut data = ObjectWriter::nested(text);
    data.text("request_id", event.request_id.as_str());
    data.text_or_null("client_request_id", event.client_request_id.as_ref().map(|id| id.as_str()));
    data.text("user_id", event.user_id.as_str());
    data.text("route", event.route.as_str());
    data.text("action", event.action.as_str());
    data.quoted("units", event.units);
    data.text("method", &metadata.method);
    data.plain("status_code", metadata.status_code);
    if let Some(agent) = &metadata.user_agent {
        data.text("user_agent", agent);
    }
    if let Some(address) = &metadata.client_ip {
        data.text("client_ip", address);
    }
    data.quoted("response_size", metadata.response_bytes);
    data.plain("processing_time", Micro(metadata.processing_micros));
    data.quoted("outcome", event.outcome);
    data.text_or_null("fingerprint", event.fingerprint.as_ref().map(|fingerprint| fingerprint.as_str()));
    data.quoted("epoch", event.epoch);
    data.plain("seq", event.seq);
    data.plain("part", "null");
    data.finish()
}

/// The seal as a CloudEvent.
pub fn encode_seal(seal: &Seal) -> Bytes {
    let mut envelope = ObjectWriter::with_capacity(512 + seal.blocks.len() * 128);
    envelope.plain("specversion", "\"1.0\"");
    envelope.quoted("id", seal.id.as_hyphenated());
    envelope.plain("type", format_args!("\"{SEAL_TYPE}\""));
    envelope.quoted("source", seal.source);
    envelope.quoted("time", seal.ts);
    envelope.plain("datacontenttype", "\"application/json\"");
    envelope.raw("data", |text| seal_data(seal, text));
    Bytes::from(envelope.finish())
}

fn seal_data(seal: &Seal, text: String) -> String {
    let mut data = ObjectWriter::nested(text);
    data.quoted("epoch", seal.epoch);
    data.plain("last_seq", seal.last_seq);
    data.plain("count", seal.count);
    data.plain("unrecorded", seal.unrecorded);
    data.plain("closed", seal.closed);
    data.raw("blocks", |mut text| {
        let mut separator = '[';
        for block in &seal.blocks {
            text.push(separator);
            separator = ',';
            let mut object = ObjectWriter::nested(text);
            object.plain("block", block.block);
            object.plain("count", block.count);
            object.quoted("hash", block.hash);
            text = object.finish();
        }
        text.push_str(if separator == '[' { "[]" } else { "]" });
        text
    });
    data.finish()
}
