//! Events to record, told by what a test is about and ordinary in everything else.

use goldleaves_domain::wire::{Message, encode_event, encode_seal};
use goldleaves_domain::{Epoch, EventId, Seal, SealBlock, SetHash, Source, Timestamp, UsageEvent};
use goldleaves_ledger::Incoming;
use goldleaves_testkit::usage;
use uuid::Uuid;

/// 2026-03-10T10:00:00Z.
pub(crate) const TEN: &str = "2026-03-10T10:00:00Z";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn epoch() -> Epoch {
    Epoch::new(Uuid::from_u128(0xe0))
}

pub(crate) fn source() -> Source {
    Source::new(Uuid::from_u128(0x50))
}

pub(crate) fn id(number: u64) -> EventId {
    EventId::new(Uuid::from_u128(0x1000_0000_0000_0000_0000_0000 + u128::from(number)))
}

/// An ordinary event: its number is its sequence number and its place in time, in seconds after ten.
pub(crate) fn event(number: u64) -> UsageEvent {
    UsageEvent {
        event_id: id(number),
        source: source(),
        ts: at(TEN).plus_micros(i64::try_from(number).unwrap() * 1_000_000).unwrap(),
        request_id: format!("made-{number}").parse().unwrap(),
        fingerprint: Some(fingerprint(0)),
        epoch: epoch(),
        seq: number,
        ..usage::event()
    }
}

pub(crate) fn fingerprint(number: u8) -> goldleaves_domain::Fingerprint {
    format!("v1:{number:064x}").parse().unwrap()
}

/// The same event, with the id its client chose.
pub(crate) fn with_client_id(mut event: UsageEvent, id: &str) -> UsageEvent {
    event.request_id = id.parse().unwrap();
    event.client_request_id = Some(id.parse().unwrap());
    event
}

pub(crate) fn incoming(event: &UsageEvent) -> Incoming {
    Incoming {
        payload: encode_event(event),
        parsed: Ok(Message::Event(Box::new(event.clone()))),
        place: None,
        stored: None,
    }
}

pub(crate) fn batch<'a>(events: impl IntoIterator<Item = &'a UsageEvent>) -> Vec<Incoming> {
    events.into_iter().map(incoming).collect()
}

pub(crate) fn incoming_seal(seal: &Seal) -> Incoming {
    Incoming {
        payload: encode_seal(seal),
        parsed: Ok(Message::Seal(Box::new(seal.clone()))),
        place: None,
        stored: None,
    }
}

/// Returns what the gateway says of these events, all of one block.
pub(crate) fn seal_of(events: &[UsageEvent]) -> Seal {
    let mut hash = SetHash::EMPTY;
    events.iter().for_each(|event| hash.insert(event));
    let count = events.len() as u64;
    Seal {
        id: Uuid::from_u128(0x5ea1_0000 + u128::from(count)),
        source: source(),
        ts: at("2026-03-10T11:00:00Z").plus_micros(i64::try_from(count).unwrap()).unwrap(),
        epoch: epoch(),
        last_seq: events.iter().map(|event| event.seq).max().unwrap_or_default(),
        count,
        unrecorded: 0,
        closed: false,
        blocks: vec![SealBlock { block: 0, count: u32::try_from(count).unwrap(), hash }],
    }
}
