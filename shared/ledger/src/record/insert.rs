//! The insert that is also the look-up, and what the rows it did not take are.

use std::borrow::Cow;
use std::collections::HashSet;

use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use uuid::Uuid;

use crate::LedgerError;
use crate::batch::EventRow;
use crate::priced::Priced;
use crate::record::Writing;

/// A row on its way into one of the two tables of billable events.
pub(super) struct InsertRow<'a> {
    pub(super) row: &'a EventRow<'a>,
    pub(super) label: Cow<'a, str>,
    /// Set for repeats only.
    pub(super) duplicate_of: Option<Uuid>,
    pub(super) priced: Priced,
}

/// The columns that both tables of billable events share, but for the label and the two times of writing.
pub(super) const COLUMNS: &str = "id, tenant_id, user_id, route, action, units, cost_cents, ts, metadata, units_micro, \
     client_request_id, fingerprint, epoch, seq, outcome, rate_version";

/// Inserts every event under its bare label, if neither it nor the label is there and no dead letter has its id.
/// Returns what went in.
pub(super) async fn fast(
    transaction: &Transaction,
    events: &[&EventRow<'_>],
    writing: &mut Writing<'_>,
) -> Result<HashSet<Uuid>, LedgerError> {
    let mut rows = Vec::with_capacity(events.len());
    for row in events {
        let label = Cow::Borrowed(row.event.request_id.as_str());
        rows.push(InsertRow { row, label, duplicate_of: None, priced: writing.cards.price(row.event)? });
    }
    let inserted = insert(transaction, "usage_events", &rows).await?;
    for new in rows.iter().filter(|new| inserted.contains(&new.row.id())) {
        writing.billed(new);
        writing.recorded.inserted += 1;
    }
    Ok(inserted)
}

impl Writing<'_> {
    /// A row is billed.
    pub(super) fn billed(&mut self, new: &InsertRow<'_>) {
        self.totals.billed(new.row, new.priced);
        self.recorded.earned(new.row.event.route.as_str(), new.priced.cost_cents);
    }
}

