//! The book against a plain sum over everything that was handed out, with crashes, retries and rewinds in between.

use proptest::prelude::*;

use super::*;
use crate::testing::event_at;

const UNRECORDED: u64 = 0;

fn epoch(number: u8) -> Epoch {
    Epoch::new(Uuid::from_u128(0x0193_6d5e_5c00_7000_8000_0000_0000_0000 | u128::from(number)))
}

fn events(epoch: Epoch, last_seq: u64) -> Vec<UsageEvent> {
    (1..=last_seq).map(|seq| event_at(epoch, seq)).collect()
}

fn seal_as(closed: bool) -> SealAs {
    let ts = "2026-01-31T12:00:00Z".parse().unwrap();
    SealAs { source: Source::new(Uuid::nil()), ts, unrecorded: UNRECORDED, closed }
}

/// The knowledge of a reader of the seals: the last word on every block.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    blocks: BTreeMap<u64, (u32, SetHash)>,
    last: Option<(u64, u64, bool)>,
}

impl Known {
    fn hear(&mut self, seals: &[Seal]) {
        for seal in seals {
            self.blocks.extend(seal.blocks.iter().map(|block| (block.block, (block.count, block.hash))));
            self.last = Some((seal.last_seq, seal.count, seal.closed));
        }
    }

    fn of(events: &[UsageEvent]) -> Self {
        let mut known = Self::default();
        for event in events {
            let (count, hash) = known.blocks.entry(Seal::block_of(event.seq)).or_default();
            *count += 1;
            hash.insert(event);
        }
        known.last = events.last().map(|event| (event.seq, events.len() as u64, true));
        known
    }
}

/// Seals and tells `known`, as the sealer does.
fn seal(book: &mut SealBook, known: &mut Known, closed: bool) {
    known.hear(&book.draw(epoch(1), seal_as(closed)));
    book.sealed(epoch(1), UNRECORDED);
}

#[test]
fn only_what_changed_is_sealed_and_nothing_when_nothing_did() {
    let mut book = SealBook::default();
    book.open(epoch(1));
    assert_eq!(book.draw(epoch(1), seal_as(false)), []);
    let events = events(epoch(1), 3_000);
    events.iter().take(2_500).for_each(|event| book.absorb(event));
    let first = book.draw(epoch(1), seal_as(false));
    assert_eq!(first.len(), 1);
    assert_eq!(
        first[0].blocks.iter().map(|block| (block.block, block.count)).collect::<Vec<_>>(),
        [(0, 1_024), (1, 1_024), (2, 452)]
    );
    assert_eq!(first[0].last_seq, 2_500);
    assert_eq!(first[0].count, 2_500);
    assert!(!first[0].closed);
    book.sealed(epoch(1), 0);
    assert_eq!(book.draw(epoch(1), seal_as(false)), []);
    book.absorb(&events[2_500]);
    let second = book.draw(epoch(1), seal_as(false));
    assert_eq!(second[0].blocks.iter().map(|block| (block.block, block.count)).collect::<Vec<_>>(), [(2, 453)]);
}

#[test]
fn unrecorded_calls_alone_are_worth_a_seal_and_so_is_the_end() {
    let mut book = SealBook::default();
    book.open(epoch(1));
    let unrecorded = SealAs { unrecorded: 2, ..seal_as(false) };
    let seals = book.draw(epoch(1), unrecorded);
    assert_eq!(seals[0].unrecorded, 2);
    assert_eq!(seals[0].count, 0);
    assert_eq!(seals[0].blocks.len(), 0);
    book.sealed(epoch(1), 2);
    assert_eq!(book.draw(epoch(1), unrecorded), []);
    let last = book.draw(epoch(1), SealAs { closed: true, ..unrecorded });
    assert!(last[0].closed);
}

#[test]
fn an_epoch_that_handed_out_nothing_needs_no_seal() {
    let mut book = SealBook::default();
    book.open(epoch(1));
    assert_eq!(book.draw(epoch(1), seal_as(true)), []);
}

#[test]
fn many_blocks_are_split_and_only_the_last_part_closes() {
    let mut book = SealBook::default();
    book.open(epoch(1));
    let blocks = SEAL_BLOCKS_MAX as u64 + 2;
    for block in 0..blocks {
        book.absorb(&event_at(epoch(1), block * Seal::BLOCK_EVENTS + 1));
    }
    let seals = book.draw(epoch(1), seal_as(true));
    assert_eq!(
        seals.iter().map(|seal| (seal.blocks.len(), seal.closed)).collect::<Vec<_>>(),
        [(SEAL_BLOCKS_MAX, false), (2, true)]
    );
    assert!(seals.iter().all(|seal| seal.count == blocks));
}

#[test]
fn a_lost_record_shows_in_the_count() {
    let mut book = SealBook::default();
    book.open(epoch(1));
    [1, 2, 4].into_iter().for_each(|seq| book.absorb(&event_at(epoch(1), seq)));
    let seals = book.draw(epoch(1), seal_as(true));
    assert_eq!(seals[0].last_seq, 4);
    assert_eq!(seals[0].count, 3);
    assert_eq!(seals[0].blocks[0].count, 3);
}

