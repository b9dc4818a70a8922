//! Dead letters: what is set aside, each under its event's id or the digest of its bytes. That no event is ever in two tables is
//! held by [`super::settle`].

use std::collections::{BTreeSet, HashMap, HashSet};

use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use uuid::Uuid;

use crate::batch::{DeadLetter, EventRow, rank};
use crate::{LedgerError, Recorded};

/// The letters that are there already, and why each was set aside.
pub(super) type Reasons = HashMap<String, String>;

/// Finds the letters of these events and those that these letters may replace, and keeps everybody else from changing them. The
/// first thing of a transaction, all of them in one order, so that two writers never wait for each other crosswise.
pub(super) async fn hold(
    transaction: &Transaction,
    events: &[&EventRow<'_>],
    letters: &[DeadLetter<'_>],
) -> Result<Reasons, LedgerError> {
    let events = events.iter().map(|row| row.event.event_id.to_string());
    let ids: BTreeSet<String> = events.chain(letters.iter().map(|letter| letter.id.clone())).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect()).column("id", ids.iter().map(String::as_str)).query(&mut params);
    let keep = if transaction.dialect() == Dialect::Postgres { "FOR UPDATE OF l" } else { "" };
    let sql = format!(
        "SELECT l.id, l.reason FROM ({source}) AS r JOIN usage_dead_letters AS l ON l.id = r.id ORDER BY r.n {keep}"
    );
    let rows = transaction.query(&sql, params).await?;
    rows.iter().map(|row| Ok((read(row, "id")?, read(row, "reason")?))).collect()
}

/// Deletes the dead letters of billable events, which outrank every one.
pub(super) async fn delete_outranked(transaction: &Transaction, events: &[&EventRow<'_>]) -> Result<(), LedgerError> {
    let ids: Vec<String> = events.iter().map(|row| row.event.event_id.to_string()).collect();
    delete(transaction, ids.iter().map(String::as_str)).await
}

/// Writes what is not yet recorded, in place of what it outranks, and returns the events of what it wrote.
pub(super) async fn write(
    transaction: &Transaction,
    letters: &[DeadLetter<'_>],
    reasons: &Reasons,
    recorded: &mut Recorded,
) -> Result<Vec<Uuid>, LedgerError> {
    let billable = find_billable(transaction, letters).await?;
    let outranks = |letter: &DeadLetter<'_>| {
        let is_known_better = |reason: &String| rank(letter.reason) <= rank(reason);
        !billable.contains(&letter.id) && !reasons.get(&letter.id).is_some_and(is_known_better)
    };
    let (new, replays): (Vec<_>, Vec<_>) = letters.iter().partition(|letter| outranks(letter));
    recorded.replays += replays.len() as u64;
    delete(transaction, new.iter().map(|letter| letter.id.as_str()).filter(|id| reasons.contains_key(*id))).await?;
    if insert(transaction, &new).await? != new.len() as u64 {
        // Another writer set the same aside at the same time, for a reason that is still to be compared.
        return Err(LedgerError::Contended);
    }
    for letter in &new {
        *recorded.set_aside.entry(letter.reason.to_owned()).or_default() += 1;
    }
    Ok(new.iter().filter_map(|letter| Some(*letter.event_id?.as_uuid())).collect())
}

/// Returns how many went in.
async fn insert(transaction: &Transaction, letters: &[&DeadLetter<'_>]) -> Result<u64, LedgerError> {
    if letters.is_empty() {
        return Ok(0);
    }
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect())
        .column("id", letters.iter().map(|letter| letter.id.as_str()))
        .column("tenant_id", letters.iter().map(|letter| letter.tenant_id))
        .column("request_id", letters.iter().map(|letter| letter.request_id))
        .column("reason", letters.iter().map(|letter| letter.reason))
        .column("detail", letters.iter().map(|letter| letter.detail))
        .column("payload", letters.iter().map(|letter| letter.payload))
        .column("epoch", letters.iter().map(|letter| letter.epoch))
        .column("seq", letters.iter().map(|letter| letter.seq))
        .column("ts", letters.iter().map(|letter| letter.ts))
        .query(&mut params);
    let sql = format!(
        "WITH r AS MATERIALIZED ({source}) \
         INSERT INTO usage_dead_letters (id, tenant_id, request_id, reason, detail, payload, epoch, seq, ts, created_at) \
         SELECT id, tenant_id, request_id, reason, detail, payload, epoch, seq, ts, {now} FROM r \
         WHERE true ORDER BY n ON CONFLICT DO NOTHING",
        now = transaction.dialect().now(),
    );
    Ok(transaction.execute(&sql, params).await?.rows_affected())
}

async fn delete<'a>(transaction: &Transaction, ids: impl Iterator<Item = &'a str>) -> Result<(), LedgerError> {
    let ids: Vec<&str> = ids.collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect()).column("id", ids.into_iter()).query(&mut params);
    let sql = format!("DELETE FROM usage_dead_letters WHERE id IN (SELECT r.id FROM ({source}) AS r)");
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Finds the letters' events that are billed or repeats.
async fn find_billable(transaction: &Transaction, letters: &[DeadLetter<'_>]) -> Result<HashSet<String>, LedgerError> {
    let dialect = transaction.dialect();
    let ids: Vec<_> = letters.iter().filter_map(|letter| letter.event_id).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let mut params = Params::default();
    let source = Rows::new(dialect).column("id", ids.iter().map(|id| *id.as_uuid())).query(&mut params);
    let sql = format!(
        "WITH r AS MATERIALIZED ({source}) \
         SELECT e.id FROM r JOIN usage_events AS e ON e.id = r.id \
         UNION ALL SELECT d.id FROM r JOIN usage_duplicates AS d ON d.id = r.id"
    );
    let rows = transaction.query(&sql, params).await?;
    rows.iter().map(|row| Ok(dialect.read_uuid(row, "id")?.as_hyphenated().to_string())).collect()
}

/// Selects the ids that a dead letter has, as part of a statement: the ids are rows of one column.
pub(super) fn select_ids(dialect: Dialect, ids: &str) -> String {
    format!("SELECT l.id FROM ({ids}) AS w JOIN usage_dead_letters AS l ON l.id = {}", dialect.uuid_text("w.id"))
}
