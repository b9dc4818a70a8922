//! The slow way, for events whose label another event has: which of them repeat, and which earlier rows they displace.
//!
//! The rule itself is `goldleaves_domain::judge`. Here the first four rows of each set are read, under the lock on
//! (tenant, client id), judged together with the newcomers, and the difference is applied. A row that leaves
//! `usage_events` with the bare label leaves because a newcomer became the first of its set; that one gets the label, so
//! a bare label once taken is never free.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use goldleaves_domain::{Candidate, CorrectionPlace, EventId, Verdict, judge};
use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use sea_orm::QueryResult;
use uuid::Uuid;

use crate::LedgerError;
use crate::batch::EventRow;
use crate::priced::PricedCards;
use crate::record::Writing;
use crate::record::follow::{self, Judged};
use crate::record::insert::{COLUMNS, InsertRow, find, insert};
use crate::record::locks::lock_requests;
use crate::record::totals::RollupKey;

/// One tenant's events with one client id and one fingerprint.
type SetKey<'a> = (&'a str, &'a str, &'a str);

/// A row of a set that is there already.
#[derive(Debug, Clone)]
struct Existing {
    candidate: Candidate,
    label: String,
    duplicate_of: Option<Uuid>,
    key: RollupKey,
    units_micro: i64,
    cost_cents: i64,
}

/// The difference between what is there and what the rule says.
struct Changes<'a> {
    cards: &'a PricedCards,
    demoted: Vec<(Existing, Uuid)>,
    promoted: Vec<(Existing, String)>,
    repointed: Vec<(Uuid, Uuid)>,
    billed: Vec<InsertRow<'a>>,
    repeats: Vec<InsertRow<'a>>,
    judged: Vec<Judged<'a>>,
}

/// Records events that are in no table and whose label is taken. Returns the ids that went in.
pub(super) async fn record<'a>(
    transaction: &Transaction,
    lost: &[&'a EventRow<'a>],
    writing: &mut Writing<'_>,
) -> Result<HashSet<Uuid>, LedgerError> {
    check_why_lost(transaction, lost).await?;
    lock_requests(transaction, lost).await?;
    let found = find(transaction, lost).await?;
    let replays = lost.iter().filter(|row| found.replays.contains(&row.id())).count();
    writing.recorded.replays += replays as u64;
    let lost: Vec<&EventRow<'_>> = lost.iter().filter(|row| found.is_unknown(row.id())).copied().collect();
    let mut sets: BTreeMap<SetKey<'_>, Vec<&EventRow<'_>>> = BTreeMap::new();
    let mut changes = Changes::with(writing.cards);
    for row in lost {
        match set_key(row) {
            Some(key) => sets.entry(key).or_default().push(row),
            None => changes.bill(row, own_label(row.event.request_id.as_str(), row.id()))?,
        }
    }
    let keys: Vec<SetKey<'_>> = sets.keys().copied().collect();
    let existing = read_sets(transaction, &keys).await?;
    for (newcomers, existing) in sets.into_values().zip(existing) {
        changes.of_set(&newcomers, existing)?;
    }
    changes.apply(transaction, writing).await
}