#[test]
fn an_epoch_whose_beginning_is_unknown_leaves_its_first_block_to_earlier_seals() {
    let mut book = SealBook::default();
    book.open_late(epoch(1));
    let events = events(epoch(1), 3_000);
    events[1_500..].iter().for_each(|event| book.absorb(event));
    let seals = book.draw(epoch(1), seal_as(true));
    assert_eq!(seals[0].last_seq, 3_000);
    assert_eq!(seals[0].count, 3_000);
    assert_eq!(seals[0].blocks.iter().map(|block| (block.block, block.count)).collect::<Vec<_>>(), [(2, 952)]);

    let mut whole = SealBook::default();
    whole.open_late(epoch(1));
    events.iter().for_each(|event| whole.absorb(event));
    let mut known = Known::default();
    seal(&mut whole, &mut known, true);
    assert_eq!(known, Known::of(&events), "what is read from its first record on is whole");
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let mut book = SealBook::default();
    book.open(epoch(1));
    events(epoch(1), 1_500).iter().for_each(|event| book.absorb(event));
    let checkpoint = book.checkpoint(usize::MAX);
    assert_eq!(SealBook::restore(&checkpoint), Ok(book));
    for length in 0..checkpoint.len() {
        assert!(SealBook::restore(&checkpoint[..length]).is_err());
    }
    assert_eq!(SealBook::restore(&[2]), Err(CodecError::NewerVersion(2)));
}

#[test]
fn a_checkpoint_always_fits_and_leaves_out_the_oldest() {
    let mut book = SealBook::default();
    book.open(epoch(1));
    book.open(epoch(2));
    let blocks = |book: &SealBook| {
        book.epochs
            .values()
            .map(|page| page.finished.iter().map(|block| block.block).collect())
            .collect::<Vec<Vec<_>>>()
    };
    for block in 0..100 {
        book.absorb(&event_at(epoch(2), block * Seal::BLOCK_EVENTS + 1));
    }
    assert!(book.is_crowded());
    let kept = SealBook::restore(&book.checkpoint(1_600)).unwrap();
    assert_eq!(kept.last_seq(epoch(2)), book.last_seq(epoch(2)));
    assert_eq!(blocks(&kept), [(66..99).collect::<Vec<_>>()]);
    assert_eq!(SealBook::restore(&book.checkpoint(10)).unwrap(), SealBook::default());
}

/// The things that may happen between two reads.
#[derive(Debug, Clone)]
enum Step {
    Read(u16),
    /// The receipt came: the cursor moves to what was read, the checkpoint with it.
    Advance,
    Seal,
    /// `kill -9`: what is left is the cursor and its checkpoint.
    Crash,
    /// A lost stream: everything retained is read again.
    Rewind(u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..1_400_u16).prop_map(Step::Read),
        3 => Just(Step::Advance),
        2 => Just(Step::Seal),
        2 => Just(Step::Crash),
        1 => any::<u16>().prop_map(Step::Rewind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn seals_say_what_was_handed_out_after_any_crash(steps in proptest::collection::vec(any_step(), 0..24), last in 1..2_500_u64) {
        let log = events(epoch(1), last);
        let mut book = SealBook::default();
        book.open(epoch(1));
        let (mut known, mut read, mut cursor, mut kept) = (Known::default(), 0, 0, book.checkpoint(usize::MAX));
        for step in steps {
            match step {
                Step::Read(count) => {
                    let to = (read + usize::from(count)).min(log.len());
                    log[read..to].iter().for_each(|event| book.absorb(event));
                    read = to;
                }
                Step::Advance => (cursor, kept) = (read, book.checkpoint(usize::MAX)),
                Step::Seal => seal(&mut book, &mut known, false),
                Step::Crash => {
                    book = SealBook::restore(&kept).unwrap();
                    book.open(epoch(1));
                    read = cursor;
                }
                Step::Rewind(back) => {
                    cursor = cursor.saturating_sub(back.into());
                    read = cursor;
                }
            }
        }
        log[read..].iter().for_each(|event| book.absorb(event));
        seal(&mut book, &mut known, true);
        prop_assert_eq!(known, Known::of(&log));
    }
}

/// Version 1, whole: a sealed epoch with a finished block that no seal holds yet, and an open block.
#[test]
fn a_checkpoint_written_once_is_read_for_ever() {
    let block = |block, count, byte| SealBlock { block, count, hash: SetHash::from_bytes([byte; 32]) };
    let page = SealPage {
        last_seq: 2_050,
        count: 2_049,
        from_start: true,
        open: block(2, 2, 0x5a),
        open_changed: true,
        open_cut: false,
        finished: vec![block(1, 1_024, 0xa5)],
        sealed: Some(LastSeal { last_seq: 1_024, unrecorded: 3 }),
    };
    let book = SealBook { epochs: BTreeMap::from([(epoch(1), page)]) };
    let hex: String = book.checkpoint(usize::MAX).iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1-checkpoint.hex");
    let golden: String = std::fs::read_to_string(golden).unwrap().split_whitespace().collect();
    assert_eq!(golden, hex);
    let bytes: Vec<u8> =
        (0..golden.len()).step_by(2).map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap()).collect();
    assert_eq!(SealBook::restore(&bytes), Ok(book));
}
