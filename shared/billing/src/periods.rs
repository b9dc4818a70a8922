//! Periods: contiguous, closed one after the other, never reopened. What comes late is billed with the next close.

use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_pricing::{CalendarError, Cents, TZDB_VERSION, TimeZone};
use goldleaves_store::{Dialect, Moment, Params, Transaction, read};
use sea_orm::sea_query::{self, Expr, Query};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select};

use crate::audit::{self, Author, Change, bad_cursor};
use crate::entities::correction;
use crate::entities::period::{Column, Entity, Model};
use crate::lines::{self, Invoice, InvoiceLine, PeriodState};
use crate::list::{Cursor, Page, PageOf};
use crate::source::{self, Source};
use crate::tenants::every_name;
use crate::{Billing, BillingError, Put, Refusal, RefusalCode, left_out, locks};

/// The time after its end for which a period may be closed.
const SETTLED_MICROS: i64 = Timestamp::HOUR_MICROS;
/// The least length of a period whose end nobody chose: the zones of a tenant that moves lie up to 26 hours apart.
const LEAST_MICROS: i64 = 27 * Timestamp::HOUR_MICROS;

/// The result of closing by the clock.
#[derive(Debug, Default)]
pub struct DueClosed {
    /// The number of periods that were closed.
    pub count: u64,
    /// Tenants with usage of a card that is not there, whose periods stay open.
    pub failed: Vec<(TenantId, BillingError)>,
}

/// A closed period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedPeriod {
    /// Counts from 1.
    pub number: i64,
    /// When.
    pub period: Period,
    /// The zone that its ends were chosen in.
    pub time_zone: String,
    /// The time at which it was closed.
    pub closed_at: Timestamp,
    /// The user that closed it.
    pub actor: String,
    /// The reason.
    pub reason: String,
    /// The sum that was billed with it.
    pub total: Cents,
    /// SHA-256 of its lines.
    pub lines_hash: String,
    /// The cents that it costs more, or less, since: the next close bills them.
    pub unbilled_late: Cents,
}

/// A period that is to be closed.
#[derive(Debug, Clone)]
pub struct NewPeriod {
    /// The tenant whose period it is.
    pub tenant_id: TenantId,
    /// The next one.
    pub number: i64,
    /// The start of the first period only; `None` is the month of the first usage.
    pub starts_at: Option<Timestamp>,
    /// `None` is the end of the month in the tenant's zone.
    pub ends_at: Option<Timestamp>,
    /// The reason.
    pub reason: String,
}

/// The period that is open.
struct OpenPeriod {
    number: i64,
    period: Period,
    zone: TimeZone,
    /// When the period before it was closed.
    closed_at: Option<Timestamp>,
}

impl Billing {
    /// Closes a period, or finds that it is closed already. `body` is kept in the audit.
    ///
    /// # Errors
    /// Refusals, each with its code, or a database that is away or refuses.
    pub async fn close_period(
        &self,
        new: &NewPeriod,
        author: &Author,
        body: &str,
    ) -> Result<Put<ClosedPeriod>, BillingError> {
        self.store()
            .write(async |transaction| {
                locks::bills(transaction).await?;
                let source = Source::Transaction(transaction);
                let tenant = new.tenant_id.as_str();
                if let Some(mut stored) = closed(source, tenant, new.number).await? {
                    check_same(new, &stored)?;
                    let late = lines::late(source, tenant, stored.number, stored.period).await?;
                    stored.unbilled_late = late.iter().map(|line| line.cents).sum();
                    return Ok(Put { is_new: false, stored });
                }
                let open = self.open_period(source, &new.tenant_id, new).await?;
                let now = source.now().await?;
                check_may_close(new, &open, now)?;
                if let Some(first) = closed(source, tenant, lines::FIRST).await? {
                    left_out::if_unknown(transaction, tenant, first.period.start()).await?;
                }
                let lines = self.open_lines(source, tenant, &open).await?;
                insert(transaction, new, &author.actor, &open, &lines).await?;
                lines::freeze(transaction, tenant, open.number, &lines).await?;
                if open.number == lines::FIRST {
                    left_out::note(transaction, tenant, open.period.start()).await?;
                }
                let change = Change { author, action: "period", tenant_id: tenant, body };
                audit::write(transaction, &change).await?;
                let stored = closed(source, tenant, open.number).await?;
                let stored = stored.ok_or_else(|| BillingError::unreadable("billing_periods", "not stored"))?;
                Ok(Put { is_new: true, stored })
            })
            .await
    }

