//! The proof of what a gateway handed out: per epoch the last seq, the count and a set hash per block of 1,024 seqs.
//!
//! The book is filled by the relay as it reads the spool, so the request path never pays for it. Invariants:
//!
//! - **An event is counted once.** Seqs rise along the log, so what lies at or below the last seq seen is a record read
//!   again (a retry, a rewound stream) and changes nothing.
//! - **The book is right after any crash**, also when blocks were relayed and their segments deleted: the cursor moves
//!   together with a [checkpoint](SealBook::checkpoint), which holds everything of an open epoch that lies before the
//!   cursor and is not in a durable seal yet. What lies behind the cursor is never deleted and is read again.
//! - **Only what changed since the last seal is sealed**, in seals of bounded size. A hole in the seqs is left open:
//!   then `count` is less than `last_seq`, and a reader of the seals sees that records were lost.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use goldleaves_domain::{Epoch, Seal, SealBlock, SetHash, Source, Timestamp, UsageEvent};
use uuid::Uuid;

use super::codec::{CodecError, Cut, put_blocks, take_blocks, take_flag};

/// Blocks in one seal: some 60 KB of JSON, far below what a message may hold.
const SEAL_BLOCKS_MAX: usize = 512;
/// Finished blocks beyond which the relay seals without waiting for the timer, so that a checkpoint stays small.
const UNSEALED_BLOCKS_MAX: usize = 16;
/// The version of a checkpoint.
const CHECKPOINT_VERSION: u8 = 1;

/// The open epochs of one spool, and what of them is not sealed yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SealBook {
    epochs: BTreeMap<Epoch, SealPage>,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SealPage {
    last_seq: u64,
    count: u64,
    /// True if this book saw the epoch's first record, or knows what came before.
    from_start: bool,
    /// The block of the last seq, and whether it changed since the last seal.
    open: SealBlock,
    open_changed: bool,
    /// True if the open block's beginning is unknown: then an earlier seal speaks for it.
    open_cut: bool,
    /// Finished blocks that no seal holds yet.
    finished: Vec<SealBlock>,
    sealed: Option<LastSeal>,
}

/// The content of the last seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LastSeal {
    last_seq: u64,
    unrecorded: u64,
}

/// The parts of a seal that the book does not know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SealAs {
    /// The gateway.
    pub(crate) source: Source,
    /// When it is sealed.
    pub(crate) ts: Timestamp,
    /// The number of calls of the epoch that could not be recorded.
    pub(crate) unrecorded: u64,
    /// True if it is the epoch's last seal.
    pub(crate) closed: bool,
}

impl SealBook {
    /// Opens a page for an epoch whose first record is still to come.
    pub(crate) fn open(&mut self, epoch: Epoch) {
        self.epochs.entry(epoch).or_insert_with(|| SealPage::new(SealedStart::Known));
    }

    /// Opens a page for an epoch of which an unknown part lies before what will be read: seqs have no gaps, so what came
    /// before is counted, and earlier seals speak for its blocks.
    pub(crate) fn open_late(&mut self, epoch: Epoch) {
        self.epochs.entry(epoch).or_insert_with(|| SealPage::new(SealedStart::Unknown));
    }

    /// Counts an event, once.
    pub(crate) fn absorb(&mut self, event: &UsageEvent) {
        if let Some(page) = self.epochs.get_mut(&event.epoch) {
            page.absorb(event);
        }
    }

    /// The last seq counted of an epoch; `None` when the epoch is not open.
    pub(crate) fn last_seq(&self, epoch: Epoch) -> Option<u64> {
        self.epochs.get(&epoch).map(|page| page.last_seq)
    }

    /// Returns whether so many blocks wait for a seal that the timer is too far.
    pub(crate) fn is_crowded(&self) -> bool {
        self.epochs.values().map(|page| page.finished.len()).sum::<usize>() >= UNSEALED_BLOCKS_MAX
    }

    /// The seals that say what changed; none when nothing did. The last one is `closed` when that is asked for.
    pub(crate) fn draw(&self, epoch: Epoch, seal_as: SealAs) -> Vec<Seal> {
        self.epochs.get(&epoch).map(|page| page.draw(epoch, seal_as)).unwrap_or_default()
    }

    /// Notes that what [`draw`](Self::draw) drew is durable.
    pub(crate) fn sealed(&mut self, epoch: Epoch, unrecorded: u64) {
        if let Some(page) = self.epochs.get_mut(&epoch) {
            page.finished.clear();
            page.open_changed = false;
            page.sealed = Some(LastSeal { last_seq: page.last_seq, unrecorded });
        }
    }

    /// Returns the number of epochs that are open.
    pub(crate) fn open_epochs(&self) -> usize {
        self.epochs.len()
    }

    /// Closes an epoch's page: the spool was told that its last seal is written.
    pub(crate) fn close(&mut self, epoch: Epoch) {
        self.epochs.remove(&epoch);
    }

    /// Keeps only the epochs that are still open, as the spool says.
    pub(crate) fn retain(&mut self, is_open: impl Fn(Epoch) -> bool) {
        self.epochs.retain(|epoch, _| is_open(*epoch));
    }

    /// The book as at most `bytes_max` bytes, to be kept beside the cursor. Only when no seal could be written for long
    /// does it not fit: then the oldest is left out, and a crash just then would leave a block without its seal.
    pub(crate) fn checkpoint(&self, bytes_max: usize) -> Vec<u8> {
        let mut bytes = self.bytes();
        if bytes.len() > bytes_max {
            let mut book = self.clone();
            while bytes.len() > bytes_max && book.leave_out_oldest() {
                bytes = book.bytes();
            }
        }
        bytes
    }

