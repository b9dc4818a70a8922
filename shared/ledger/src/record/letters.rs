//! Dead letters: what is set aside, each under its event's id or the digest of its bytes.
//!
//! No event is ever in two tables, and no writer waits for another one that has other events: whoever writes a letter first
//! holds its event's id in both tables of billable events ([`hold_ids`]), where whoever bills the event needs it.

use std::collections::{BTreeSet, HashMap, HashSet};

use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use uuid::Uuid;

use crate::batch::{DeadLetter, EventRow, rank};
use crate::{LedgerError, Recorded};

/// Deletes the dead letters of billable events, which outrank every one.
pub(super) async fn delete_outranked(transaction: &Transaction, events: &[&EventRow<'_>]) -> Result<(), LedgerError> {
    let ids: Vec<String> = events.iter().map(|row| row.event.event_id.to_string()).collect();
    delete(transaction, ids.iter().map(String::as_str)).await
}

/// Holds the ids of the letters' events until the end of the transaction: nobody bills them meanwhile, and nobody sets them
/// aside. Waits for those who do at the moment.
///
/// A row that is inserted and deleted again in one transaction is seen by nobody, but its key is taken until the commit.
async fn hold_ids(transaction: &Transaction, letters: &[&DeadLetter<'_>]) -> Result<(), LedgerError> {
    // In the order in which events go in.
    let ids: BTreeSet<(Option<&str>, Uuid)> =
        letters.iter().filter_map(|letter| Some((letter.request_id, *letter.event_id?.as_uuid()))).collect();
    if transaction.dialect() != Dialect::Postgres || ids.is_empty() {
        return Ok(());
    }
    let ids = || ids.iter().map(|(_, id)| *id);
    let source = |params: &mut Params| Rows::new(Dialect::Postgres).column("id", ids()).query(params);
    let (mut taking, mut leaving) = (Params::default(), Params::default());
    // No client's id has this character, so the label is nobody else's.
    let row = "r.id, '~' || r.id::text, '', '', '', '', now(), 0, r.id, 0, '', 0";
    let columns =
        "id, request_id, tenant_id, user_id, route, action, ts, units_micro, epoch, seq, outcome, rate_version";
    let take = format!(
        "WITH r AS MATERIALIZED ({source}), events AS ( \
             INSERT INTO usage_events ({columns}) SELECT {row} FROM r ORDER BY r.n ON CONFLICT DO NOTHING \
         ) \
         INSERT INTO usage_duplicates ({columns}, duplicate_of) SELECT {row}, r.id FROM r ORDER BY r.n \
         ON CONFLICT DO NOTHING",
        source = source(&mut taking),
    );
    transaction.execute(&take, taking).await?;
    let leave = format!(
        "WITH r AS MATERIALIZED ({source}), events AS ( \
             DELETE FROM usage_events AS e USING r WHERE e.id = r.id AND e.request_id = '~' || r.id::text \
         ) \
         DELETE FROM usage_duplicates AS d USING r WHERE d.id = r.id AND d.request_id = '~' || r.id::text",
        source = source(&mut leaving),
    );
    transaction.execute(&leave, leaving).await?;
    Ok(())
}

/// Writes what is not yet recorded, in place of what it outranks.
pub(super) async fn write(
    transaction: &Transaction,
    letters: &[DeadLetter<'_>],
    recorded: &mut Recorded,
) -> Result<(), LedgerError> {
    let all: Vec<&DeadLetter<'_>> = letters.iter().collect();
    let before = find_billable(transaction, &all).await?;
    let (_, open): (Vec<_>, Vec<_>) = all.into_iter().partition(|letter| before.contains(&letter.id));
    hold_ids(transaction, &open).await?;
    let mut billable = find_billable(transaction, &open).await?;
    billable.extend(before);
    let reasons = find_reasons(transaction, letters).await?;
    let outranks = |letter: &DeadLetter<'_>| match reasons.get(&letter.id) {
        Some(reason) => rank(letter.reason) > rank(reason),
        None => !billable.contains(&letter.id),
    };
    let (new, replays): (Vec<_>, Vec<_>) = letters.iter().partition(|letter| outranks(letter));
    recorded.replays += replays.len() as u64;
    delete(transaction, new.iter().map(|letter| letter.id.as_str()).filter(|id| reasons.contains_key(*id))).await?;
    let inserted = insert(transaction, &new).await?;
    for letter in new {
        if inserted.contains(&letter.id) {
            *recorded.set_aside.entry(letter.reason.to_owned()).or_default() += 1;
        } else {
            recorded.replays += 1;
        }
    }
    Ok(())
}

/// Returns the ids of those that went in. Another worker may have set the same bytes aside at the same time.
async fn insert(transaction: &Transaction, letters: &[&DeadLetter<'_>]) -> Result<HashSet<String>, LedgerError> {
    if letters.is_empty() {
        return Ok(HashSet::new());
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
         WHERE true ORDER BY n ON CONFLICT DO NOTHING RETURNING id",
        now = transaction.dialect().now(),
    );
    let rows = transaction.query(&sql, params).await?;
    rows.iter().map(|row| Ok(read(row, "id")?)).collect()
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

/// Which of the letters' events are billed or repeats.
async fn find_billable(transaction: &Transaction, letters: &[&DeadLetter<'_>]) -> Result<HashSet<String>, LedgerError> {
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

/// The reasons of those that are there already.
async fn find_reasons(
    transaction: &Transaction,
    letters: &[DeadLetter<'_>],
) -> Result<HashMap<String, String>, LedgerError> {
    if letters.is_empty() {
        return Ok(HashMap::new());
    }
    let mut params = Params::default();
    let ids = letters.iter().map(|letter| letter.id.as_str());
    let source = Rows::new(transaction.dialect()).column("id", ids).query(&mut params);
    let sql = format!("SELECT l.id, l.reason FROM ({source}) AS r JOIN usage_dead_letters AS l ON l.id = r.id");
    let rows = transaction.query(&sql, params).await?;
    rows.iter().map(|row| Ok((read(row, "id")?, read(row, "reason")?))).collect()
}

/// Which of these ids a dead letter has, as part of a statement: the ids are rows of one column.
pub(super) fn select_ids(dialect: Dialect, ids: &str) -> String {
    format!("SELECT l.id FROM ({ids}) AS w JOIN usage_dead_letters AS l ON l.id = {}", dialect.uuid_text("w.id"))
}