    /// The open period's invoice, as a close would make it.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn open_invoice(&self, tenant: &TenantId) -> Result<Invoice, BillingError> {
        let source = self.source();
        let nothing =
            NewPeriod { tenant_id: tenant.clone(), number: 0, starts_at: None, ends_at: None, reason: String::new() };
        let open = self.open_period(source, tenant, &nothing).await?;
        let lines = self.open_lines(source, tenant.as_str(), &open).await?;
        Ok(invoice(tenant.as_str(), &open, lines))
    }

    /// A closed period's invoice without its lines, which [`Billing::lines_of`] gives; `None` where the period is not closed.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn closed_invoice(&self, tenant: &TenantId, number: i64) -> Result<Option<Invoice>, BillingError> {
        let stored = closed(self.source(), tenant.as_str(), number).await?;
        Ok(stored.map(|stored| Invoice {
            tenant_id: tenant.as_str().to_owned(),
            number: stored.number,
            state: PeriodState::Closed,
            period: stored.period,
            time_zone: stored.time_zone,
            lines: Vec::new(),
            total: stored.total,
            lines_hash: stored.lines_hash,
        }))
    }

    /// Returns the number of lines a closed period's invoice has.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn count_lines(&self, tenant: &TenantId, number: i64) -> Result<i64, BillingError> {
        lines::count_frozen(self.source(), tenant.as_str(), number).await
    }

    /// A page of the lines of a closed period's invoice.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn lines_of(
        &self,
        tenant: &TenantId,
        number: i64,
        page: &Page,
    ) -> Result<PageOf<InvoiceLine>, BillingError> {
        lines::frozen_page(self.source(), tenant.as_str(), number, page).await
    }

    /// A page of a tenant's closed periods.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn periods(&self, tenant: &TenantId, page: &Page) -> Result<PageOf<ClosedPeriod>, BillingError> {
        let source = self.source();
        let mut rows = of_tenant(tenant.as_str()).order_by_asc(Column::Number).limit(page.rows().unsigned_abs());
        if let Some(cursor) = &page.cursor {
            let [number] = cursor.keys().map_err(bad_cursor)?;
            let number: i64 = number.parse().map_err(|_| bad_cursor(crate::CursorError))?;
            rows = rows.filter(Column::Number.gt(number));
        }
        let rows = source.find(rows).await?;
        let mut periods = rows.into_iter().map(ClosedPeriod::try_from).collect::<Result<Vec<_>, _>>()?;
        let late = self.late_periods(source, tenant.as_str(), None).await?;
        for period in periods.iter_mut().filter(|period| late.iter().any(|(number, _)| *number == period.number)) {
            let lines = lines::late(source, tenant.as_str(), period.number, period.period).await?;
            period.unbilled_late = lines.iter().map(|line| line.cents).sum();
        }
        Ok(PageOf::cut(periods, page.limit, |period| Cursor::after([period.number.to_string()])))
    }

    /// Closes every period of every tenant that ended so long ago. A tenant whose usage can't be priced keeps no other from
    /// being closed.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn close_due_periods(&self, after_hours: u32) -> Result<DueClosed, BillingError> {
        let source = self.source();
        let mut closed = DueClosed::default();
        for name in every_name(source).await? {
            let tenant: TenantId = name.parse().map_err(|error| BillingError::unreadable("tenant_id", error))?;
            loop {
                match self.close_due_period(&tenant, after_hours).await {
                    Ok(Some(put)) => closed.count += u64::from(put.is_new),
                    Ok(None) => break,
                    Err(error @ BillingError::MissingCard { .. }) => {
                        closed.failed.push((tenant, error));
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(closed)
    }

    /// Closes a tenant's open period if it ended so long ago; `None` if it did not.
    async fn close_due_period(
        &self,
        tenant: &TenantId,
        after_hours: u32,
    ) -> Result<Option<Put<ClosedPeriod>>, BillingError> {
        let source = self.source();
        let mut new = NewPeriod {
            tenant_id: tenant.clone(),
            number: 0,
            starts_at: None,
            ends_at: None,
            reason: format!("closed {after_hours} hours after its end, as set"),
        };
        let open = self.open_period(source, tenant, &new).await?;
        let wait = i64::from(after_hours).max(1) * Timestamp::HOUR_MICROS;
        let now = source.now().await?;
        if open.period.end().plus_micros(wait).is_none_or(|due| now < due) {
            return Ok(None);
        }
        (new.number, new.ends_at) = (open.number, Some(open.period.end()));
        let body = format!("{{\"ends_at\":\"{}\"}}", open.period.end());
        self.close_period(&new, &Author::program(), &body).await.map(Some)
    }

    /// The open period, with the ends that were asked for.
    async fn open_period(
        &self,
        source: Source<'_>,
        tenant: &TenantId,
        new: &NewPeriod,
    ) -> Result<OpenPeriod, BillingError> {
        let zone = self.zone_of(source, tenant).await?;
        let last = last(source, tenant.as_str()).await?;
        let start = match (&last, new.starts_at) {
            (Some(last), _) => last.period.end(),
            (None, Some(start)) => start,
            (None, None) => first_start(source, tenant, zone, new.ends_at).await?,
        };
        let end = match new.ends_at {
            Some(end) => end,
            None => month_end(zone, start).map_err(outside)?,
        };
        let empty =
            || Refusal::new(RefusalCode::BodyInvalid, format!("ends_at must lie after the period's start, {start}"));
        Ok(OpenPeriod {
            number: last.as_ref().map_or(0, |last| last.number) + 1,
            period: Period::new(start, end).map_err(|_| empty())?,
            zone,
            closed_at: last.map(|last| last.closed_at),
        })
    }

    /// The lines of the open period, and what closed ones cost more or less since.
    async fn open_lines(
        &self,
        source: Source<'_>,
        tenant: &str,
        open: &OpenPeriod,
    ) -> Result<Vec<InvoiceLine>, BillingError> {
        let mut all = lines::due(source, tenant, open.number, open.period).await?;
        for (number, period) in self.late_periods(source, tenant, open.closed_at).await? {
            all.extend(lines::late(source, tenant, number, period).await?);
        }
        lines::sort(&mut all);
        Ok(all)
    }

    /// The closed periods of which an hour changed since the last close.
    async fn late_periods(
        &self,
        source: Source<'_>,
        tenant: &str,
        closed_at: Option<Timestamp>,
    ) -> Result<Vec<(i64, Period)>, BillingError> {
        let closed_at = match closed_at {
            Some(closed_at) => closed_at,
            None => match last(source, tenant).await? {
                Some(last) => last.closed_at,
                None => return Ok(Vec::new()),
            },
        };
        let dialect = source.dialect();
        let mut params = Params::default();
        let name = params.bind(tenant);
        let since = params.bind(dialect.time(lines::seen_since(closed_at)));
        // An hour that a boundary cuts may have changed in either of its periods; the first one has what lies before it.
        let before = match dialect {
            Dialect::Postgres => "p.starts_at - interval '1 hour'",
            Dialect::Sqlite => "strftime('%Y-%m-%dT%H:%M:%f000Z', p.starts_at, '-1 hour')",
        };
        let sql = format!(
            "SELECT p.number, p.starts_at, p.ends_at FROM billing_periods AS p WHERE p.tenant_id = {name} AND EXISTS ( \
                 SELECT 1 FROM usage_late_hours AS h WHERE h.tenant_id = {name} AND (h.hour > {before} OR p.number = 1) \
                     AND h.hour < p.ends_at AND h.changed_at >= {since}) ORDER BY number"
        );
        let rows = source.query(&sql, params).await?;
        let periods = rows.iter().map(|row| {
            let (start, end) = (dialect.read_time(row, "starts_at")?, dialect.read_time(row, "ends_at")?);
            Ok((read(row, "number")?, period_between(start, end)?))
        });
        periods.collect()
    }
}

fn outside(error: CalendarError) -> Refusal {
    Refusal::new(RefusalCode::Invalid, format!("the period is {error}"))
}

/// The first of the next month, but for a period that would be no longer than a move between zones.
fn month_end(zone: TimeZone, start: Timestamp) -> Result<Timestamp, CalendarError> {
    let least = start.plus_micros(LEAST_MICROS).ok_or(CalendarError::OutOfRange)?;
    let end = zone.month(zone.month_of(start)?)?.end();
    if end >= least { Ok(end) } else { Ok(zone.month(zone.month_of(least)?)?.end()) }
}

/// The start of the first period: of the month of the first usage, else of the month that is billed, else of that of the first
/// correction.
async fn first_start(
    source: Source<'_>,
    tenant: &TenantId,
    zone: TimeZone,
    end: Option<Timestamp>,
) -> Result<Timestamp, BillingError> {
    let dialect = source.dialect();
    let mut params = Params::default();
    let name = params.bind(tenant.as_str());
    // Events older than the first one that is there may lie in an archive; what they come to stays.
    let sql = format!(
        "SELECT hour AS first FROM (SELECT hour FROM usage_rollups WHERE tenant_id = {name} ORDER BY hour LIMIT 1) AS r \
         UNION ALL SELECT ts FROM (SELECT ts FROM usage_events WHERE tenant_id = {name} ORDER BY ts LIMIT 1) AS e"
    );
    let rows = source.query(&sql, params).await?;
    let times = rows.iter().map(|row| dialect.read_time(row, "first")).collect::<Result<Vec<_>, _>>()?;
    let hour = times.iter().map(|time| time.hour()).min();
    let first = times.into_iter().filter(|time| Some(time.hour()) == hour).max();
    let first = match (first, end) {
        (Some(first), _) => first,
        (None, Some(end)) => end.plus_micros(-1).unwrap_or(end),
        (None, None) => {
            let now = source.now().await?;
            first_correction(source, tenant.as_str()).await?.map_or(now, |first| first.min(now))
        }
    };
    let month = zone.month_of(first).and_then(|month| zone.month(month)).map_err(outside)?;
    Ok(month.start())
}

/// The moment of the first correction that is there. Without usage it is an amount.
async fn first_correction(source: Source<'_>, tenant: &str) -> Result<Option<Timestamp>, BillingError> {
    let corrections = correction::Entity::find().filter(correction::Column::TenantId.eq(tenant));
    let first = source.first(corrections.order_by_asc(correction::Column::Ts)).await?;
    Ok(first.map(|first| first.ts.0))
}

fn check_same(new: &NewPeriod, stored: &ClosedPeriod) -> Result<(), BillingError> {
    let same_ends = new.ends_at.is_none_or(|end| end == stored.period.end())
        && new.starts_at.is_none_or(|start| start == stored.period.start());
    if same_ends && new.reason == stored.reason {
        return Ok(());
    }
    let detail = format!(
        "period {} is closed: {} to {}, by {}, because: {}",
        stored.number,
        stored.period.start(),
        stored.period.end(),
        stored.actor,
        stored.reason
    );
    BillingError::refused(RefusalCode::AlreadyExists, detail)
}

fn check_may_close(new: &NewPeriod, open: &OpenPeriod, now: Timestamp) -> Result<(), BillingError> {
    if new.number != open.number {
        let detail = format!("periods are closed one after the other: the next one is number {}", open.number);
        return BillingError::refused(RefusalCode::OutOfOrder, detail);
    }
    if new.number != 1 && new.starts_at.is_some() {
        let detail = "starts_at is for period 1 only: a period starts where the one before it ended";
        return BillingError::refused(RefusalCode::BodyInvalid, detail);
    }
    let settled = open.period.end().plus_micros(SETTLED_MICROS).unwrap_or(open.period.end());
    if now < settled {
        let detail = format!("the period ends at {}: it can be closed from {settled} on", open.period.end());
        return BillingError::refused(RefusalCode::TooEarly, detail);
    }
    Ok(())
}

fn invoice(tenant: &str, open: &OpenPeriod, lines: Vec<InvoiceLine>) -> Invoice {
    Invoice {
        tenant_id: tenant.to_owned(),
        number: open.number,
        state: PeriodState::Open,
        period: open.period,
        time_zone: open.zone.name().to_owned(),
        total: lines.iter().map(|line| line.cents).sum(),
        lines_hash: lines::hash(&lines),
        lines,
    }
}

fn of_tenant(tenant: &str) -> Select<Entity> {
    Entity::find().filter(Column::TenantId.eq(tenant))
}

async fn closed(source: Source<'_>, tenant: &str, number: i64) -> Result<Option<ClosedPeriod>, BillingError> {
    let row = source.first(of_tenant(tenant).filter(Column::Number.eq(number))).await?;
    row.map(ClosedPeriod::try_from).transpose()
}

async fn last(source: Source<'_>, tenant: &str) -> Result<Option<ClosedPeriod>, BillingError> {
    let row = source.first(of_tenant(tenant).order_by_desc(Column::Number)).await?;
    row.map(ClosedPeriod::try_from).transpose()
}

fn period_between(start: Timestamp, end: Timestamp) -> Result<Period, BillingError> {
    Period::new(start, end).map_err(|error| BillingError::unreadable("ends_at", error))
}

impl TryFrom<Model> for ClosedPeriod {
    type Error = BillingError;

    fn try_from(row: Model) -> Result<Self, BillingError> {
        let total = row.total_cents.parse().map_err(|error| BillingError::unreadable("total_cents", error))?;
        Ok(Self {
            number: row.number,
            period: period_between(row.starts_at.0, row.ends_at.0)?,
            time_zone: row.time_zone,
            closed_at: row.closed_at.0,
            actor: row.actor,
            reason: row.reason,
            total: Cents(total),
            lines_hash: row.lines_hash,
            unbilled_late: Cents::default(),
        })
    }
}

async fn insert(
    transaction: &Transaction,
    new: &NewPeriod,
    actor: &str,
    open: &OpenPeriod,
    lines: &[InvoiceLine],
) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let total: Cents = lines.iter().map(|line| line.cents).sum();
    // SQLite keeps numbers of 38 digits as texts.
    let total = Expr::val(total.to_string());
    let total = if dialect == Dialect::Postgres { sea_query::ExprTrait::cast_as(total, "numeric") } else { total };
    let row = Query::insert()
        .into_table(Entity)
        .columns([
            Column::TenantId,
            Column::Number,
            Column::StartsAt,
            Column::EndsAt,
            Column::TimeZone,
            Column::Tzdb,
            Column::TotalCents,
            Column::LinesHash,
            Column::Actor,
            Column::Reason,
            Column::ClosedAt,
        ])
        .values([
            new.tenant_id.as_str().into(),
            open.number.into(),
            Moment(open.period.start()).into(),
            Moment(open.period.end()).into(),
            open.zone.name().into(),
            TZDB_VERSION.into(),
            total,
            lines::hash(lines).into(),
            actor.into(),
            new.reason.as_str().into(),
            Expr::cust(dialect.now()),
        ])
        .map_err(|error| BillingError::unreadable("billing_periods", error))?
        .to_owned();
    source::insert(transaction, &row).await
}
