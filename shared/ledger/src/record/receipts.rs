//! Receipts: for each epoch and block of 1,024 sequence numbers, which arrived and the set hash of their events.
//!
//! A receipt belongs to a sequence number, not to an event, and its bit is what makes it idempotent: a number that has
//! its bit adds nothing again.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::{Seal, SetHash, hex_text};
use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use uuid::Uuid;

use crate::LedgerError;
use crate::batch::Arrival;

/// Sequence numbers in a block.
const BITS: usize = 1_024;
const BYTES: usize = BITS / 8;

/// The numbers of a block that arrived, the first one in the highest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seqs([u8; BYTES]);

impl Seqs {
    const NONE: Self = Self([0; BYTES]);

    /// Sets the bit of a place in the block; whether it was not set before.
    fn insert(&mut self, place: usize) -> bool {
        let bit = 0x80_u8 >> (place % 8);
        match self.0.get_mut(place / 8) {
            Some(byte) if *byte & bit == 0 => {
                *byte |= bit;
                true
            }
            _ => false,
        }
    }
}

/// The first arrival of each sequence number, by block.
#[derive(Debug, Default)]
pub(super) struct Receipts(BTreeMap<(Uuid, i64), BTreeMap<usize, [u8; 32]>>);

impl Receipts {
    pub(super) fn add(&mut self, arrival: &Arrival) {
        let seq = arrival.seq.unsigned_abs();
        let block = i64::try_from(Seal::block_of(seq)).unwrap_or(i64::MAX);
        let place = usize::try_from(seq.saturating_sub(1) % Seal::BLOCK_EVENTS).unwrap_or_default();
        self.0.entry((arrival.epoch, block)).or_default().entry(place).or_insert(arrival.digest);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A block's receipt.
#[derive(Debug, Clone, Copy)]
struct BlockReceipt {
    count: i64,
    hash: SetHash,
    seqs: Seqs,
}

impl BlockReceipt {
    const NONE: Self = Self { count: 0, hash: SetHash::EMPTY, seqs: Seqs::NONE };

    /// Adds what is not in it yet; whether anything was.
    fn add(&mut self, arrivals: &BTreeMap<usize, [u8; 32]>) -> bool {
        let before = self.count;
        for (place, digest) in arrivals {
            if self.seqs.insert(*place) {
                self.count += 1;
                self.hash.insert_digest(digest);
            }
        }
        self.count != before
    }
}

/// PostgreSQL's part of the last statement: inserts receipts, or adds to those that have none of the bits yet, and
/// returns which. Comes after `summed`.
pub(super) fn insert_disjoint(receipts: &Receipts, params: &mut Params) -> String {
    let new = receipts.0.iter().map(|(key, arrivals)| {
        let mut receipt = BlockReceipt::NONE;
        receipt.add(arrivals);
        (*key, receipt)
    });
    let source = source(Dialect::Postgres, &new.collect(), params);
    format!(
        "INSERT INTO usage_receipts AS t (epoch, block, received_count, received_hash, seqs) \
         SELECT r.epoch, r.block, r.received_count, r.received_hash::bit(256), r.seqs::bit(1024) \
         FROM summed CROSS JOIN ({source}) AS r ORDER BY r.n \
         ON CONFLICT (epoch, block) DO UPDATE SET received_count = t.received_count + EXCLUDED.received_count, \
             received_hash = t.received_hash # EXCLUDED.received_hash, seqs = t.seqs | EXCLUDED.seqs, updated_at = now() \
         WHERE t.seqs & EXCLUDED.seqs = 0::bit(1024) RETURNING epoch, block"
    )
}

/// Adds, number by number, what is not `done` yet.
pub(super) async fn merge(
    transaction: &Transaction,
    receipts: &Receipts,
    done: Option<&BTreeSet<(Uuid, i64)>>,
) -> Result<(), LedgerError> {
    let open: Vec<_> = receipts.0.iter().filter(|(key, _)| done.is_none_or(|done| !done.contains(key))).collect();
    if open.is_empty() {
        return Ok(());
    }
    let there = read_receipts(transaction, open.iter().map(|(key, _)| **key).collect()).await?;
    let mut changed = BTreeMap::new();
    for (key, arrivals) in open {
        let mut receipt = there.get(key).copied().unwrap_or(BlockReceipt::NONE);
        if receipt.add(arrivals) {
            changed.insert(*key, receipt);
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let source = source(dialect, &changed, &mut params);
    let (hash, seqs) = match dialect {
        Dialect::Postgres => ("r.received_hash::bit(256)", "r.seqs::bit(1024)"),
        Dialect::Sqlite => ("r.received_hash", "r.seqs"),
    };
    let sql = format!(
        "INSERT INTO usage_receipts (epoch, block, received_count, received_hash, seqs) \
         SELECT r.epoch, r.block, r.received_count, {hash}, {seqs} FROM ({source}) AS r WHERE true ORDER BY r.n \
         ON CONFLICT (epoch, block) DO UPDATE SET received_count = EXCLUDED.received_count, \
             received_hash = EXCLUDED.received_hash, seqs = EXCLUDED.seqs, updated_at = {now}",
        now = dialect.now()
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Hex; PostgreSQL takes it as bits with an `x` before it.
fn source(dialect: Dialect, receipts: &BTreeMap<(Uuid, i64), BlockReceipt>, params: &mut Params) -> String {
    let prefix = if dialect == Dialect::Postgres { "x" } else { "" };
    let hex = |bytes: &[u8]| prefix.to_owned() + &hex_text(bytes);
    Rows::new(dialect)
        .column("epoch", receipts.keys().map(|key| key.0))
        .column("block", receipts.keys().map(|key| key.1))
        .column("received_count", receipts.values().map(|receipt| receipt.count))
        .column("received_hash", receipts.values().map(|receipt| hex(receipt.hash.as_bytes())))
        .column("seqs", receipts.values().map(|receipt| hex(&receipt.seqs.0)))
        .query(params)
}

async fn read_receipts(
    transaction: &Transaction,
    keys: Vec<(Uuid, i64)>,
) -> Result<BTreeMap<(Uuid, i64), BlockReceipt>, LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let source = Rows::new(dialect)
        .column("epoch", keys.iter().map(|key| key.0))
        .column("block", keys.iter().map(|key| key.1))
        .query(&mut params);
    let lock = if dialect == Dialect::Postgres { " FOR UPDATE OF t" } else { "" };
    let sql = format!(
        "SELECT t.epoch, t.block, t.received_count, CAST(t.received_hash AS text) AS hash, CAST(t.seqs AS text) AS seqs \
         FROM ({source}) AS r JOIN usage_receipts AS t ON t.epoch = r.epoch AND t.block = r.block \
         ORDER BY r.n{lock}"
    );
    let mut receipts = BTreeMap::new();
    for row in transaction.query(&sql, params).await? {
        let receipt = BlockReceipt {
            count: read::<i32>(&row, "received_count")?.into(),
            hash: SetHash::from_bytes(bits(&read::<String>(&row, "hash")?, "received_hash")?),
            seqs: Seqs(bits(&read::<String>(&row, "seqs")?, "seqs")?),
        };
        receipts.insert((dialect.read_uuid(&row, "epoch")?, read(&row, "block")?), receipt);
    }
    Ok(receipts)
}

/// Reads bits as PostgreSQL writes them (one digit each) or as SQLite keeps them (hex).
fn bits<const N: usize>(text: &str, column: &str) -> Result<[u8; N], LedgerError> {
    let (radix, digits) = if text.len() == N * 8 { (2, 8) } else { (16, 2) };
    let wrong = || LedgerError::unreadable(column, "not as many bits as the column has");
    if text.len() != N * digits {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (byte, piece) in bytes.iter_mut().zip(text.as_bytes().chunks(digits)) {
        let piece = std::str::from_utf8(piece).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(piece, radix).map_err(|_| wrong())?;
    }
    Ok(bytes)
}
