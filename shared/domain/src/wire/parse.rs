//! Reading events and seals: every member by the rule of its type, or not at all.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::wire::salvage::{TypeKind, salvage};
use crate::wire::{EVENT_TYPE, Message, Unreadable, UnreadableReason};
use crate::{CallMetadata, RoutePattern, Seal, SealBlock, Timestamp, TraceContext, UsageEvent, decimal};

/// A longer `traceparent` is not one.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// Reads a payload. Whatever it accepts fits the ledger: no control character in a column, every length kept.
///
/// # Errors
/// [`Unreadable`], with everything that can still be read.
#[expect(
    clippy::result_large_err,
    reason = "the error is kept beside the payload as a dead letter, not passed up a stack"
)]
pub fn parse(payload: &[u8]) -> Result<Message, Unreadable> {
    read(payload).map_err(|fault| salvage(payload, fault.reason, fault.detail))
}

/// The fault of a payload.
#[derive(Debug)]
pub(super) struct Fault {
    reason: UnreadableReason,
    detail: String,
}

impl Fault {
    fn malformed(member: &str, why: impl Display) -> Self {
        Self { reason: UnreadableReason::Malformed, detail: format!("{member}: {why}") }
    }

    fn newer(detail: impl Display) -> Self {
        Self { reason: UnreadableReason::NewerVersion, detail: detail.to_string() }
    }

    fn json(part: &str, error: &serde_json::Error) -> Self {
        let reason = if error.is_data() { UnreadableReason::Malformed } else { UnreadableReason::NotJson };
        Self { reason, detail: format!("{part}: {error}") }
    }
}

/// The CloudEvent, with its `data` as bytes or as what it is; unknown members are ignored, known ones given twice are an error
/// of serde's.
#[derive(Deserialize)]
struct EventEnvelope<'a, D> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    subject: Option<Text<'a>>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    traceparent: Option<String>,
    data: D,
}

type WholeEvent<'a> = EventEnvelope<'a, JsonObject<EventData<'a>>>;

/// A string of the payload, not copied where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `data` of an event.
#[derive(Deserialize)]
struct EventData<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    client_request_id: Option<Text<'a>>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    route: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    units: Cow<'a, str>,
    method: String,
    status_code: u16,
    user_agent: Option<String>,
    client_ip: Option<String>,
    #[serde(borrow)]
    response_size: Cow<'a, str>,
    #[serde(borrow)]
    processing_time: &'a RawValue,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow)]
    fingerprint: Option<Text<'a>>,
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    seq: u64,
    part: Option<IgnoredAny>,
}

/// `data` of a seal.
#[derive(Deserialize)]
struct SealData<'a> {
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    last_seq: u64,
    count: u64,
    unrecorded: u64,
    closed: bool,
    #[serde(borrow)]
    blocks: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct BlockData<'a> {
    block: u64,
    count: u32,
    #[serde(borrow)]
    hash: Cow<'a, str>,
}

/// The event at the beginning of these bytes, if there is one as it should be, and how many bytes it has.
pub(super) fn event_at(bytes: &[u8]) -> Option<(Message, usize)> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<JsonObject<WholeEvent<'_>>>();
    let JsonObject(envelope) = values.next()?.ok()?;
    let event = if envelope.kind == EVENT_TYPE { whole_event(envelope).ok()? } else { return None };
    Some((Message::Event(Box::new(event)), values.byte_offset()))
}

fn whole_event(envelope: WholeEvent<'_>) -> Result<UsageEvent, Fault> {
    let EventEnvelope { specversion, id, kind, source, subject, time, traceparent, data: JsonObject(data) } = envelope;
    read_event(&EventEnvelope { specversion, id, kind, source, subject, time, traceparent, data: () }, data)
}

/// Reads an event in one pass where it is as it should be; else once more, part by part, to say what is wrong.
fn read(payload: &[u8]) -> Result<Message, Fault> {
    if let Ok(JsonObject(envelope)) = serde_json::from_slice::<JsonObject<WholeEvent<'_>>>(payload)
        && envelope.kind == EVENT_TYPE
    {
        return whole_event(envelope).map(|event| Message::Event(Box::new(event)));
    }
    let envelope: EventEnvelope<'_, &RawValue> = object("envelope", payload)?;
    match TypeKind::of(&envelope.kind) {
        TypeKind::Event => {}
        TypeKind::Seal => return read_seal(&envelope).map(|seal| Message::Seal(Box::new(seal))),
        TypeKind::Newer { .. } => return Err(Fault::newer("type: not known to this version")),
        TypeKind::Foreign => return Err(Fault::malformed("type", "not one of goldleaves")),
    }
    let data = object("data", envelope.data.get().as_bytes())?;
    read_event(&envelope, data).map(|event| Message::Event(Box::new(event)))
}