    fn leave_out_oldest(&mut self) -> bool {
        match self.epochs.values_mut().find(|page| !page.finished.is_empty()) {
            Some(page) => {
                page.finished.remove(0);
                true
            }
            None => self.epochs.pop_first().is_some(),
        }
    }

    /// An epoch of which nothing was read yet needs none.
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![CHECKPOINT_VERSION, 0, 0, 0, 0];
        let mut epochs = 0_u32;
        for (epoch, page) in self.epochs.iter().filter(|(_, page)| !page.is_untouched()) {
            out.extend_from_slice(epoch.as_uuid().as_bytes());
            page.write(&mut out);
            epochs += 1;
        }
        out.iter_mut().skip(1).zip(epochs.to_le_bytes()).for_each(|(slot, byte)| *slot = byte);
        out
    }

    /// Reads a [checkpoint](Self::checkpoint).
    ///
    /// # Errors
    /// Newer versions and bytes that are no checkpoint.
    pub(crate) fn restore(checkpoint: &[u8]) -> Result<Self, CodecError> {
        let mut cut = Cut::new(checkpoint);
        match cut.u8("checkpoint version")? {
            CHECKPOINT_VERSION => {}
            version => return Err(CodecError::NewerVersion(version)),
        }
        let mut epochs = BTreeMap::new();
        for _ in 0..cut.u32("epochs")? {
            let epoch = Epoch::new(Uuid::from_bytes(cut.array("epoch")?));
            epochs.insert(epoch, SealPage::read(&mut cut)?);
        }
        cut.finish()?;
        Ok(Self { epochs })
    }
}

/// Says whether the beginning of an epoch is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealedStart {
    Known,
    Unknown,
}

impl SealPage {
    fn new(start: SealedStart) -> Self {
        Self {
            last_seq: 0,
            count: 0,
            from_start: start == SealedStart::Known,
            open: empty_block(0),
            open_changed: false,
            open_cut: false,
            finished: Vec::new(),
            sealed: None,
        }
    }

    const fn is_untouched(&self) -> bool {
        self.from_start && self.last_seq == 0 && self.sealed.is_none()
    }

    fn absorb(&mut self, event: &UsageEvent) {
        if event.seq <= self.last_seq {
            return;
        }
        let block = Seal::block_of(event.seq);
        if !self.from_start {
            self.from_start = true;
            self.count = event.seq - 1;
            self.open = empty_block(block);
            self.open_cut = !(event.seq - 1).is_multiple_of(Seal::BLOCK_EVENTS);
        }
        if block != self.open.block {
            let done = std::mem::replace(&mut self.open, empty_block(block));
            if self.open_changed {
                self.finished.push(done);
            }
            self.open_cut = false;
        }
        self.last_seq = event.seq;
        self.count += 1;
        self.open.count += 1;
        self.open.hash.insert(event);
        self.open_changed = !self.open_cut;
    }

    fn draw(&self, epoch: Epoch, seal_as: SealAs) -> Vec<Seal> {
        let said = LastSeal { last_seq: self.last_seq, unrecorded: seal_as.unrecorded };
        let nothing_ever = self.last_seq == 0 && seal_as.unrecorded == 0 && self.sealed.is_none();
        if nothing_ever || (self.sealed == Some(said) && !seal_as.closed) {
            return Vec::new();
        }
        let mut blocks = self.finished.clone();
        blocks.extend(self.open_changed.then_some(self.open));
        let mut parts: Vec<Vec<SealBlock>> = blocks.chunks(SEAL_BLOCKS_MAX).map(<[SealBlock]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        let seal = |(part, blocks): (usize, Vec<SealBlock>)| Seal {
            id: Uuid::now_v7(),
            source: seal_as.source,
            ts: seal_as.ts,
            epoch,
            last_seq: self.last_seq,
            count: self.count,
            unrecorded: seal_as.unrecorded,
            closed: seal_as.closed && part == last,
            blocks,
        };
        parts.into_iter().enumerate().map(seal).collect()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last_seq.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend([self.from_start, self.open_changed, self.open_cut, self.sealed.is_some()].map(u8::from));
        let sealed = self.sealed.unwrap_or(LastSeal { last_seq: 0, unrecorded: 0 });
        out.extend_from_slice(&sealed.last_seq.to_le_bytes());
        out.extend_from_slice(&sealed.unrecorded.to_le_bytes());
        put_blocks(out, std::slice::from_ref(&self.open));
        put_blocks(out, &self.finished);
    }

    fn read(cut: &mut Cut<'_>) -> Result<Self, CodecError> {
        let (last_seq, count) = (cut.u64("last_seq")?, cut.u64("count")?);
        let from_start = take_flag(cut, "from_start")?;
        let (open_changed, open_cut) = (take_flag(cut, "open_changed")?, take_flag(cut, "open_cut")?);
        let was_sealed = take_flag(cut, "sealed")?;
        let sealed = LastSeal { last_seq: cut.u64("sealed last_seq")?, unrecorded: cut.u64("sealed unrecorded")? };
        let open = take_blocks(cut)?.pop().ok_or(CodecError::Invalid("open block"))?;
        let finished = take_blocks(cut)?;
        let sealed = was_sealed.then_some(sealed);
        Ok(Self { last_seq, count, from_start, open, open_changed, open_cut, finished, sealed })
    }
}

const fn empty_block(block: u64) -> SealBlock {
    SealBlock { block, count: 0, hash: SetHash::EMPTY }
}
