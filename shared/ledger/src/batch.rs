//! A batch as it comes from the transport, sorted into what the ledger does with each message.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use goldleaves_domain::wire::{self, Message, Unreadable, UnreadableReason};
use goldleaves_domain::{Candidate, EventId, ImmutableColumns, Outcome, Seal, Timestamp, UsageEvent, hex_text};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::progress::Note;
use crate::{LedgerError, StreamPlace};

/// The reason of what can be read and not be recorded.
const REFUSED: &str = "refused";
/// The reason of an event whose time lies too far ahead of the moment it was stored.
const CLOCK: &str = "clock";

/// Every reason for which a message is set aside.
pub fn reasons_to_set_aside() -> impl Iterator<Item = &'static str> {
    let unbilled = Outcome::ALL.into_iter().filter(|outcome| !outcome.is_billable()).map(Outcome::as_str);
    UnreadableReason::ALL.into_iter().map(UnreadableReason::as_str).chain([REFUSED, CLOCK]).chain(unbilled)
}

/// One event or seal and what it says.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The bytes of it alone, kept when the message is set aside.
    pub payload: Bytes,
    /// The message, as far as it could be read.
    pub parsed: Result<Message, Unreadable>,
    /// The part of a stream that is done with it, if it came from one, and if nothing of its message comes behind it.
    pub place: Option<StreamPlace>,
    /// When it was stored on its way here; `None`: nobody knows.
    pub stored: Option<Timestamp>,
}

impl Incoming {
    /// Reads a message: an event or a seal, or several, each by itself. What can't be read is a dead letter to be, and costs
    /// none of the others. There is always one at least; the place is the last one's, which goes in last or with the others.
    pub fn of_message(payload: &Bytes, place: Option<StreamPlace>) -> Vec<Self> {
        let incoming = wire::parse_all(payload).into_iter().map(|wire::Part { place, read }| {
            let payload = payload.slice(place);
            Self { payload, parsed: read, place: None, stored: None }
        });
        let mut incoming: Vec<Self> = incoming.collect();
        if let Some(last) = incoming.last_mut() {
            last.place = place;
        }
        incoming
    }

    /// Reads what is one event or seal, or none; what can't be read is a dead letter to be.
    pub fn parse(payload: Bytes) -> Self {
        let parsed = wire::parse(&payload);
        Self { payload, parsed, place: None, stored: None }
    }

    /// Returns whether it is a seal, which the ledger does not keep by its id.
    pub const fn is_seal(&self) -> bool {
        matches!(self.parsed, Ok(Message::Seal(_)))
    }

    /// The same, stored at this moment: an event from a clock that is far ahead of it is set aside.
    #[must_use]
    pub fn stored(self, stored: Timestamp) -> Self {
        Self { stored: Some(stored), ..self }
    }

    /// The same from this place.
    #[must_use]
    pub fn at(self, place: StreamPlace) -> Self {
        Self { place: Some(place), ..self }
    }
}

/// The changes that a batch made, counted from rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Events billed.
    pub inserted: u64,
    /// Events recognised as repeats.
    pub duplicates: u64,
    /// Messages that were there before: nothing changed for them.
    pub replays: u64,
    /// Earlier rows that changed between billed and repeat because of what came.
    pub displaced: u64,
    /// Messages set aside, by reason.
    pub set_aside: BTreeMap<String, u64>,
    /// Seals read.
    pub seals: u64,
    /// Transactions that were run again because a rate card had appeared.
    pub rate_card_retries: u64,
    /// Hours that were marked because they changed after their end, once for each transaction.
    pub late_changes: u64,
    /// The cents of the rows billed by route, each rounded by itself, less what was displaced: for watching, not for
    /// billing.
    pub cost_cents: BTreeMap<String, i64>,
}

/// Where and as what an event was delivered: what a receipt is written for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) epoch: Uuid,
    pub(crate) seq: i64,
    pub(crate) digest: [u8; 32],
}

/// A billable event and what the ledger derives from it.
#[derive(Debug)]
pub(crate) struct EventRow<'a> {
    pub(crate) event: &'a UsageEvent,
    pub(crate) metadata: String,
    pub(crate) arrivals: Vec<Arrival>,
}

