//! Corrections: rows that are added and never changed, and what a void comes to while verdicts move.

use std::collections::BTreeSet;

use goldleaves_domain::{BilledRow, CorrectionPlace, Corrections, Difference, EventId, Period, TenantId, Timestamp};
use goldleaves_store::{Id, Moment, Params, Transaction, read};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _, Select,
};
use uuid::Uuid;

use crate::audit::{self, Author, Change, bad_cursor};
use crate::entities::correction::{ActiveModel, Column, Entity, Model};
use crate::items::EventItem;
use crate::list::{Cursor, Page, PageOf, behind};
use crate::related::related;
use crate::source::{self, Source};
use crate::usage::UnitsTotal;
use crate::{Billing, BillingError, Put, Refusal, RefusalCode, late, left_out, locks};

/// The reason an event that lay before the first period can't be corrected.
const LEFT_OUT: &str = "the event lies before the first period and was there when that was closed: it is on no invoice and costs \
                        nothing, so there is nothing to correct; an amount changes the bill";

/// The kind of a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorrectionKind {
    /// Takes an event off the bill.
    Void,
    /// Changes what an event counts.
    Adjust,
    /// Changes the bill by an amount.
    Amount,
    /// The change of earlier corrections since a verdict changed.
    Follow,
}

impl CorrectionKind {
    /// The word in the table and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Adjust => "adjust",
            Self::Amount => "amount",
            Self::Follow => "follow",
        }
    }

    fn of(word: &str) -> Result<Self, BillingError> {
        let kinds = [Self::Void, Self::Adjust, Self::Amount, Self::Follow];
        let known = kinds.into_iter().find(|kind| kind.as_str() == word);
        known.ok_or_else(|| BillingError::unreadable("kind", word))
    }
}

/// A row of corrections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Chosen by whoever asked for it.
    pub id: Uuid,
    /// The tenant whose bill it is.
    pub tenant_id: String,
    /// The kind of change.
    pub kind: CorrectionKind,
    /// The event that it names.
    pub event_id: Option<Uuid>,
    /// The correction that it follows.
    pub follows: Option<Uuid>,
    /// Where it counts.
    pub ts: Timestamp,
    /// The route it counts for.
    pub route: String,
    /// The action it counts for.
    pub action: String,
    /// The card it counts with; 0 where it is an amount.
    pub rate_version: i64,
    /// Events more, or less.
    pub events: i64,
    /// Millionths of units more, or less.
    pub units_micro: i64,
    /// Cents more, or less.
    pub cents: i64,
    /// The author.
    pub actor: String,
    /// The author's reason.
    pub reason: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The result of a call for a correction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrected {
    /// The correction, new or found there already.
    pub put: Put<Correction>,
    /// Hours that were marked as changed.
    pub late_changes: u64,
}

/// The change that a correction shall make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Take an event off the bill.
    Void {
        /// The event, or a repeat of it.
        event_id: Uuid,
    },
    /// Change what an event counts.
    Adjust {
        /// The event, or a repeat of it.
        event_id: Uuid,
        /// By so many millionths of units.
        units_micro: i64,
    },
    /// Change the bill.
    Amount {
        /// By so many cents.
        cents: i64,
        /// In the period of this moment; `None` is now.
        ts: Option<Timestamp>,
    },
}

/// A correction as it is asked for.
#[derive(Debug, Clone)]
pub struct NewCorrection {
    /// Names it for ever.
    pub id: Uuid,
    /// The tenant whose bill it is.
    pub tenant_id: TenantId,
    /// The change that it shall make.
    pub wanted: Wanted,
    /// The reason.
    pub reason: String,
}

impl Wanted {
    const fn kind(&self) -> CorrectionKind {
        match self {
            Self::Void { .. } => CorrectionKind::Void,
            Self::Adjust { .. } => CorrectionKind::Adjust,
            Self::Amount { .. } => CorrectionKind::Amount,
        }
    }
}

impl NewCorrection {
    fn is(&self, stored: &Correction) -> bool {
        let same = stored.tenant_id == self.tenant_id.as_str()
            && stored.kind == self.wanted.kind()
            && stored.reason == self.reason;
        same && match self.wanted {
            Wanted::Void { event_id } => stored.event_id == Some(event_id),
            Wanted::Adjust { event_id, units_micro } => {
                stored.event_id == Some(event_id) && stored.units_micro == units_micro
            }
            Wanted::Amount { cents, ts } => stored.cents == cents && ts.is_none_or(|ts| ts == stored.ts),
        }
    }
}

