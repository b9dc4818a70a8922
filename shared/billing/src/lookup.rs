//! One call, by the id of its event or of its request, with everything that became of it.

use goldleaves_domain::{TenantId, Timestamp};
use goldleaves_store::{Moment, Params, read};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use uuid::Uuid;

use crate::cards::{self, Card};
use crate::corrections::{self, Correction};
use crate::entities::period::{Column, Entity};
use crate::events::is_void;
use crate::items::{self, EventItem};
use crate::source::Source;
use crate::stripe_states::MeterState;
use crate::{Billing, BillingError, PeriodState, RefusalCode};

/// The most events that one id is answered with.
const MATCHES_MAX: usize = 20;

/// The kind of id that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An event's, else a request's.
    Either,
    /// An event's.
    Event,
    /// A request's.
    Request,
}

/// The period that an event is billed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodOfEvent {
    /// The number of the period.
    pub number: i64,
    /// True if it is closed.
    pub state: PeriodState,
    /// The time since when it is so.
    pub closed_at: Option<Timestamp>,
}

/// An event, and everything that became of it.
#[derive(Debug, Clone)]
pub struct Match {
    /// The event.
    pub item: EventItem,
    /// The card that prices it.
    pub card: Option<Card>,
    /// The period; `None` for what lay before the first when that was closed.
    pub period: Option<PeriodOfEvent>,
    /// The corrections of it and of its repeats, oldest first.
    pub corrections: Vec<Correction>,
    /// The point its hour has reached on its way to Stripe.
    pub stripe: Vec<MeterState>,
}

impl Billing {
    /// The events of this tenant with this id.
    ///
    /// # Errors
    /// [`RefusalCode::NoSuchEvent`] when there is none, or a database that is away or refuses.
    pub async fn find_event(&self, tenant: &TenantId, id: &str, by: By) -> Result<Vec<Match>, BillingError> {
        let source = self.source();
        let mut items = Vec::new();
        if by != By::Request {
            items = find(source, tenant, &LookupKey::Event(id)).await?;
        }
        if items.is_empty() && by != By::Event {
            items = find(source, tenant, &LookupKey::Request(id)).await?;
        }
        if items.is_empty() {
            return self.no_such_event(source).await;
        }
        let cards = cards::of_versions(source, items.iter().filter_map(|item| item.rate_version)).await?;
        let mut matches = Vec::new();
        for item in items {
            let card = item.rate_version.and_then(|version| cards.get(&version).cloned());
            let period = period_of(source, tenant, &item).await?;
            let corrections = corrections::of_event(source, tenant, &item).await?;
            let stripe = self.meter_states(source, tenant, item.ts.hour()).await?;
            matches.push(Match { item, card, period, corrections, stripe });
        }
        Ok(matches)
    }

    async fn no_such_event<T>(&self, source: Source<'_>) -> Result<T, BillingError> {
        let dialect = source.dialect();
        let sql =
            "SELECT source, MAX(sealed_at) AS sealed_at FROM usage_epochs GROUP BY source ORDER BY source LIMIT 20";
        let mut seals = Vec::new();
        for row in source.query(sql, Params::default()).await? {
            seals.push(format!("{} {}", read::<String>(&row, "source")?, dialect.read_time(&row, "sealed_at")?));
        }
        let newest = if seals.is_empty() { "none yet".to_owned() } else { seals.join(", ") };
        let detail = format!(
            "no event of this tenant has this id: the call was not billable, or it was refused, or its event has not \
             arrived; the newest seal of each gateway: {newest}"
        );
        BillingError::refused(RefusalCode::NoSuchEvent, detail)
    }
}

enum LookupKey<'a> {
    Event(&'a str),
    Request(&'a str),
}

async fn find(source: Source<'_>, tenant: &TenantId, key: &LookupKey<'_>) -> Result<Vec<EventItem>, BillingError> {
    let dialect = source.dialect();
    let mut params = Params::default();
    let tenant = params.bind(tenant.as_str());
    let (events, repeats, letters) = match key {
        LookupKey::Event(id) => {
            let letter = params.bind(id.to_lowercase());
            let (event, repeat) = match Uuid::try_parse(id) {
                Ok(id) => {
                    let id = params.bind(dialect.uuid(id));
                    (format!("e.id = {id}"), format!("d.id = {id}"))
                }
                Err(_) => ("1 = 0".to_owned(), "1 = 0".to_owned()),
            };
            (vec![event], repeat, format!("l.id = {letter}"))
        }
        LookupKey::Request(id) => {
            let id = params.bind(*id);
            // Apart: SQLite goes by an index for each, and for both together by none.
            (
                vec![format!("e.request_id = {id}"), format!("e.client_request_id = {id} AND e.request_id <> {id}")],
                format!("d.client_request_id = {id}"),
                format!("l.request_id = {id}"),
            )
        }
    };
    let columns = items::of_events(dialect, "e", &is_void("e"));
    let of_events = |which| format!("SELECT {columns} FROM usage_events AS e WHERE e.tenant_id = {tenant} AND {which}");
    let events: Vec<String> = events.into_iter().map(of_events).collect();
    let sql = format!(
        "SELECT * FROM ( \
             {events} \
             UNION ALL SELECT {d} FROM usage_duplicates AS d WHERE d.tenant_id = {tenant} AND {repeats} \
             UNION ALL SELECT {l} FROM usage_dead_letters AS l WHERE l.tenant_id = {tenant} AND {letters} \
         ) AS every ORDER BY ts, event_id LIMIT {MATCHES_MAX}",
        events = events.join(" UNION ALL "),
        d = items::of_repeats(dialect, "d"),
        l = items::of_letters(dialect, "l"),
    );
    let rows = source.query(&sql, params).await?;
    rows.iter().map(|row| EventItem::read(dialect, row)).collect()
}

/// The period that an event is billed in. What comes after the last closed one lies in the open one.
pub(crate) async fn period_of(
    source: Source<'_>,
    tenant: &TenantId,
    item: &EventItem,
) -> Result<Option<PeriodOfEvent>, BillingError> {
    let moment = item.ts;
    let of_tenant = Entity::find().filter(Column::TenantId.eq(tenant.as_str()));
    let begun = of_tenant.clone().filter(Column::StartsAt.lte(Moment(moment))).order_by_desc(Column::StartsAt);
    let open = |number| Some(PeriodOfEvent { number, state: PeriodState::Open, closed_at: None });
    match source.first(begun).await? {
        Some(last) if moment < last.ends_at.0 => {
            let closed_at = Some(last.closed_at.0);
            Ok(Some(PeriodOfEvent { number: last.number, state: PeriodState::Closed, closed_at }))
        }
        // Periods are contiguous: behind the last one that began there is only the open one.
        Some(last) => Ok(open(last.number + 1)),
        // Before the first, which what came after its close is billed for; or there is none yet.
        None => Ok(match source.first(of_tenant.order_by_asc(Column::Number)).await? {
            Some(first) => item.recorded_at.filter(|at| *at >= first.closed_at.0).map(|_| PeriodOfEvent {
                number: first.number,
                state: PeriodState::Closed,
                closed_at: Some(first.closed_at.0),
            }),
            None => open(1),
        }),
    }
}