impl EventRow<'_> {
    pub(crate) fn id(&self) -> Uuid {
        *self.event.event_id.as_uuid()
    }

    pub(crate) fn units_micro(&self) -> i64 {
        i64::try_from(self.event.units.micro()).unwrap_or(i64::MAX)
    }

    pub(crate) fn seq(&self) -> i64 {
        i64::try_from(self.event.seq).unwrap_or(i64::MAX)
    }

    pub(crate) fn candidate(&self) -> Candidate {
        let event = self.event;
        let completed = event.outcome == Outcome::Completed;
        Candidate { event_id: event.event_id, ts: event.ts, completed }
    }
}

/// A message that is set aside.
#[derive(Debug)]
pub(crate) struct DeadLetter<'a> {
    pub(crate) id: String,
    pub(crate) event_id: Option<EventId>,
    pub(crate) tenant_id: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) reason: &'a str,
    pub(crate) detail: Option<&'a str>,
    pub(crate) payload: &'a [u8],
    pub(crate) epoch: Option<Uuid>,
    pub(crate) seq: Option<i64>,
    pub(crate) ts: Option<Timestamp>,
    pub(crate) arrivals: Vec<Arrival>,
}

/// Returns the rank of a dead letter by what it knows; billable events rank above all.
pub(crate) fn rank(reason: &str) -> u8 {
    match reason {
        "upstream_aborted" => 2,
        "unknown" => 1,
        _ => 0,
    }
}

/// A batch, sorted. Every event is in it once.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    /// By label, then by rank, so that of equal labels the likeliest to stay comes first and two batches never wait
    /// for each other crosswise.
    pub(crate) events: Vec<EventRow<'a>>,
    /// By id; of one id the highest rank.
    pub(crate) letters: Vec<DeadLetter<'a>>,
    /// By epoch.
    pub(crate) seals: Vec<&'a Seal>,
    /// Copies of what is in the lists.
    pub(crate) copies: u64,
}

impl<'a> Batch<'a> {
    pub(crate) fn sort(incoming: &'a [Incoming]) -> Result<Self, LedgerError> {
        let mut batch = Self::default();
        for message in incoming {
            match &message.parsed {
                Ok(Message::Event(event)) => batch.take_event(event, message)?,
                Ok(Message::Seal(seal)) => batch.seals.push(storable_seal(seal)?),
                Err(unreadable) => batch.letters.push(unreadable_letter(unreadable, &message.payload)),
            }
        }
        batch.events.sort_by(|a, b| {
            let key = |row: &EventRow<'_>| (row.candidate().rank(), row.event.epoch, row.event.seq);
            a.event.request_id.as_str().cmp(b.event.request_id.as_str()).then_with(|| key(a).cmp(&key(b)))
        });
        batch.letters.sort_by(|a, b| (&a.id, Reverse(rank(a.reason))).cmp(&(&b.id, Reverse(rank(b.reason)))));
        batch.seals.sort_by_key(|seal| (seal.epoch, seal.ts, seal.id));
        batch.merge_copies();
        Ok(batch)
    }

    fn take_event(&mut self, event: &'a UsageEvent, message: &'a Incoming) -> Result<(), LedgerError> {
        let unstorable = |what| LedgerError::Unstorable { message_id: event.event_id.to_string(), what };
        let seq = i64::try_from(event.seq).ok().filter(|seq| *seq > 0);
        let seq = seq.ok_or_else(|| unstorable("the sequence number is outside the range of the column"))?;
        let metadata = event.metadata_json();
        let digest = ImmutableColumns::of(event, &metadata).digest();
        let arrivals = vec![Arrival { epoch: *event.epoch.as_uuid(), seq, digest }];
        let is_wrong = message.stored.is_some_and(|stored| event.is_from_a_wrong_clock(stored));
        if event.outcome.is_billable() && !is_wrong {
            self.events.push(EventRow { event, metadata, arrivals });
        } else {
            let reason = if event.outcome.is_billable() { CLOCK } else { event.outcome.as_str() };
            self.letters.push(DeadLetter { arrivals, ..event_letter(event, &message.payload, reason) });
        }
        Ok(())
    }