impl TryFrom<Model> for Correction {
    type Error = BillingError;

    fn try_from(row: Model) -> Result<Self, BillingError> {
        Ok(Self {
            id: row.id.0,
            tenant_id: row.tenant_id,
            kind: CorrectionKind::of(&row.kind)?,
            event_id: row.event_id.map(|id| id.0),
            follows: row.follows.map(|id| id.0),
            ts: row.ts.0,
            route: row.route,
            action: row.action,
            rate_version: row.rate_version,
            events: row.events,
            units_micro: row.units_micro,
            cents: row.cents,
            actor: row.actor,
            reason: row.reason,
            created_at: row.created_at.0,
        })
    }
}

/// The corrections of a tenant whose numbers count in a range.
fn of_range(tenant: &TenantId, range: &Period) -> Select<Entity> {
    Entity::find()
        .filter(Column::TenantId.eq(tenant.as_str()))
        .filter(Column::Ts.gte(Moment(range.start())))
        .filter(Column::Ts.lt(Moment(range.end())))
}

impl Billing {
    /// Adds a correction, or finds it there already. `body` is kept in the audit.
    ///
    /// # Errors
    /// Refusals, each with its code, or a database that is away or refuses.
    pub async fn correct(&self, new: &NewCorrection, author: &Author, body: &str) -> Result<Corrected, BillingError> {
        self.store()
            .write(async |transaction| {
                locks::bills(transaction).await?;
                let source = Source::Transaction(transaction);
                if let Some(stored) = by_id(source, new.id).await? {
                    let put = Put { is_new: false, stored };
                    return if new.is(&put.stored) {
                        Ok(Corrected { put, late_changes: 0 })
                    } else {
                        already(&put.stored)
                    };
                }
                let now = source.now().await?;
                let late_changes = match new.wanted {
                    Wanted::Amount { cents, ts } => {
                        let row = amount(new, cents, ts.unwrap_or(now), &author.actor);
                        insert(transaction, &row).await?;
                        late::mark(transaction, &row.tenant_id, row.ts.hour()).await?;
                        1
                    }
                    Wanted::Void { event_id } | Wanted::Adjust { event_id, .. } => {
                        of_one_event(transaction, new, event_id, &author.actor).await?
                    }
                };
                let change = Change { author, action: "correction", tenant_id: new.tenant_id.as_str(), body };
                audit::write(transaction, &change).await?;
                let stored = by_id(source, new.id).await?;
                let stored = stored.ok_or_else(|| BillingError::unreadable("usage_corrections", "not stored"))?;
                Ok(Corrected { put: Put { is_new: true, stored }, late_changes })
            })
            .await
    }

    /// A page of a tenant's corrections whose numbers count in the range.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn corrections(
        &self,
        tenant: &TenantId,
        range: &Period,
        page: &Page,
    ) -> Result<PageOf<Correction>, BillingError> {
        let mut rows =
            of_range(tenant, range).order_by_asc(Column::Ts).order_by_asc(Column::Id).limit(page.rows().unsigned_abs());
        if let Some(cursor) = &page.cursor {
            let (ts, id) = cursor.time_and_text().map_err(bad_cursor)?;
            let id = Uuid::try_parse(id).map_err(|_| bad_cursor(crate::CursorError))?;
            rows = rows.filter(behind([Column::Ts, Column::Id], [Moment(ts).into(), Id(id).into()]));
        }
        let rows = self.source().find(rows).await?;
        let rows = rows.into_iter().map(Correction::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(PageOf::cut(rows, page.limit, |row| Cursor::after([row.ts.to_string(), row.id.to_string()])))
    }

    /// Returns the number of corrections that count in the range.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn count_corrections(&self, tenant: &TenantId, range: &Period) -> Result<i64, BillingError> {
        self.source().count(of_range(tenant, range)).await
    }
}