/// Inserts rows into `usage_events` or `usage_duplicates`, skipping what collides. Returns what went in.
pub(super) async fn insert(
    transaction: &Transaction,
    table: &str,
    rows: &[InsertRow<'_>],
) -> Result<HashSet<Uuid>, LedgerError> {
    if transaction.dialect() == Dialect::Postgres {
        return insert_part(transaction, table, rows).await;
    }
    let (mut inserted, mut left) = (HashSet::with_capacity(rows.len()), rows);
    while let Some(size) = PREPARED_ROWS.into_iter().find(|size| *size <= left.len()) {
        let (part, rest) = left.split_at(size);
        inserted.extend(insert_part(transaction, table, part).await?);
        left = rest;
    }
    Ok(inserted)
}

/// The number of rows that a statement of SQLite has: few numbers, so that each of these statements is prepared once.
const PREPARED_ROWS: [usize; 4] = [128, 32, 8, 1];

async fn insert_part(
    transaction: &Transaction,
    table: &str,
    rows: &[InsertRow<'_>],
) -> Result<HashSet<Uuid>, LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let is_repeat = table == "usage_duplicates";
    let (of, of_cell) = if is_repeat { (", duplicate_of", ", p.duplicate_of") } else { ("", "") };
    // Where nothing collides, as a rule, PostgreSQL sends nothing back.
    let (begin, end) = match dialect {
        Dialect::Postgres => {
            (", new AS (", ") SELECT p.id FROM p WHERE NOT EXISTS (SELECT 1 FROM new WHERE new.id = p.id)")
        }
        Dialect::Sqlite => (" ", ""),
    };
    let sql = format!(
        "WITH p AS MATERIALIZED ({source}){begin}\
         INSERT INTO {table} (request_id, {COLUMNS}{of}, created_at, updated_at) \
         SELECT p.request_id, p.id, p.tenant_id, p.user_id, p.route, p.action, {units}, p.cost_cents, p.ts, p.metadata, \
             p.units_micro, p.client_request_id, p.fingerprint, p.epoch, p.seq, p.outcome, p.rate_version{of_cell}, \
             {now}, {now} \
         FROM p \
         WHERE NOT EXISTS (SELECT 1 FROM usage_dead_letters AS d WHERE d.id = {id}) \
         ORDER BY p.n ON CONFLICT DO NOTHING RETURNING id{end}",
        source = source(dialect, rows, &mut params),
        units = if dialect == Dialect::Postgres { "p.units::numeric" } else { "p.units" },
        now = dialect.now(),
        id = dialect.uuid_text("p.id"),
    );
    let answer = transaction.query(&sql, params).await?;
    let named: HashSet<Uuid> =
        answer.iter().map(|row| Ok(dialect.read_uuid(row, "id")?)).collect::<Result<_, LedgerError>>()?;
    Ok(match dialect {
        Dialect::Postgres => rows.iter().map(|new| new.row.id()).filter(|id| !named.contains(id)).collect(),
        Dialect::Sqlite => named,
    })
}

fn source(dialect: Dialect, rows: &[InsertRow<'_>], params: &mut Params) -> String {
    let events = || rows.iter().map(|new| new.row.event);
    Rows::prepared(dialect)
        .column("id", rows.iter().map(|new| new.row.id()))
        .column("request_id", rows.iter().map(|new| new.label.as_ref()))
        .column("tenant_id", events().map(|event| event.tenant_id.as_str()))
        .column("user_id", events().map(|event| event.user_id.as_str()))
        .column("route", events().map(|event| event.route.as_str()))
        .column("action", events().map(|event| event.action.as_str()))
        .column("units", events().map(|event| event.units.to_string()))
        .column("ts", events().map(|event| event.ts))
        .column("metadata", rows.iter().map(|new| new.row.metadata.as_str()))
        .column("units_micro", rows.iter().map(|new| new.row.units_micro()))
        .column("client_request_id", events().map(|event| event.client_request_id.as_ref().map(|id| id.as_str())))
        .column("fingerprint", events().map(|event| event.fingerprint.as_ref().map(|print| print.as_str())))
        .column("epoch", events().map(|event| *event.epoch.as_uuid()))
        .column("seq", rows.iter().map(|new| new.row.seq()))
        .column("outcome", events().map(|event| event.outcome.as_str()))
        .column("duplicate_of", rows.iter().map(|new| new.duplicate_of))
        .column("rate_version", rows.iter().map(|new| new.priced.rate_version))
        .column("cost_cents", rows.iter().map(|new| new.priced.cost_cents))
        .query(params)
}

/// The rows that did not go in.
#[derive(Debug, Default)]
pub(super) struct NotInserted {
    /// In one of the two tables of billable events.
    pub(super) replays: HashSet<Uuid>,
    /// Set aside.
    pub(super) waiting: HashSet<Uuid>,
}

impl NotInserted {
    pub(super) fn is_unknown(&self, id: Uuid) -> bool {
        !self.replays.contains(&id) && !self.waiting.contains(&id)
    }
}

/// Looks the ids up in all three tables. What is in none of them lost its label to another event.
pub(super) async fn find(transaction: &Transaction, events: &[&EventRow<'_>]) -> Result<NotInserted, LedgerError> {
    let mut found = NotInserted::default();
    if events.is_empty() {
        return Ok(found);
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let source = Rows::new(dialect).column("id", events.iter().map(|row| row.id())).query(&mut params);
    let sql = format!(
        "WITH r AS MATERIALIZED ({source}) \
         SELECT e.id, 0 AS is_letter FROM r JOIN usage_events AS e ON e.id = r.id \
         UNION ALL SELECT d.id, 0 FROM r JOIN usage_duplicates AS d ON d.id = r.id \
         UNION ALL SELECT r.id, 1 FROM r JOIN usage_dead_letters AS l ON l.id = {id}",
        id = dialect.uuid_text("r.id"),
    );
    for row in transaction.query(&sql, params).await? {
        let id = dialect.read_uuid(&row, "id")?;
        let set = if read::<i32>(&row, "is_letter")? == 1 { &mut found.waiting } else { &mut found.replays };
        set.insert(id);
    }
    Ok(found)
}
