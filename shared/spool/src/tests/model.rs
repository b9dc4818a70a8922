//! A model of what a spool must do, in a few maps, and the comparison after every reading and every crash.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::disk::{Dice, Fault, MemoryDisk, Op};
use crate::keeper::Round;
use crate::*;

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {} of {}, {} bytes", self.seq, self.epoch, self.payload.len())
    }
}

#[derive(Clone)]
struct Intent {
    payload: Vec<u8>,
    settled: Option<Settled>,
}

#[derive(Debug, Clone, Copy)]
struct Settled {
    lsn: u64,
    published: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Kept {
    seq: u64,
    epoch: Uuid,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct EpochModel {
    last_seq: u64,
    first_use: Option<u64>,
    unrecorded: u64,
    unrecorded_synced: u64,
    /// The count as it was synced before the last crash.
    unrecorded_proven: u64,
    closed: Option<u64>,
}

/// A disk, a spool on it that is driven step by step, and what it must hold.
pub(super) struct World {
    pub(super) disk: MemoryDisk,
    pub(super) options: SpoolOptions,
    dice: Dice,
    spool: Option<Spool>,
    reader: Option<Reader>,
    intents: BTreeMap<u64, Intent>,
    records: BTreeMap<u64, Kept>,
    epochs: BTreeMap<Uuid, EpochModel>,
    durable: u64,
    /// The last LSN that was durable before the last crash.
    proven: u64,
    acknowledged: u64,
    read_to: u64,
    delivered: Vec<u64>,
    faulty: bool,
    /// True if the kernel ever lost what it had.
    is_cut: bool,
    pub(super) refused: u64,
}

pub(super) fn options() -> SpoolOptions {
    SpoolOptions {
        bytes_max: 8 * SEGMENT_BYTES_MIN,
        segment_bytes: SEGMENT_BYTES_MIN,
        sync_pause: Duration::ZERO,
        settlement_slack: 200,
        stage_bytes: 2 << 20,
        retain: Duration::from_secs(3600),
        ..SpoolOptions::new(PathBuf::from("/spool"))
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            disk: MemoryDisk::new(seed),
            options: options(),
            dice: Dice(seed ^ 0x5eed),
            spool: None,
            reader: None,
            intents: BTreeMap::new(),
            records: BTreeMap::new(),
            epochs: BTreeMap::new(),
            durable: 0,
            proven: 0,
            acknowledged: 0,
            read_to: 0,
            delivered: Vec::new(),
            faulty: false,
            is_cut: false,
            refused: 0,
        }
    }

    pub(super) fn spool(&self) -> &Spool {
        self.spool.as_ref().expect("open")
    }

    pub(super) fn open_intents(&self) -> Vec<u64> {
        self.intents.iter().filter(|(_, intent)| intent.settled.is_none()).map(|(lsn, _)| *lsn).collect()
    }

    pub(super) fn fail(&mut self, fault: Option<Fault>) {
        self.faulty |= fault.is_some();
        self.disk.fail(fault);
    }

    // === what a caller does ===

    pub(super) fn intend(&mut self, bytes: usize) -> Option<u64> {
        let payload = self.payload(bytes);
        let Ok(intent) = self.spool().intent(1, &payload) else {
            self.spool().unrecorded();
            self.own_epoch(|epoch| epoch.unrecorded += 1);
            self.refused += 1;
            return None;
        };
        self.used(intent.0);
        self.intents.insert(intent.0, Intent { payload, settled: None });
        Some(intent.0)
    }

    /// Settles the `nth` open intent with as much as was reserved: that must not fail.
    pub(super) fn settle(&mut self, nth: u64, publish: bool) {
        let open = self.open_intents();
        let Some(lsn) = open.get((nth % open.len().max(1) as u64) as usize).copied() else { return };
        let bytes = self.intents[&lsn].payload.len() + self.dice.below(201) as usize;
        let payload = self.payload(bytes);
        let intent = IntentId(lsn);
        let at = if publish {
            let appended = self.spool().publish(intent, 2, &payload).expect("the room was reserved");
            let (epoch, seq) = (self.spool().epoch(), appended.seq);
            let last = &mut self.epochs.entry(epoch).or_default().last_seq;
            assert_eq!(seq, *last + 1, "seq has no gaps");
            *last = seq;
            self.records.insert(appended.lsn.0, Kept { seq, epoch, payload });
            appended.lsn.0
        } else {
            self.spool().void(intent, &payload).expect("the room was reserved").0
        };
        self.used(at);
        self.intents.get_mut(&lsn).unwrap().settled = Some(Settled { lsn: at, published: publish });
    }

    pub(super) fn note(&mut self) {
        let payload = self.payload(100);
        if let Ok(lsn) = self.spool().note(3, &payload) {
            let epoch = self.spool().epoch();
            self.used(lsn.0);
            self.records.insert(lsn.0, Kept { seq: 0, epoch, payload });
        }
    }

    pub(super) fn close_oldest_epoch(&mut self) {
        let own = self.spool().epoch();
        let oldest = self.epochs.iter().find(|(id, epoch)| **id != own && epoch.closed.is_none()).map(|(id, _)| *id);
        let Some(oldest) = oldest else { return };
        if let Ok(lsn) = self.spool().close_epoch(oldest) {
            self.epochs.get_mut(&oldest).unwrap().closed = Some(lsn.0);
        }
    }

    pub(super) fn sync(&mut self) {
        self.spool().shared.sync_step();
        self.notice();
    }

    pub(super) fn keep(&mut self) -> Round {
        let round = self.spool().shared.keep_round();
        self.notice();
        round
    }

    /// Reads a batch and compares it with all that must lie there.
    pub(super) fn read(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        let Ok(batch) = reader.next_batch(5, 4000) else {
            assert!(self.faulty, "reading failed without a fault");
            return;
        };
        let position = self.position();
        let expected: Vec<_> = self.records.range(self.read_to..position.max(self.read_to)).collect();
        assert_eq!(batch.len(), expected.len(), "between {} and {position}", self.read_to);
        for (record, (lsn, kept)) in batch.iter().zip(expected) {
            assert_eq!(record.lsn.0, *lsn);
            assert_eq!(&of(record), kept);
        }
        self.read_to = position;
        self.delivered.extend(batch.iter().map(|record| record.next_lsn.0));
    }

    pub(super) fn read_all(&mut self) {
        loop {
            let before = self.read_to;
            self.read();
            if self.read_to == before {
                break;
            }
        }
    }

    pub(super) fn acknowledge(&mut self, nth: u64) {
        let count = self.delivered.len();
        let Some(next) = self.delivered.get((nth % count.max(1) as u64) as usize).copied() else { return };
        self.spool().advance(Lsn(next));
        self.acknowledged = self.acknowledged.max(next);
        self.delivered.retain(|end| *end > next);
    }

    pub(super) fn rewind(&mut self) {
        let rewound = self.spool().rewind();
        assert!(rewound.is_ok() || self.faulty);
        let first = self.position();
        if rewound.is_ok() {
            // Else a crash may undo it, as it said.
            self.acknowledged = self.acknowledged.min(first);
        }
        self.read_to = first;
        self.delivered.clear();
    }

    // === crashes ===

    pub(super) fn open(&mut self) {
        for _ in 0..50 {
            let fs = Arc::new(self.disk.clone());
            match Spool::open_stepped(self.options.clone(), fs) {
                Ok((spool, recovered)) => {
                    self.epochs.entry(spool.epoch()).or_default();
                    self.spool = Some(spool);
                    self.compare(&recovered);
                    return;
                }
                Err(error) => {
                    assert!(self.faulty, "opening failed without a fault: {error:?}");
                    if self.disk.failed_syncs() > 0 {
                        // What only the kernel had may be gone; what was durable never is.
                        self.only_proven();
                    }
                }
            }
        }
        panic!("the fault never ended");
    }

    /// Begins to recover, under a fault that lasts, and crashes wherever that led.
    pub(super) fn open_and_crash(&mut self, power: bool) {
        let opened = Spool::open_stepped(self.options.clone(), Arc::new(self.disk.clone()));
        if self.disk.failed_syncs() > 0 || power {
            self.only_proven();
        }
        if let Ok((spool, _)) = &opened {
            self.epochs.entry(spool.epoch()).or_default();
        }
        drop(opened);
        if power { self.disk.cut_power() } else { self.disk.kill() }
    }

    pub(super) fn kill(&mut self) {
        // Between a failed sync and the new segment the kernel may have dropped what only this process still has.
        let dropped = self.spool().shared.log.lock().writing.iter().any(|writing| writing.poisoned);
        self.disk.kill();
        self.down(dropped);
    }

    pub(super) fn cut_power(&mut self) {
        self.disk.cut_power();
        self.down(true);
    }

    fn down(&mut self, kernel_lost: bool) {
        self.is_cut |= kernel_lost;
        self.spool = None;
        self.reader = None;
        self.proven = self.durable;
        if !kernel_lost {
            // The kernel has it all; to the model that is as good as durable, and recovery must make it so.
            self.durable = u64::MAX;
        }
        let failed_writes = self.faulty;
        for epoch in self.epochs.values_mut() {
            epoch.unrecorded_proven = epoch.unrecorded_synced;
            if !kernel_lost && !failed_writes {
                epoch.unrecorded_synced = epoch.unrecorded;
            }
        }
    }

    /// Drops what only the kernel had, which is not sure any more.
    fn only_proven(&mut self) {
        self.is_cut = true;
        self.durable = self.proven;
        self.epochs.values_mut().for_each(|epoch| epoch.unrecorded_synced = epoch.unrecorded_proven);
    }

    fn compare(&mut self, recovered: &Recovered) {
        let found = self.found();
        // Not where the oldest segment begins: one that replaced a poisoned one begins where that did, holds only its later
        // part, and may outlive it.
        let begins = || self.spool().shared.log.lock().segments.first().map_or(0, |segment| segment.first());
        let oldest = found.keys().next().copied().unwrap_or_else(begins);
        for (lsn, kept) in &found {
            assert_eq!(self.records.get(lsn), Some(kept), "{lsn} was never appended like this");
        }
        for (lsn, kept) in &self.records {
            let deleted = *lsn < oldest && *lsn < self.acknowledged;
            assert!(
                found.contains_key(lsn) || deleted || *lsn >= self.durable,
                "{lsn} {kept:?} is lost, oldest {oldest}"
            );
        }
        self.compare_intents(recovered, &found, oldest);
        self.compare_epochs(recovered, &found);
        self.records = found;
        self.faulty = self.disk.has_fault();
        self.reader = Some(self.spool().reader());
        self.read_to = self.position();
        let unread = self.records.range(self.acknowledged..).next().map(|(lsn, _)| *lsn);
        assert!(unread.is_none_or(|lsn| self.read_to <= lsn), "{unread:?} would be passed over, from {}", self.read_to);
        let unsent = self.records.range(self.read_to..).count() as u64;
        // Segments count what was appended before them, so what a power cut took from between them is counted, too.
        assert!(recovered.unsent == unsent || self.is_cut, "{} are {unsent}", recovered.unsent);
        self.acknowledged = self.acknowledged.min(self.read_to);
        self.delivered.clear();
        self.durable = 0;
        self.notice();
    }

    fn found(&self) -> BTreeMap<u64, Kept> {
        let mut history = self.spool().history(None);
        let mut found = BTreeMap::new();
        loop {
            let batch = history.next_batch(100, usize::MAX).unwrap();
            if batch.is_empty() {
                return found;
            }
            for record in batch {
                assert!(found.last_key_value().is_none_or(|(last, _)| *last < record.lsn.0), "out of order or twice");
                found.insert(record.lsn.0, of(&record));
            }
        }
    }

    fn compare_intents(&mut self, recovered: &Recovered, found: &BTreeMap<u64, Kept>, oldest: u64) {
        let orphans: BTreeMap<u64, _> = recovered.orphans.iter().map(|orphan| (orphan.intent.0, orphan)).collect();
        assert_eq!(orphans.len(), recovered.orphans.len());
        for (lsn, orphan) in &orphans {
            let intent = self.intents.get(lsn).expect("an intent that was made");
            assert_eq!(&orphan.payload[..], &intent.payload[..]);
            assert_eq!(orphan.version, 1);
        }
        for (lsn, intent) in &self.intents {
            let settled = intent.settled.is_some_and(|settled| {
                let deleted = settled.lsn < oldest && settled.lsn < self.acknowledged;
                if settled.published { found.contains_key(&settled.lsn) || deleted } else { settled.lsn < self.durable }
            });
            let void = intent.settled.is_some_and(|settled| !settled.published);
            if settled {
                assert!(!orphans.contains_key(lsn), "{lsn} {:?} is settled and an orphan", intent.settled);
            } else if *lsn < self.durable && !void {
                assert!(orphans.contains_key(lsn), "{lsn} {:?} is neither settled nor an orphan", intent.settled);
            }
        }
        self.intents.retain(|lsn, _| orphans.contains_key(lsn));
        self.intents.values_mut().for_each(|intent| intent.settled = None);
    }

    fn compare_epochs(&mut self, recovered: &Recovered, found: &BTreeMap<u64, Kept>) {
        let own = recovered.epoch;
        let reported: BTreeMap<Uuid, _> = recovered.epochs.iter().map(|epoch| (epoch.epoch, epoch)).collect();
        for (id, model) in &mut self.epochs {
            let Some(seen) = reported.get(id) else {
                let closed = model.closed.is_some();
                let unused = model.first_use.is_none_or(|lsn| lsn >= self.durable) && model.unrecorded_synced == 0;
                assert!(closed || unused || *id == own, "{id} {model:?} is not reported");
                continue;
            };
            assert!(model.closed.is_none_or(|lsn| lsn >= self.durable), "{id} {model:?} was closed");
            let max = found.values().filter(|kept| kept.epoch == *id).map(|kept| kept.seq).max().unwrap_or(0);
            assert!((max..=model.last_seq).contains(&seen.last_seq), "{seen:?} {model:?} {max}");
            let counts = model.unrecorded_synced..=model.unrecorded;
            assert!(counts.contains(&seen.unrecorded), "{seen:?} {model:?}");
            (model.last_seq, model.unrecorded, model.closed) = (seen.last_seq, seen.unrecorded, None);
            model.unrecorded_synced = seen.unrecorded;
            model.first_use = Some(0);
        }
        self.epochs.retain(|id, _| *id == own || reported.contains_key(id));
        assert!(reported.keys().all(|id| self.epochs.contains_key(id)), "an epoch nobody began");
    }

    // === bookkeeping ===

    fn notice(&mut self) {
        let durable = self.spool().shared.log.lock().durable;
        self.durable = self.durable.max(durable);
        let shared = &self.spool().shared;
        let (state, count) = (shared.state.lock(), shared.unrecorded.to_keep());
        let is_kept = !state.is_dirty() && state.holds_unrecorded(shared.epoch, count);
        drop(state);
        if is_kept {
            self.own_epoch(|epoch| epoch.unrecorded_synced = epoch.unrecorded);
        }
    }

    fn position(&self) -> u64 {
        self.spool().shared.relay.lock().position
    }

    fn own_epoch(&mut self, change: impl FnOnce(&mut EpochModel)) {
        let own = self.spool().epoch();
        change(self.epochs.entry(own).or_default());
    }

    fn used(&mut self, lsn: u64) {
        self.own_epoch(|epoch| {
            epoch.first_use.get_or_insert(lsn);
        });
    }

    fn payload(&mut self, bytes: usize) -> Vec<u8> {
        let mut payload: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| self.dice.roll().to_le_bytes()).collect();
        payload.truncate(bytes);
        payload
    }
}

fn of(record: &Record) -> Kept {
    let seq = match record.kind {
        RecordKind::Publish { seq } => seq,
        RecordKind::Note => 0,
    };
    Kept { seq, epoch: record.epoch, payload: record.payload.to_vec() }
}

/// Every kind of operation and every way to fail.
pub(super) const OPS: [Op; 13] = [
    Op::Open,
    Op::Create,
    Op::Rename,
    Op::Remove,
    Op::SyncDir,
    Op::List,
    Op::Read,
    Op::Write,
    Op::Allocate,
    Op::Truncate,
    Op::Sync,
    Op::Clear,
    Op::Stage,
];