fn already<T>(stored: &Correction) -> Result<T, BillingError> {
    let what = match stored.kind {
        CorrectionKind::Amount => format!("an amount of {} cents", stored.cents),
        kind => format!("{} of event {}", kind.as_str(), stored.event_id.unwrap_or_default()),
    };
    let detail = format!("this id is another correction: {what} for {}, by {}", stored.tenant_id, stored.actor);
    BillingError::refused(RefusalCode::AlreadyExists, detail)
}

fn already_void<T>(row: &BilledRow, stored: &[Correction]) -> Result<T, BillingError> {
    let void = stored.iter().find(|stored| stored.kind == CorrectionKind::Void);
    let by = void
        .map_or_else(String::new, |void| format!(": correction {} by {} took it off the bill", void.id, void.actor));
    BillingError::refused(RefusalCode::AlreadyVoid, format!("event {} is void{by}", row.event_id))
}

async fn by_id(source: Source<'_>, id: Uuid) -> Result<Option<Correction>, BillingError> {
    source.first(Entity::find_by_id(Id(id))).await?.map(Correction::try_from).transpose()
}

/// The corrections that name an event, what it repeats, or its repeats.
pub(crate) async fn of_event(
    source: Source<'_>,
    tenant: &TenantId,
    item: &EventItem,
) -> Result<Vec<Correction>, BillingError> {
    naming(source, tenant.as_str(), &related(source, item).await?).await
}

async fn naming(source: Source<'_>, tenant: &str, ids: &BTreeSet<Uuid>) -> Result<Vec<Correction>, BillingError> {
    let rows = Entity::find()
        .filter(Column::EventId.is_in(ids.iter().copied().map(Id)))
        .filter(Column::TenantId.eq(tenant))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id);
    source.find(rows).await?.into_iter().map(Correction::try_from).collect()
}

fn amount(new: &NewCorrection, cents: i64, ts: Timestamp, actor: &str) -> Correction {
    Correction {
        id: new.id,
        tenant_id: new.tenant_id.as_str().to_owned(),
        kind: CorrectionKind::Amount,
        event_id: None,
        follows: None,
        ts,
        route: String::new(),
        action: String::new(),
        rate_version: 0,
        events: 0,
        units_micro: 0,
        cents,
        actor: actor.to_owned(),
        reason: new.reason.clone(),
        created_at: ts,
    }
}

/// Voids or adjusts an event: the row that was asked for, and, where verdicts moved since, the rows that follow from it.
/// Returns how many hours it marked.
async fn of_one_event(
    transaction: &Transaction,
    new: &NewCorrection,
    event_id: Uuid,
    actor: &str,
) -> Result<u64, BillingError> {
    let source = Source::Transaction(transaction);
    let row = judged(transaction, &new.tenant_id, event_id).await?;
    let members: BTreeSet<Uuid> = row.members().map(|id| *id.as_uuid()).collect();
    let mut corrections = Corrections::default();
    let stored = naming(source, new.tenant_id.as_str(), &members).await?;
    stored.iter().for_each(|stored| count(&mut corrections, stored));
    if corrections.is_void(&row) {
        return already_void(&row, &stored);
    }
    if left_out::is_left_out(transaction, &new.tenant_id, *row.event_id.as_uuid()).await? {
        return BillingError::refused(RefusalCode::NotBilled, LEFT_OUT);
    }
    let (kind, events, units_micro) = match new.wanted {
        Wanted::Adjust { units_micro, .. } => {
            let counts = i128::from(row.units_micro) + corrections.adjusted(&row);
            if counts + i128::from(units_micro) < 0 {
                let (units, counts) = (UnitsTotal(units_micro.into()), UnitsTotal(counts));
                let detail = format!(
                    "units must leave 0 or more of what the event counts, which is {counts}: {units} is too much"
                );
                return BillingError::refused(RefusalCode::BodyInvalid, detail);
            }
            (CorrectionKind::Adjust, 0, units_micro)
        }
        _ => {
            let adjusted = i64::try_from(corrections.adjusted(&row)).unwrap_or_default();
            (CorrectionKind::Void, -1, -(row.units_micro + adjusted))
        }
    };
    let asked = Correction {
        event_id: Some(event_id),
        kind,
        ts: row.place.ts,
        route: row.place.route.clone(),
        action: row.place.action.clone(),
        rate_version: row.place.rate_version,
        events,
        units_micro,
        cents: 0,
        ..amount(new, 0, row.place.ts, actor)
    };
    insert(transaction, &asked).await?;
    late::mark(transaction, &asked.tenant_id, asked.ts.hour()).await?;
    Ok(1 + settle(transaction, &asked.tenant_id, event_id).await?)
}

