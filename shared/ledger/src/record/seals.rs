//! Seals: what gateways say they handed out, beside the receipts of what arrived. Numbers of an epoch only grow, so the
//! greater one is the later one, in whatever order seals come.

use std::collections::BTreeMap;

use goldleaves_domain::{Seal, SealBlock};
use goldleaves_store::{Dialect, Params, Rows, Transaction};
use uuid::Uuid;

use crate::LedgerError;

/// Writes the seals; blocks first, because receipts are locked before epochs.
pub(super) async fn write(transaction: &Transaction, seals: &[&Seal]) -> Result<(), LedgerError> {
    write_blocks(transaction, seals).await?;
    for seal in seals {
        write_epoch(transaction, seal).await?;
    }
    Ok(())
}

async fn write_blocks(transaction: &Transaction, seals: &[&Seal]) -> Result<(), LedgerError> {
    let mut blocks: BTreeMap<(Uuid, i64), SealBlock> = BTreeMap::new();
    for seal in seals {
        for block in &seal.blocks {
            let key = (*seal.epoch.as_uuid(), number(block.block));
            let latest = blocks.entry(key).or_insert(*block);
            if block.count > latest.count {
                *latest = *block;
            }
        }
    }
    if blocks.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let source = Rows::new(dialect)
        .column("epoch", blocks.keys().map(|key| key.0))
        .column("block", blocks.keys().map(|key| key.1))
        .column("expected_count", blocks.values().map(|block| i64::from(block.count)))
        .column("expected_hash", blocks.values().map(|block| block.hash.to_string()))
        .query(&mut params);
    let (none, hash) = match dialect {
        Dialect::Postgres => ("0::bit(256), 0::bit(1024)".to_owned(), "('x' || r.expected_hash)::bit(256)"),
        Dialect::Sqlite => (format!("'{}', '{}'", "0".repeat(64), "0".repeat(256)), "r.expected_hash"),
    };
    let sql = format!(
        "INSERT INTO usage_receipts AS t (epoch, block, received_count, received_hash, seqs, expected_count, expected_hash) \
         SELECT r.epoch, r.block, 0, {none}, r.expected_count, {hash} FROM ({source}) AS r WHERE true ORDER BY r.n \
         ON CONFLICT (epoch, block) DO UPDATE SET expected_count = EXCLUDED.expected_count, \
             expected_hash = EXCLUDED.expected_hash, updated_at = {now} \
         WHERE t.expected_count IS NULL OR t.expected_count < EXCLUDED.expected_count",
        now = dialect.now()
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

async fn write_epoch(transaction: &Transaction, seal: &Seal) -> Result<(), LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let values = [
        params.bind(dialect.uuid(*seal.epoch.as_uuid())),
        params.bind(seal.source.to_string()),
        params.bind(number(seal.last_seq)),
        params.bind(number(seal.count)),
        params.bind(number(seal.unrecorded)),
        params.bind(seal.closed),
        params.bind(dialect.uuid(seal.id)),
        params.bind(dialect.time(seal.ts)),
    ];
    let greatest = dialect.greatest();
    let later =
        "(EXCLUDED.sealed_at > t.sealed_at OR (EXCLUDED.sealed_at = t.sealed_at AND EXCLUDED.seal_id > t.seal_id))";
    let sql = format!(
        "INSERT INTO usage_epochs AS t (epoch, source, last_seq, events, unrecorded, closed, seal_id, sealed_at) \
         VALUES ({values}) ON CONFLICT (epoch) DO UPDATE SET \
             last_seq = {greatest}(t.last_seq, EXCLUDED.last_seq), events = {greatest}(t.events, EXCLUDED.events), \
             unrecorded = {greatest}(t.unrecorded, EXCLUDED.unrecorded), closed = (t.closed OR EXCLUDED.closed), \
             source = CASE WHEN {later} THEN EXCLUDED.source ELSE t.source END, \
             seal_id = CASE WHEN {later} THEN EXCLUDED.seal_id ELSE t.seal_id END, \
             sealed_at = {greatest}(t.sealed_at, EXCLUDED.sealed_at), updated_at = {now} \
         WHERE {later} OR EXCLUDED.last_seq > t.last_seq OR EXCLUDED.events > t.events \
             OR EXCLUDED.unrecorded > t.unrecorded OR (EXCLUDED.closed AND NOT t.closed)",
        values = values.join(", "),
        now = dialect.now()
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Checked when the batch was sorted.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
