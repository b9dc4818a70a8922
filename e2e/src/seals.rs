//! Compares what gateways sealed with what the ledger received, by plain SQL.

use anyhow::{Context as _, Result};
use sea_orm::{ConnectionTrait, QueryResult, Statement};

/// Blocks whose receipts are not what the seals promised, and epochs without their last seal, in words.
///
/// # Errors
/// A table can't be read.
pub async fn disagreements(connection: &impl ConnectionTrait) -> Result<Vec<String>> {
    let blocks = "SELECT CAST(epoch AS VARCHAR(64)) AS epoch, block, received_count, expected_count FROM usage_receipts
        WHERE expected_count IS NULL OR expected_hash IS NULL
        OR received_count <> expected_count OR received_hash <> expected_hash";
    let mut found: Vec<String> = Vec::new();
    for row in all(connection, blocks).await? {
        let (epoch, block): (String, i64) = (row.try_get("", "epoch")?, row.try_get("", "block")?);
        let received: i32 = row.try_get("", "received_count")?;
        let expected: Option<i32> = row.try_get("", "expected_count")?;
        found.push(format!("epoch {epoch} block {block}: received {received}, sealed {expected:?}"));
    }
    let epochs = "SELECT CAST(e.epoch AS VARCHAR(64)) AS epoch, e.last_seq, e.events, e.closed,
        (SELECT CAST(COALESCE(SUM(r.received_count), 0) AS BIGINT) FROM usage_receipts r WHERE r.epoch = e.epoch) AS received
        FROM usage_epochs e";
    for row in all(connection, epochs).await? {
        let epoch: String = row.try_get("", "epoch")?;
        let number = |name: &str| row.try_get::<i64>("", name);
        let (last_seq, events, received) = (number("last_seq")?, number("events")?, number("received")?);
        let closed: bool = row.try_get("", "closed")?;
        if !closed || last_seq != events || last_seq != received {
            found.push(format!(
                "epoch {epoch}: last seq {last_seq}, events {events}, received {received}, closed {closed}"
            ));
        }
    }
    Ok(found)
}

async fn all(connection: &impl ConnectionTrait, sql: &str) -> Result<Vec<QueryResult>> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    connection.query_all_raw(statement).await.context("reading the proof tables")
}