/// Returns whether an event is billed, or repeats one that is.
pub(crate) async fn is_there(transaction: &Transaction, tenant: &str, event_id: Uuid) -> Result<bool, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (tenant, id) = (params.bind(tenant), params.bind(dialect.uuid(event_id)));
    let sql = format!(
        "SELECT id FROM usage_events WHERE id = {id} AND tenant_id = {tenant} \
         UNION ALL SELECT id FROM usage_duplicates WHERE id = {id} AND tenant_id = {tenant}"
    );
    Ok(!transaction.query(&sql, params).await?.is_empty())
}

/// Adds the rows that follow from the corrections of an event and of its repeats, where what was written for them is not
/// what they come to. Returns how many hours it marked.
pub(crate) async fn settle(transaction: &Transaction, tenant: &str, event_id: Uuid) -> Result<u64, BillingError> {
    let source = Source::Transaction(transaction);
    let tenant: TenantId = tenant.parse().map_err(|error| BillingError::unreadable("tenant_id", error))?;
    let row = judged(transaction, &tenant, event_id).await?;
    let members: BTreeSet<Uuid> = row.members().map(|id| *id.as_uuid()).collect();
    let stored = naming(source, tenant.as_str(), &members).await?;
    let mut corrections = Corrections::default();
    stored.iter().for_each(|stored| count(&mut corrections, stored));
    let Some(first) = stored.iter().find(|stored| stored.kind != CorrectionKind::Follow) else { return Ok(0) };
    let mut marked = 0;
    for change in corrections.changes(std::slice::from_ref(&row)) {
        let follow = follow(first, &change);
        insert(transaction, &follow).await?;
        late::mark(transaction, &follow.tenant_id, follow.ts.hour()).await?;
        marked += 1;
    }
    Ok(marked)
}

/// Counts a stored row among the corrections of its set.
pub(crate) fn count(corrections: &mut Corrections, stored: &Correction) {
    let Some(event_id) = stored.event_id.map(EventId::new) else { return };
    match stored.kind {
        CorrectionKind::Void => corrections.void(event_id),
        CorrectionKind::Adjust => corrections.adjust(event_id, stored.units_micro),
        CorrectionKind::Amount | CorrectionKind::Follow => {}
    }
    let place = CorrectionPlace {
        ts: stored.ts,
        route: stored.route.clone(),
        action: stored.action.clone(),
        rate_version: stored.rate_version,
    };
    let (events, units_micro) = (stored.events, stored.units_micro.into());
    corrections.wrote(&Difference { event_id, place, events, units_micro });
}

fn follow(after: &Correction, change: &Difference) -> Correction {
    Correction {
        id: Uuid::now_v7(),
        kind: CorrectionKind::Follow,
        event_id: Some(*change.event_id.as_uuid()),
        follows: Some(after.id),
        ts: change.place.ts,
        route: change.place.route.clone(),
        action: change.place.action.clone(),
        rate_version: change.place.rate_version,
        events: change.events,
        units_micro: i64::try_from(change.units_micro).unwrap_or_default(),
        actor: "goldleaves".to_owned(),
        reason: "an earlier correction follows its event".to_owned(),
        ..after.clone()
    }
}

/// The billed row that an event is, or repeats, under the lock that keeps workers from judging it meanwhile.
async fn judged(transaction: &Transaction, tenant: &TenantId, id: Uuid) -> Result<BilledRow, BillingError> {
    let found = find(transaction, tenant, id).await?;
    let found = match found.client_request_id.as_deref() {
        None => found,
        Some(request) => {
            locks::request(transaction, tenant.as_str(), request).await?;
            find(transaction, tenant, id).await?
        }
    };
    let repeats = match &found.client_request_id {
        None => Vec::new(),
        Some(request) => repeats_of(transaction, tenant, found.id, request).await?,
    };
    Ok(BilledRow { event_id: EventId::new(found.id), place: found.place, units_micro: found.units_micro, repeats })
}

