//! From the records of a window to messages: events of one tenant share them, where the receiver takes several in one.
//!
//! The receiver drops a message whose id it knows, and the id of several events is the first one's and their number. So
//! **the same id has to mean the same events**, however often, and in whatever windows, they are read again. It does,
//! because a message holds a tenant's events one after the other, none left out, from a run of records in which no
//! sequence number of the epoch is missing: the first event and the number then say which the others are. Where a record
//! is missing, damaged or of a newer program, every message is closed: another reading may know better what was there.
//! What recovery settled (`unknown`) travels alone: of all events these alone may come in two epochs.

use std::collections::HashMap;

use goldleaves_domain::wire::EventBatch;
use goldleaves_domain::{Delivery, Outcome, Source, TenantId, UsageEvent};
use goldleaves_spool::{Record, RecordKind};
use uuid::Uuid;

use super::delivery::{self, ReadRecord};

/// The limits of the receiver.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackingLimits {
    /// The most bytes of any message, once the receiver refused a larger one.
    pub(super) bytes_max: Option<usize>,
    /// The most bytes of a message with several events; `None`: each has its own.
    pub(super) packs: Option<usize>,
}

/// The messages of these records, in the order of the first record of each; where a record alone is larger than the
/// receiver takes, its parts.
pub(super) fn messages(window: &[(Record, ReadRecord)], source: Source, limits: PackingLimits) -> Vec<Delivery> {
    let mut packer = Packer { source, limits, slots: Vec::new(), open: HashMap::new(), last: None };
    window.iter().for_each(|(record, read)| packer.take(record, read));
    packer.finish()
}

/// A message to be, and the record it begins with.
struct PackSlot<'a> {
    record: &'a Record,
    what: PackedKind,
}

enum PackedKind {
    Several(EventBatch),
    One(Delivery),
}

struct Packer<'a> {
    source: Source,
    limits: PackingLimits,
    slots: Vec<PackSlot<'a>>,
    /// The slots that may still grow.
    open: HashMap<&'a TenantId, usize>,
    /// The newest sequence number, and whose it is.
    last: Option<(Uuid, u64)>,
}

impl<'a> Packer<'a> {
    fn take(&mut self, record: &'a Record, read: &'a ReadRecord) {
        if let RecordKind::Publish { seq } = record.kind {
            let here = (record.epoch, seq);
            let follows = self.last.is_some_and(|(epoch, last)| here == (epoch, last.saturating_add(1)));
            if !follows || matches!(read, ReadRecord::Unreadable(_)) {
                self.open.clear();
            }
            self.last = Some(here);
        }
        match (read, self.limits.packs) {
            (ReadRecord::Event(event), Some(packs)) if event.outcome != Outcome::Unknown => {
                self.pack(record, event, packs.min(self.limits.bytes_max.unwrap_or(usize::MAX)));
            }
            _ => {
                if let ReadRecord::Event(event) = read {
                    self.open.remove(&event.tenant_id);
                }
                let what = PackedKind::One(delivery::message(record, read, self.source));
                self.slots.push(PackSlot { record, what });
            }
        }
    }

    fn pack(&mut self, record: &'a Record, event: &'a UsageEvent, bytes_max: usize) {
        let place = self.open.entry(&event.tenant_id).or_insert(self.slots.len());
        let added = match self.slots.get_mut(*place).map(|slot| &mut slot.what) {
            Some(PackedKind::Several(batch)) => batch.add(event, bytes_max),
            _ => false,
        };
        if !added {
            *place = self.slots.len();
            self.slots.push(PackSlot { record, what: PackedKind::Several(EventBatch::of(event)) });
        }
    }

    fn finish(self) -> Vec<Delivery> {
        let Self { source, limits, slots, .. } = self;
        let mut messages = Vec::with_capacity(slots.len());
        for PackSlot { record, what } in slots {
            let whole = match what {
                PackedKind::Several(batch) => batch.finish(),
                PackedKind::One(delivery) => delivery,
            };
            let most = limits.bytes_max.filter(|most| whole.payload.len() > *most);
            match most.and_then(|most| delivery::parts(record, &whole, source, most)) {
                Some(parts) => messages.extend(parts),
                None => messages.push(whole),
            }
        }
        messages
    }
}