/// An event is lost because its label is taken. If that is not so, a dead letter of it was deleted by hand just now, and
/// the batch is to run again.
async fn check_why_lost(transaction: &Transaction, lost: &[&EventRow<'_>]) -> Result<(), LedgerError> {
    let mut params = Params::default();
    let labels = lost.iter().map(|row| row.event.request_id.as_str());
    let labels = Rows::new(transaction.dialect()).column("label", labels).query(&mut params);
    let sql = format!(
        "SELECT COUNT(*) AS free FROM ({labels}) AS r \
         WHERE NOT EXISTS (SELECT 1 FROM usage_events AS e WHERE e.request_id = r.label)"
    );
    let rows = transaction.query(&sql, params).await?;
    let row = rows.first().ok_or(LedgerError::Contended)?;
    if read::<i64>(row, "free")? == 0 { Ok(()) } else { Err(LedgerError::Contended) }
}

fn set_key<'a>(row: &'a EventRow<'a>) -> Option<SetKey<'a>> {
    let event = row.event;
    Some((event.tenant_id.as_str(), event.client_request_id.as_ref()?.as_str(), event.fingerprint.as_ref()?.as_str()))
}

/// The label of a billed row that does not have the bare one. `~` is in no client's id.
fn own_label(request_id: &str, id: Uuid) -> String {
    format!("{request_id}~{}", id.as_hyphenated())
}

impl<'a> Changes<'a> {
    /// None yet; what comes is priced by these cards.
    fn with(cards: &'a PricedCards) -> Self {
        let (demoted, promoted, repointed) = (Vec::new(), Vec::new(), Vec::new());
        let (billed, repeats, judged) = (Vec::new(), Vec::new(), Vec::new());
        Self { cards, demoted, promoted, repointed, billed, repeats, judged }
    }

    fn bill(&mut self, row: &'a EventRow<'a>, label: String) -> Result<(), LedgerError> {
        let priced = self.cards.price(row.event)?;
        self.billed.push(InsertRow { row, label: Cow::Owned(label), duplicate_of: None, priced });
        Ok(())
    }

    fn of_set(&mut self, newcomers: &[&'a EventRow<'a>], existing: Vec<Existing>) -> Result<(), LedgerError> {
        let mut candidates: Vec<Candidate> = existing.iter().map(|row| row.candidate).collect();
        candidates.extend(newcomers.iter().map(|row| row.candidate()));
        let verdicts = judge(&mut candidates);
        let first = verdicts.first().map(|(id, _)| *id);
        let known = existing.iter().map(|row| (row.candidate.event_id, known_row(row))).collect();
        self.judged.push(Judged { verdicts: verdicts.clone(), known, newcomers: newcomers.to_vec() });
        let verdicts: HashMap<EventId, Verdict> = verdicts.into_iter().collect();
        let mut is_bare_handed_over = false;
        for row in existing {
            let id = *row.candidate.event_id.as_uuid();
            match (verdicts.get(&row.candidate.event_id), row.duplicate_of) {
                (Some(Verdict::RepeatOf(of)), None) => {
                    is_bare_handed_over |= !row.label.contains('~');
                    self.demoted.push((row, *of.as_uuid()));
                }
                (Some(Verdict::RepeatOf(of)), Some(was)) if *of.as_uuid() != was => {
                    self.repointed.push((id, *of.as_uuid()));
                }
                (Some(Verdict::Billed), Some(_)) => {
                    let label = own_label(&row.label, id);
                    self.promoted.push((row, label));
                }
                _ => {}
            }
        }
        for row in newcomers {
            let bare = row.event.request_id.as_str();
            match verdicts.get(&row.event.event_id) {
                Some(Verdict::RepeatOf(of)) => {
                    let (label, priced) = (Cow::Borrowed(bare), self.cards.price(row.event)?);
                    self.repeats.push(InsertRow { row, label, duplicate_of: Some(*of.as_uuid()), priced });
                }
                _ if is_bare_handed_over && first == Some(row.event.event_id) => self.bill(row, bare.to_owned())?,
                _ => self.bill(row, own_label(bare, row.id()))?,
            }
        }
        Ok(())
    }

    async fn apply(self, transaction: &Transaction, writing: &mut Writing<'_>) -> Result<HashSet<Uuid>, LedgerError> {
        demote(transaction, &self.demoted).await?;
        promote(transaction, &self.promoted).await?;
        repoint(transaction, &self.repointed).await?;
        for (row, _) in &self.demoted {
            writing.totals.add(row.key.clone(), -1, -i128::from(row.units_micro));
            writing.recorded.earned(&row.key.route, -row.cost_cents);
        }
        for (row, _) in &self.promoted {
            writing.totals.add(row.key.clone(), 1, row.units_micro.into());
            writing.recorded.earned(&row.key.route, row.cost_cents);
        }
        writing.recorded.displaced += (self.demoted.len() + self.promoted.len()) as u64;
        let mut new = HashSet::new();
        for (table, rows) in [("usage_events", &self.billed), ("usage_duplicates", &self.repeats)] {
            if rows.is_empty() {
                continue;
            }
            let inserted = insert(transaction, table, rows).await?;
            if inserted.len() != rows.len() {
                return Err(LedgerError::Contended);
            }
            if table == "usage_events" {
                rows.iter().for_each(|new| writing.billed(new));
            } else {
                rows.iter().for_each(|new| writing.totals.repeated(new.priced));
            }
            new.extend(inserted);
        }
        let went_in = self.billed.iter().chain(&self.repeats);
        let versions = went_in.map(|new| (new.row.id(), new.priced.rate_version)).collect();
        follow::write(transaction, &self.judged, &versions, writing.totals).await?;
        writing.recorded.inserted += self.billed.len() as u64;
        writing.recorded.duplicates += self.repeats.len() as u64;
        Ok(new)
    }
}

fn known_row(row: &Existing) -> (CorrectionPlace, i64) {
    let place = CorrectionPlace {
        ts: row.candidate.ts,
        route: row.key.route.clone(),
        action: row.key.action.clone(),
        rate_version: row.key.rate_version,
    };
    (place, row.units_micro)
}

/// Moves rows from `usage_events` to `usage_duplicates`, where the label is the client's id again.
async fn demote(transaction: &Transaction, rows: &[(Existing, Uuid)]) -> Result<(), LedgerError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = || rows.iter().map(|(row, _)| *row.candidate.event_id.as_uuid());
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect())
        .column("moved", ids())
        .column("duplicate_of", rows.iter().map(|(_, of)| *of))
        .query(&mut params);
    let copy = format!(
        "INSERT INTO usage_duplicates (request_id, {COLUMNS}, duplicate_of, created_at, updated_at) \
         SELECT client_request_id, {COLUMNS}, m.duplicate_of, created_at, {now} \
         FROM ({source}) AS m JOIN usage_events AS e ON e.id = m.moved",
        now = transaction.dialect().now()
    );
    transaction.execute(&copy, params).await?;
    delete(transaction, "usage_events", ids()).await
}