fn read_event<D>(envelope: &EventEnvelope<'_, D>, data: EventData<'_>) -> Result<UsageEvent, Fault> {
    if data.part.is_some() {
        return Err(Fault::newer("data.part: interim records are not known to this version"));
    }
    let source = read_head(envelope)?;
    let subject =
        envelope.subject.as_ref().map(|text| text.0.as_ref()).ok_or_else(|| Fault::malformed("subject", "missing"))?;
    let event = UsageEvent {
        event_id: member("id", &envelope.id)?,
        source,
        tenant_id: member("subject", subject)?,
        user_id: member("data.user_id", &data.user_id)?,
        ts: moment(&envelope.time)?,
        traceparent: envelope.traceparent.clone().filter(|text| is_traceparent(text)),
        request_id: member("data.request_id", &data.request_id)?,
        client_request_id: optional("data.client_request_id", data.client_request_id.as_ref())?,
        route: RoutePattern::recorded(&data.route).ok_or_else(|| Fault::malformed("data.route", "no route"))?,
        action: member("data.action", &data.action)?,
        units: member("data.units", &data.units)?,
        outcome: member("data.outcome", &data.outcome)?,
        fingerprint: optional("data.fingerprint", data.fingerprint.as_ref())?,
        epoch: member("data.epoch", &data.epoch)?,
        seq: number("data.seq", data.seq, 1)?,
        metadata: metadata(data)?,
    };
    match &event.client_request_id {
        Some(id) if *id != event.request_id => {
            Err(Fault::malformed("data.client_request_id", "neither null nor data.request_id"))
        }
        _ => Ok(event),
    }
}

/// Returns what is kept as metadata is never a reason to refuse an event, as long as its types are right: `metadata_json` makes
/// it fit.
fn metadata(data: EventData<'_>) -> Result<CallMetadata, Fault> {
    Ok(CallMetadata {
        response_bytes: digits(&data.response_size)
            .ok_or_else(|| Fault::malformed("data.response_size", "not a string of digits"))?,
        processing_micros: seconds(data.processing_time.get())
            .ok_or_else(|| Fault::malformed("data.processing_time", "not a number of seconds"))?,
        method: data.method,
        status_code: data.status_code,
        user_agent: data.user_agent,
        client_ip: data.client_ip,
    })
}

fn read_seal(envelope: &EventEnvelope<'_, &RawValue>) -> Result<Seal, Fault> {
    let data: SealData<'_> = object("data", envelope.data.get().as_bytes())?;
    let source = read_head(envelope)?;
    let last_seq = number("data.last_seq", data.last_seq, 0)?;
    let mut known = BTreeSet::new();
    let mut blocks = Vec::with_capacity(data.blocks.len());
    for block in data.blocks {
        let block: BlockData<'_> = object("data.blocks", block.get().as_bytes())?;
        let possible = last_seq > 0 && block.block <= Seal::block_of(last_seq);
        if !possible || u64::from(block.count) > Seal::BLOCK_EVENTS || !known.insert(block.block) {
            return Err(Fault::malformed("data.blocks", "a block beyond last_seq, overfull, or given twice"));
        }
        let hash = member("data.blocks.hash", &block.hash)?;
        blocks.push(SealBlock { block: block.block, count: block.count, hash });
    }
    Ok(Seal {
        id: Uuid::try_parse(&envelope.id).map_err(|_| Fault::malformed("id", "not a UUID"))?,
        source,
        ts: moment(&envelope.time)?,
        epoch: member("data.epoch", &data.epoch)?,
        last_seq,
        count: number("data.count", data.count, 0)?,
        unrecorded: number("data.unrecorded", data.unrecorded, 0)?,
        closed: data.closed,
        blocks,
    })
}

/// A value that is an object. (Left alone, serde takes an array for one, by position.)
struct JsonObject<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: serde::Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(OfMembers(PhantomData)).map(Self)
    }
}

struct OfMembers<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMembers<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// An object by its members' names.
fn object<'a, T: Deserialize<'a>>(name: &str, json: &'a [u8]) -> Result<T, Fault> {
    if json.trim_ascii_start().starts_with(b"[") {
        return Err(Fault::malformed(name, "not an object"));
    }
    serde_json::from_slice(json).map_err(|error| Fault::json(name, &error))
}

/// Returns what every CloudEvent of ours has.
fn read_head<D>(envelope: &EventEnvelope<'_, D>) -> Result<crate::Source, Fault> {
    if envelope.specversion != "1.0" {
        return Err(Fault::malformed("specversion", "not 1.0"));
    }
    member("source", &envelope.source)
}

fn member<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error| Fault::malformed(name, error))
}

fn optional<T: FromStr<Err: Display>>(name: &str, text: Option<&Text<'_>>) -> Result<Option<T>, Fault> {
    text.map(|text| member(name, &text.0)).transpose()
}

/// A number the ledger's BIGINT can hold.
fn number(name: &str, value: u64, least: u64) -> Result<u64, Fault> {
    if value >= least && i64::try_from(value).is_ok() {
        Ok(value)
    } else {
        Err(Fault::malformed(name, format_args!("not from {least} to {}", i64::MAX)))
    }
}

/// RFC 3339 with any offset and precision; a bare date is no moment here.
fn moment(text: &str) -> Result<Timestamp, Fault> {
    if text.len() <= "2026-01-31".len() {
        return Err(Fault::malformed("time", "not RFC 3339"));
    }
    member("time", text)
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A JSON number of seconds as microseconds: exactly as we write it; rounded when a tool wrote it again its own way.
fn seconds(number: &str) -> Option<u64> {
    if let Ok(micros) = decimal::parse_micro_any(number) {
        return Some(micros);
    }
    let micros = (number.parse::<f64>().ok()? * 1e6).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..9e18).contains(&micros).then_some(micros as u64)
}

/// A later version may say more, but not without end, and nothing that is no header value.
fn is_traceparent(text: &str) -> bool {
    text.len() <= TRACEPARENT_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text.parse::<TraceContext>().is_ok()
}

/// A string, or nothing whatever else it is: a damaged trace is no reason to lose an event.
fn text_or_nothing<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let raw = <&RawValue>::deserialize(value)?;
    Ok(serde_json::from_str(raw.get()).ok())
}