struct Found {
    id: Uuid,
    client_request_id: Option<String>,
    place: CorrectionPlace,
    units_micro: i64,
}

/// The billed row with this id, or the one that the repeat with this id repeats.
async fn find(transaction: &Transaction, tenant: &TenantId, id: Uuid) -> Result<Found, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (name, id_text) = (params.bind(tenant.as_str()), params.bind(dialect.uuid(id)));
    let sql = format!(
        "SELECT e.id, e.client_request_id, e.ts, e.route, e.action, e.rate_version, e.units_micro FROM usage_events AS e \
         WHERE e.tenant_id = {name} AND e.id = {id_text} \
         UNION ALL SELECT e.id, e.client_request_id, e.ts, e.route, e.action, e.rate_version, e.units_micro \
         FROM usage_duplicates AS d JOIN usage_events AS e ON e.id = d.duplicate_of \
         WHERE d.tenant_id = {name} AND d.id = {id_text}"
    );
    let rows = transaction.query(&sql, params).await?;
    let Some(row) = rows.first() else { return Err(not_billed(transaction, tenant, id).await?.into()) };
    Ok(Found {
        id: dialect.read_uuid(row, "id")?,
        client_request_id: read(row, "client_request_id")?,
        place: CorrectionPlace {
            ts: dialect.read_time(row, "ts")?,
            route: read(row, "route")?,
            action: read(row, "action")?,
            rate_version: read(row, "rate_version")?,
        },
        units_micro: read(row, "units_micro")?,
    })
}

async fn repeats_of(
    transaction: &Transaction,
    tenant: &TenantId,
    first: Uuid,
    request: &str,
) -> Result<Vec<EventId>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let values = (params.bind(tenant.as_str()), params.bind(request), params.bind(dialect.uuid(first)));
    let sql = format!(
        "SELECT id FROM usage_duplicates WHERE tenant_id = {} AND client_request_id = {} AND duplicate_of = {}",
        values.0, values.1, values.2
    );
    let rows = transaction.query(&sql, params).await?;
    rows.iter().map(|row| Ok(EventId::new(dialect.read_uuid(row, "id")?))).collect()
}

/// Returns the reason an id is of no billed event.
async fn not_billed(transaction: &Transaction, tenant: &TenantId, id: Uuid) -> Result<Refusal, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (name, text) = (params.bind(tenant.as_str()), params.bind(id.as_hyphenated().to_string()));
    let archived = params.bind(dialect.uuid(id));
    let sql = format!(
        "SELECT reason FROM usage_dead_letters WHERE tenant_id = {name} AND id = {text} \
         UNION ALL SELECT 'archived' FROM usage_archived WHERE id = {archived} AND (tenant_id IS NULL OR tenant_id = {name})"
    );
    let rows = transaction.query(&sql, params).await?;
    let reason = rows.first().map(|row| read::<String>(row, "reason")).transpose()?;
    Ok(match reason.as_deref() {
        Some("archived") => {
            Refusal::new(RefusalCode::Archived, "the event lies in an archive: correct the bill by an amount")
        }
        Some(reason) => Refusal::new(
            RefusalCode::NotBilled,
            format!("the event was set aside ({reason}) and costs nothing: there is nothing to correct"),
        ),
        None => Refusal::new(
            RefusalCode::NoSuchEvent,
            "no event of this tenant has this id: it is not there, or it has not arrived",
        ),
    })
}

/// Adds a row; the database says when.
async fn insert(transaction: &Transaction, row: &Correction) -> Result<(), BillingError> {
    let row = ActiveModel {
        id: Set(Id(row.id)),
        tenant_id: Set(row.tenant_id.clone()),
        kind: Set(row.kind.as_str().to_owned()),
        event_id: Set(row.event_id.map(Id)),
        follows: Set(row.follows.map(Id)),
        ts: Set(Moment(row.ts)),
        route: Set(row.route.clone()),
        action: Set(row.action.clone()),
        rate_version: Set(row.rate_version),
        events: Set(row.events),
        units_micro: Set(row.units_micro),
        cents: Set(row.cents),
        actor: Set(row.actor.clone()),
        reason: Set(row.reason.clone()),
        created_at: NotSet,
    };
    source::insert(transaction, Entity::insert(row).as_query()).await
}