    /// Keeps one row an event; what came under other sequence numbers goes with it.
    fn merge_copies(&mut self) {
        let (mut events, mut places) = (Vec::<EventRow<'a>>::with_capacity(self.events.len()), HashMap::new());
        for row in self.events.drain(..) {
            let place = *places.entry(row.id()).or_insert(events.len());
            match events.get_mut(place) {
                Some(first) => {
                    self.copies += 1;
                    first.arrivals.extend(row.arrivals);
                }
                None => events.push(row),
            }
        }
        self.events = events;
        self.letters.dedup_by(|copy, first| {
            let is_copy = copy.id == first.id;
            if is_copy {
                self.copies += 1;
                first.arrivals.append(&mut copy.arrivals);
            }
            is_copy
        });
    }
}

fn storable_seal(seal: &Seal) -> Result<&Seal, LedgerError> {
    let numbers = [seal.last_seq, seal.count, seal.unrecorded];
    let mut numbers = numbers.into_iter().chain(seal.blocks.iter().map(|block| block.block));
    if numbers.all(|number| i64::try_from(number).is_ok()) {
        return Ok(seal);
    }
    let what = "a number of the seal is outside the range of the column";
    Err(LedgerError::Unstorable { message_id: seal.id.as_hyphenated().to_string(), what })
}

/// A dead letter of an event that could be read.
fn event_letter<'a>(event: &'a UsageEvent, payload: &'a [u8], reason: &'a str) -> DeadLetter<'a> {
    DeadLetter {
        id: event.event_id.to_string(),
        event_id: Some(event.event_id),
        tenant_id: Some(event.tenant_id.as_str()),
        request_id: Some(event.request_id.as_str()),
        reason,
        detail: None,
        payload,
        epoch: Some(*event.epoch.as_uuid()),
        seq: i64::try_from(event.seq).ok(),
        ts: Some(event.ts),
        arrivals: Vec::new(),
    }
}

/// A dead letter of what can't be read. It has no receipt: its digest is known only to whoever can read it.
fn unreadable_letter<'a>(unreadable: &'a Unreadable, payload: &'a [u8]) -> DeadLetter<'a> {
    DeadLetter {
        id: unreadable.event_id.map_or_else(|| content_id(payload), |id| id.to_string()),
        event_id: unreadable.event_id,
        tenant_id: unreadable.tenant_id.as_deref(),
        request_id: unreadable.request_id.as_deref(),
        reason: unreadable.reason.as_str(),
        detail: Some(&unreadable.detail),
        payload,
        epoch: unreadable.epoch.map(|epoch| *epoch.as_uuid()),
        seq: unreadable.seq.and_then(|seq| i64::try_from(seq).ok()),
        ts: unreadable.ts,
        arrivals: Vec::new(),
    }
}

/// The places of a batch in its stream.
pub(crate) fn notes(incoming: &[Incoming]) -> Vec<Note<'_>> {
    let note = |message: &Incoming| message.stored.map_or(0, Timestamp::unix_micros);
    incoming.iter().filter_map(|message| Some(Note { place: message.place.as_ref()?, micros: note(message) })).collect()
}

/// A dead letter of what could be read but not recorded.
pub(crate) fn refused_letter<'a>(message: &'a Incoming, detail: &'a str) -> DeadLetter<'a> {
    let letter = match &message.parsed {
        Ok(Message::Event(event)) => event_letter(event, &message.payload, REFUSED),
        Ok(Message::Seal(seal)) => DeadLetter {
            id: content_id(&message.payload),
            event_id: None,
            tenant_id: None,
            request_id: None,
            reason: REFUSED,
            detail: None,
            payload: &message.payload,
            epoch: Some(*seal.epoch.as_uuid()),
            seq: None,
            ts: Some(seal.ts),
            arrivals: Vec::new(),
        },
        Err(unreadable) => unreadable_letter(unreadable, &message.payload),
    };
    DeadLetter { detail: Some(detail), ..letter }
}

/// SHA-256 of the bytes, in hex.
pub(crate) fn content_id(payload: &[u8]) -> String {
    hex_text(&Sha256::digest(payload))
}
