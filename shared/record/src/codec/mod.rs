//! The bytes the spool keeps, version 1. Old bytes are always read: a version is added, never changed, and the golden
//! files under `shared/record/tests/golden/` hold every version ever written.
//!
//! The version byte lives in the spool's own record. Numbers are little-endian, a text is its length in bytes (`u16`)
//! and UTF-8. No field is ever optional by position: a flags byte says which texts follow.
//!
//! - INTENT: a *call*.
//! - SETTLE: the same *call*, byte for byte, and a *settlement* behind it; so a SETTLE is self-contained, costs no second
//!   encoding, and recovery settles an orphan by appending to the bytes it found.
//! - VOID: version and reason, two bytes; for people who read a spool, no program needs it.
//! - SEAL (a note): one seal.

mod bytes;
mod error;
mod seal;
#[cfg(test)]
mod tests;

use goldleaves_domain::{
    Action, CallMetadata, Epoch, EventId, Fingerprint, Outcome, RequestId, RoutePattern, Source, TenantId, Timestamp,
    Units, UsageEvent, UserId,
};
use uuid::Uuid;

pub(crate) use self::bytes::Cut;
use self::bytes::put_text;
pub(crate) use self::error::CodecError;
use self::error::check_version;
pub(crate) use self::seal::{SEAL_VERSION, decode_seal, encode_seal, put_blocks, take_blocks, take_flag};
use super::call::{CallIntent, Settlement, VoidReason};

/// The version of INTENT and SETTLE that this program writes.
pub(crate) const CALL_VERSION: u8 = 1;
/// The version of a VOID.
const VOID_VERSION: u8 = 1;

/// The longest method kept; every registered one is shorter.
const METHOD_BYTES_MAX: usize = 64;
/// The longest user agent kept: the ledger's metadata column holds no more.
const USER_AGENT_BYTES_MAX: usize = 2_000;
/// The longest client address kept; an IPv6 address with a zone is shorter.
const CLIENT_IP_BYTES_MAX: usize = 64;
/// A longer `traceparent` is not one.
const TRACEPARENT_BYTES_MAX: usize = 255;
/// Room for any settlement but one with a long action, so that settling seldom allocates.
const SETTLEMENT_BYTES: usize = 128;

const HAS_TRACEPARENT: u8 = 1;
const REQUEST_ID_IS_CLIENTS: u8 = 1 << 1;
const HAS_USER_AGENT: u8 = 1 << 2;
const HAS_CLIENT_IP: u8 = 1 << 3;

const HAS_ACTION: u8 = 1;
const HAS_FINGERPRINT: u8 = 1 << 1;

/// The bytes of an INTENT, with room for the settlement behind them.
pub(crate) fn encode_call<T: AsRef<str>>(call: &CallIntent<T>) -> Vec<u8> {
    let traceparent = call.traceparent.as_ref().map(T::as_ref).filter(|value| is_header_safe(value));
    let user_agent = call.user_agent.as_ref().map(|value| bytes::cut(value.as_ref(), USER_AGENT_BYTES_MAX));
    let client_ip = call.client_ip.as_ref().map(|value| bytes::cut(value.as_ref(), CLIENT_IP_BYTES_MAX));
    let is_clients = call.client_request_id.as_ref() == Some(&call.request_id);

    let texts = [call.tenant_id.as_str(), call.user_id.as_str(), call.request_id.as_str(), call.route.as_str()];
    let text_bytes: usize = texts.iter().map(|text| text.len() + 2).sum();
    let optional_bytes = user_agent.map_or(0, str::len) + traceparent.map_or(0, str::len);
    let mut out = Vec::with_capacity(160 + text_bytes + optional_bytes + SETTLEMENT_BYTES);

    out.push(
        flag(traceparent.is_some(), HAS_TRACEPARENT)
            | flag(is_clients, REQUEST_ID_IS_CLIENTS)
            | flag(user_agent.is_some(), HAS_USER_AGENT)
            | flag(client_ip.is_some(), HAS_CLIENT_IP),
    );
    out.extend_from_slice(call.event_id.as_uuid().as_bytes());
    out.extend_from_slice(&call.ts.unix_micros().to_le_bytes());
    texts.into_iter().for_each(|text| put_text(&mut out, text));
    put_text(&mut out, bytes::cut(call.method.as_ref(), METHOD_BYTES_MAX));
    [traceparent, user_agent, client_ip].into_iter().flatten().for_each(|text| put_text(&mut out, text));
    out
}

const fn flag(present: bool, bit: u8) -> u8 {
    if present { bit } else { 0 }
}

