//! Writing events and seals. Every value that exists can be written; nothing here fails.

use bytes::Bytes;

use crate::decimal::Micro;
use crate::json::{Append, ObjectWriter, push_text, push_text_or_null};
use crate::wire::SEAL_TYPE;
use crate::{Seal, UsageEvent};

/// The event as a CloudEvent.
pub fn encode_event(event: &UsageEvent) -> Bytes {
    let mut text = String::with_capacity(1_024);
    append_event(event, &mut text);
    Bytes::from(text)
}

/// The same behind what `text` already holds. Every event comes through here: the names of members and what stands between them are
/// whole pieces of text that the compiler knows, which takes a third of what writing them member by member does.
pub(super) fn append_event(event: &UsageEvent, text: &mut String) {
    text.push_str(r#"{"specversion":"1.0","id":""#);
    event.event_id.as_uuid().append(text);
    text.push_str(r#"","type":"goldleaves.usage.v1","source":""#);
    event.source.append(text);
    text.push_str(r#"","subject":"#);
    push_text(text, event.tenant_id.as_str());
    text.push_str(r#","time":""#);
    event.ts.append(text);
    text.push_str(r#"","datacontenttype":"application/json""#);
    if let Some(traceparent) = &event.traceparent {
        text.push_str(r#","traceparent":"#);
        push_text(text, traceparent);
    }
    text.push_str(r#","data":{"request_id":"#);
    append_call(event, text);
    append_end(event, text);
    text.push_str("}}");
}

/// The first part of `data`: what was known before the call.
fn append_call(event: &UsageEvent, text: &mut String) {
    push_text(text, event.request_id.as_str());
    text.push_str(r#","client_request_id":"#);
    push_text_or_null(text, event.client_request_id.as_ref().map(|id| id.as_str()));
    text.push_str(r#","user_id":"#);
    push_text(text, event.user_id.as_str());
    text.push_str(r#","route":"#);
    push_text(text, event.route.as_str());
    text.push_str(r#","action":"#);
    push_text(text, event.action.as_str());
    text.push_str(r#","units":""#);
    Micro(event.units.micro()).append(text);
    text.push_str(r#"","method":"#);
    push_text(text, &event.metadata.method);
}

/// The rest of `data`: how it ended.
fn append_end(event: &UsageEvent, text: &mut String) {
    let metadata = &event.metadata;
    text.push_str(r#","status_code":"#);
    metadata.status_code.append(text);
    if let Some(agent) = &metadata.user_agent {
        text.push_str(r#","user_agent":"#);
        push_text(text, agent);
    }
    if let Some(address) = &metadata.client_ip {
        text.push_str(r#","client_ip":"#);
        push_text(text, address);
    }
    text.push_str(r#","response_size":""#);
    metadata.response_bytes.append(text);
    text.push_str(r#"","processing_time":"#);
    Micro(metadata.processing_micros).append(text);
    text.push_str(r#","outcome":""#);
    text.push_str(event.outcome.as_str());
    text.push_str(r#"","fingerprint":"#);
    push_text_or_null(text, event.fingerprint.as_ref().map(|fingerprint| fingerprint.as_str()));
    text.push_str(r#","epoch":""#);
    event.epoch.as_uuid().append(text);
    text.push_str(r#"","seq":"#);
    event.seq.append(text);
    text.push_str(r#","part":null"#);
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