/// Moves rows from `usage_duplicates` to `usage_events`, each under a label of its own.
async fn promote(transaction: &Transaction, rows: &[(Existing, String)]) -> Result<(), LedgerError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = || rows.iter().map(|(row, _)| *row.candidate.event_id.as_uuid());
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect())
        .column("moved", ids())
        .column("label", rows.iter().map(|(_, label)| label.as_str()))
        .query(&mut params);
    let copy = format!(
        "INSERT INTO usage_events (request_id, {COLUMNS}, created_at, updated_at) \
         SELECT m.label, {COLUMNS}, created_at, {now} \
         FROM ({source}) AS m JOIN usage_duplicates AS d ON d.id = m.moved",
        now = transaction.dialect().now()
    );
    transaction.execute(&copy, params).await?;
    delete(transaction, "usage_duplicates", ids()).await
}

async fn delete(transaction: &Transaction, table: &str, ids: impl Iterator<Item = Uuid>) -> Result<(), LedgerError> {
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect()).column("moved", ids).query(&mut params);
    let sql = format!("DELETE FROM {table} WHERE id IN (SELECT m.moved FROM ({source}) AS m)");
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Repeats whose first is another one now.
async fn repoint(transaction: &Transaction, rows: &[(Uuid, Uuid)]) -> Result<(), LedgerError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect())
        .column("repeat", rows.iter().map(|(id, _)| *id))
        .column("first", rows.iter().map(|(_, of)| *of))
        .query(&mut params);
    let sql = format!(
        "UPDATE usage_duplicates SET duplicate_of = m.first, updated_at = {now} \
         FROM ({source}) AS m WHERE usage_duplicates.id = m.repeat",
        now = transaction.dialect().now()
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Reads the rows of each set that can rank among its first four: four per outcome and table, however many there are.
async fn read_sets(transaction: &Transaction, keys: &[SetKey<'_>]) -> Result<Vec<Vec<Existing>>, LedgerError> {
    let mut sets = vec![Vec::new(); keys.len()];
    if transaction.dialect() == Dialect::Sqlite {
        for (set, (tenant, request, print)) in sets.iter_mut().zip(keys) {
            let mut params = Params::default();
            let (tenant, request, print) = (params.bind(*tenant), params.bind(*request), params.bind(*print));
            let rows = transaction.query(&select_set(&tenant, &request, &print), params).await?;
            *set = rows.iter().map(|row| read_existing(Dialect::Sqlite, row)).collect::<Result<_, _>>()?;
        }
    } else if !keys.is_empty() {
        let mut params = Params::default();
        let source = Rows::new(transaction.dialect())
            .column("tenant", keys.iter().map(|key| key.0))
            .column("request", keys.iter().map(|key| key.1))
            .column("print", keys.iter().map(|key| key.2))
            .query(&mut params);
        let set = select_set("k.tenant", "k.request", "k.print");
        let sql = format!("SELECT k.n, s.* FROM ({source}) AS k CROSS JOIN LATERAL ({set}) AS s ORDER BY k.n");
        for row in transaction.query(&sql, params).await? {
            let at = usize::try_from(read::<i64>(&row, "n")?).unwrap_or_default();
            if let Some(set) = sets.get_mut(at.wrapping_sub(1)) {
                set.push(read_existing(Dialect::Postgres, &row)?);
            }
        }
    }
    Ok(sets)
}

fn select_set(tenant: &str, request: &str, print: &str) -> String {
    let mut parts = Vec::new();
    for (table, of) in [("usage_events", "CAST(NULL AS uuid)"), ("usage_duplicates", "duplicate_of")] {
        for outcome in ["completed", "client_aborted", "gateway_stopped"] {
            parts.push(format!(
                "SELECT * FROM (SELECT id, ts, outcome, request_id, tenant_id, route, action, units_micro, cost_cents, \
                 rate_version, {of} AS duplicate_of FROM {table} WHERE tenant_id = {tenant} \
                 AND client_request_id = {request} AND fingerprint = {print} AND outcome = '{outcome}' \
                 ORDER BY ts, id LIMIT 4) AS {table}_{outcome}"
            ));
        }
    }
    parts.join(" UNION ALL ")
}

fn read_existing(dialect: Dialect, row: &QueryResult) -> Result<Existing, LedgerError> {
    let ts = dialect.read_time(row, "ts")?;
    let completed = read::<String>(row, "outcome")? == "completed";
    Ok(Existing {
        candidate: Candidate { event_id: EventId::new(dialect.read_uuid(row, "id")?), ts, completed },
        label: read(row, "request_id")?,
        duplicate_of: dialect.read_uuid_or_null(row, "duplicate_of")?,
        key: RollupKey {
            tenant_id: read(row, "tenant_id")?,
            hour: ts.hour(),
            route: read(row, "route")?,
            action: read(row, "action")?,
            rate_version: read(row, "rate_version")?,
        },
        units_micro: read(row, "units_micro")?,
        cost_cents: read(row, "cost_cents")?,
    })
}