/// Returns whether a text can travel as a header: 1 to 255 visible ASCII characters.
fn is_header_safe(value: &str) -> bool {
    (1..=TRACEPARENT_BYTES_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Appends a settlement to the bytes of its call, which makes them a SETTLE.
pub(crate) fn append_settlement(call: &mut Vec<u8>, settlement: &Settlement) {
    let units = if settlement.outcome.is_billable() { settlement.units } else { Units::ZERO };
    call.push(outcome_code(settlement.outcome));
    call.extend_from_slice(&settlement.status_code.to_le_bytes());
    call.extend_from_slice(&units.micro().to_le_bytes());
    call.extend_from_slice(&settlement.response_bytes.to_le_bytes());
    call.extend_from_slice(&settlement.processing_micros.to_le_bytes());
    let action = settlement.action.as_ref().map(Action::as_str);
    let fingerprint = settlement.fingerprint.as_ref().map(Fingerprint::as_str);
    call.push(flag(action.is_some(), HAS_ACTION) | flag(fingerprint.is_some(), HAS_FINGERPRINT));
    [action, fingerprint].into_iter().flatten().for_each(|text| put_text(call, text));
}

/// Returns what is said of a call that nobody saw the end of.
pub(crate) const fn unknown_settlement() -> Settlement {
    Settlement {
        outcome: Outcome::Unknown,
        status_code: 0,
        units: Units::ZERO,
        action: None,
        response_bytes: 0,
        processing_micros: 0,
        fingerprint: None,
    }
}

/// The bytes of a VOID.
pub(crate) const fn encode_void(reason: VoidReason) -> [u8; 2] {
    [VOID_VERSION, reason as u8]
}

/// Reads an INTENT.
///
/// # Errors
/// Newer versions and bytes that are no call.
pub(crate) fn decode_call(version: u8, payload: &[u8]) -> Result<CallIntent, CodecError> {
    check_version(version, CALL_VERSION)?;
    let mut cut = Cut::new(payload);
    let call = take_call(&mut cut)?;
    cut.finish()?;
    Ok(call)
}

/// Reads the call at the beginning of an INTENT or a SETTLE.
///
/// # Errors
/// Newer versions and bytes that begin with no call.
pub(crate) fn peek_call(version: u8, payload: &[u8]) -> Result<CallIntent, CodecError> {
    check_version(version, CALL_VERSION)?;
    take_call(&mut Cut::new(payload))
}

/// Where a SETTLE stands in the spool: what its own bytes do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SettlePlace {
    /// The gateway.
    pub(crate) source: Source,
    /// The start that settled it.
    pub(crate) epoch: Epoch,
    /// Its number within the epoch.
    pub(crate) seq: u64,
}

/// Reads a SETTLE as the event it is.
///
/// # Errors
/// Newer versions and bytes that are no SETTLE.
pub(crate) fn decode_event(version: u8, payload: &[u8], place: SettlePlace) -> Result<UsageEvent, CodecError> {
    check_version(version, CALL_VERSION)?;
    let mut cut = Cut::new(payload);
    let call = take_call(&mut cut)?;
    let settlement = take_settlement(&mut cut)?;
    cut.finish()?;
    Ok(event(call, settlement, place))
}

fn take_call(cut: &mut Cut<'_>) -> Result<CallIntent, CodecError> {
    let flags = cut.u8("flags")?;
    let event_id = EventId::new(Uuid::from_bytes(cut.array("event_id")?));
    let ts = Timestamp::from_unix_micros(i64::from_le_bytes(cut.array("ts")?));
    let ts = ts.map_err(|_| CodecError::Invalid("ts"))?;
    let tenant_id: TenantId = cut.parse("tenant_id")?;
    let user_id: UserId = cut.parse("user_id")?;
    let request_id: RequestId = cut.parse("request_id")?;
    let route = RoutePattern::recorded(cut.text("route")?).ok_or(CodecError::Invalid("route"))?;
    let method = cut.text("method")?.to_owned();
    let traceparent = cut.optional(flags & HAS_TRACEPARENT, "traceparent")?;
    let client_request_id = (flags & REQUEST_ID_IS_CLIENTS != 0).then(|| request_id.clone());
    let user_agent = cut.optional(flags & HAS_USER_AGENT, "user_agent")?;
    let client_ip = cut.optional(flags & HAS_CLIENT_IP, "client_ip")?;
    Ok(CallIntent {
        event_id,
        tenant_id,
        user_id,
        ts,
        traceparent,
        request_id,
        client_request_id,
        route,
        method,
        user_agent,
        client_ip,
    })
}

fn take_settlement(cut: &mut Cut<'_>) -> Result<Settlement, CodecError> {
    let outcome = outcome_of(cut.u8("outcome")?)?;
    let status_code = u16::from_le_bytes(cut.array("status_code")?);
    let units = Units::from_micro(cut.u64("units")?).ok_or(CodecError::Invalid("units"))?;
    let response_bytes = cut.u64("response_bytes")?;
    let processing_micros = cut.u64("processing_micros")?;
    let flags = cut.u8("flags")?;
    let action = if flags & HAS_ACTION == 0 { None } else { Some(cut.parse("action")?) };
    let fingerprint = if flags & HAS_FINGERPRINT == 0 { None } else { Some(cut.parse("fingerprint")?) };
    Ok(Settlement { outcome, status_code, units, action, response_bytes, processing_micros, fingerprint })
}

fn event(call: CallIntent, settlement: Settlement, place: SettlePlace) -> UsageEvent {
    UsageEvent {
        event_id: call.event_id,
        source: place.source,
        tenant_id: call.tenant_id,
        user_id: call.user_id,
        ts: call.ts,
        traceparent: call.traceparent,
        request_id: call.request_id,
        client_request_id: call.client_request_id,
        route: call.route,
        action: settlement.action.unwrap_or_else(|| Action::of_method(&call.method)),
        units: settlement.units,
        metadata: CallMetadata {
            method: call.method,
            status_code: settlement.status_code,
            user_agent: call.user_agent,
            client_ip: call.client_ip,
            response_bytes: settlement.response_bytes,
            processing_micros: settlement.processing_micros,
        },
        outcome: settlement.outcome,
        fingerprint: settlement.fingerprint,
        epoch: place.epoch,
        seq: place.seq,
    }
}

const fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Completed => 1,
        Outcome::ClientAborted => 2,
        Outcome::GatewayStopped => 3,
        Outcome::UpstreamAborted => 4,
        Outcome::Unknown => 5,
    }
}

fn outcome_of(code: u8) -> Result<Outcome, CodecError> {
    Outcome::ALL.into_iter().find(|&outcome| outcome_code(outcome) == code).ok_or(CodecError::Invalid("outcome"))
}
