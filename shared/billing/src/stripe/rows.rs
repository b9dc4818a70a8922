//! Rows while they are under way: which are due, an attempt before it is made, its answer, and a reading of a minute.

use goldleaves_domain::{TenantId, Timestamp};
use goldleaves_store::{Dialect, Params, Transaction, read};
use sea_orm::QueryResult;
use uuid::Uuid;

use super::books::Books;
use super::freeze::wide;
use super::lanes::{Claim, LEASE_LEFT, LaneKey, LaneWork, is_lane, is_leased};
use super::meters;
use super::rules::{Due, Outcome, Progress, Reading, RowState, Verdict, WITNESS_AFTER};
use crate::audit::{self, Author, Change, bad_cursor};
use crate::list::{Cursor, Page, PageOf};
use crate::source::Source;
use crate::{BillingError, RefusalCode, locks};

/// Rows of a lane that are looked at at once.
const ROWS_AT_ONCE: i64 = 200;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRow {
    /// Names the row.
    pub id: Uuid,
    /// The tenant whose usage it is.
    pub tenant_id: String,
    /// The name of the meter.
    pub meter: String,
    /// The hour whose usage it is.
    pub hour: Timestamp,
    /// The number among the hour's rows.
    pub revision: i32,
    /// The units.
    pub units_micro: i128,
    /// `sealed` or `adopted`.
    pub origin: String,
    /// Where it goes to; `None` without a customer.
    pub lane: Option<LaneKey>,
    /// The value that is sent.
    pub value: Option<i128>,
    /// The minute that is its own.
    pub event_timestamp: Option<Timestamp>,
    /// Names the event at Stripe.
    pub identifier: Option<String>,
    /// The point that it has reached.
    pub progress: Progress,
    /// When something is to be done with it: by its age, or earlier where it was asked for.
    due_at: Option<Timestamp>,
}

/// The rows of a tenant that are listed.
#[derive(Debug, Clone)]
pub struct PushFilter {
    /// From this hour on.
    pub from: Timestamp,
    /// Before this hour.
    pub to: Timestamp,
    /// The one meter, if only one is wanted.
    pub meter: Option<String>,
}

impl PushRow {
    /// Returns the next step of the row.
    pub fn due(&self, now: Timestamp) -> Due {
        let Some(minute) = self.event_timestamp else { return Due::Nothing };
        let is_read = match self.progress.state {
            RowState::Held => true,
            RowState::Pushed => self.progress.confirmed_at.is_none(),
            _ => false,
        };
        // A reading may be asked for before its time.
        if is_read && self.due_at.is_some_and(|due| due <= now) {
            return Due::Read;
        }
        self.progress.due(minute, now)
    }

    /// `Idempotency-Key` of the next call.
    pub fn key(&self) -> String {
        let identifier = self.identifier.clone().unwrap_or_default();
        match self.progress.key_suffix {
            0 => identifier,
            suffix => format!("{identifier}.{suffix}"),
        }
    }
}

pub(super) const COLUMNS: &str = "id, tenant_id, meter, hour, revision, CAST(units_micro AS text) AS units_micro, state, origin, \
    stripe_customer_id, event_name, value, event_timestamp, identifier, attempts, key_suffix, first_attempt_at, \
    last_attempt_at, next_attempt_at, pushed_at, confirmed_at, read_back_at, absent_since, last_error";

pub(super) fn row_of(dialect: Dialect, row: &QueryResult) -> Result<PushRow, BillingError> {
    let time = |column| dialect.read_time_or_null(row, column);
    let state = RowState::of(&read::<String>(row, "state")?);
    let lane: (Option<String>, Option<String>) = (read(row, "stripe_customer_id")?, read(row, "event_name")?);
    let value: Option<String> = read(row, "value")?;
    let due_at = time("next_attempt_at")?;
    let next = due_at.filter(|_| state == RowState::Pending);
    Ok(PushRow {
        id: dialect.read_uuid(row, "id")?,
        tenant_id: read(row, "tenant_id")?,
        meter: read(row, "meter")?,
        hour: dialect.read_time(row, "hour")?,
        revision: read(row, "revision")?,
        units_micro: wide(row, "units_micro")?,
        origin: read(row, "origin")?,
        lane: lane.0.zip(lane.1).map(|(stripe_customer_id, event_name)| LaneKey { stripe_customer_id, event_name }),
        value: value.is_some().then(|| wide(row, "value")).transpose()?,
        event_timestamp: time("event_timestamp")?,
        identifier: read(row, "identifier")?,
        progress: Progress {
            state,
            attempts: read(row, "attempts")?,
            key_suffix: read(row, "key_suffix")?,
            first_attempt_at: time("first_attempt_at")?,
            last_attempt_at: time("last_attempt_at")?,
            next_attempt_at: next,
            pushed_at: time("pushed_at")?,
            confirmed_at: time("confirmed_at")?,
            read_back_at: time("read_back_at")?,
            absent_since: time("absent_since")?,
            last_error: read(row, "last_error")?,
        },
        due_at,
    })
}

/// Reads a row, and keeps others from changing it.
async fn locked(transaction: &Transaction, id: Uuid) -> Result<Option<PushRow>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let id = params.bind(dialect.uuid(id));
    let lock = if dialect == Dialect::Postgres { "FOR UPDATE" } else { "" };
    let rows =
        transaction.query(&format!("SELECT {COLUMNS} FROM stripe_pushes WHERE id = {id} {lock}"), params).await?;
    rows.first().map(|row| row_of(dialect, row)).transpose()
}

async fn save(transaction: &Transaction, id: Uuid, now: Timestamp, new: &Progress) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let mut set: Vec<String> = Vec::new();
    let error: Option<String> = new.last_error.as_ref().map(|error| error.chars().take(1_000).collect());
    set.push(format!("state = {}", params.bind(new.state.as_str())));
    set.push(format!("attempts = {}", params.bind(i64::from(new.attempts))));
    set.push(format!("key_suffix = {}", params.bind(i64::from(new.key_suffix))));
    set.push(format!("last_error = {}", params.bind(error)));
    for (column, moment) in [
        ("first_attempt_at", new.first_attempt_at),
        ("last_attempt_at", new.last_attempt_at),
        // When something is to be done with the row, whatever that is: the index goes by it.
        ("next_attempt_at", new.next_at(now)),
        ("pushed_at", new.pushed_at),
        ("confirmed_at", new.confirmed_at),
        ("read_back_at", new.read_back_at),
        ("absent_since", new.absent_since),
    ] {
        let value = moment.map_or_else(|| "NULL".to_owned(), |moment| params.bind(dialect.time(moment)));
        set.push(format!("{column} = {value}"));
    }
    let id = params.bind(dialect.uuid(id));
    let sql = format!("UPDATE stripe_pushes SET {}, updated_at = {} WHERE id = {id}", set.join(", "), dialect.now());
    transaction.execute(&sql, params).await?;
    Ok(())
}

impl Books {
    /// The rows of a lane in which work of this kind is to be done now, the oldest first.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn due_rows(&self, lane: &LaneKey, work: LaneWork) -> Result<(Vec<PushRow>, Timestamp), BillingError> {
        let source = self.billing.source();
        let now = self.moment(source).await?;
        let dialect = source.dialect();
        let mut params = Params::default();
        let is_lane = is_lane("", lane, &mut params);
        let (at, limit) = (params.bind(dialect.time(now)), params.bind(ROWS_AT_ONCE));
        let sql = format!(
            "SELECT {COLUMNS} FROM stripe_pushes WHERE {is_lane} AND state IN ({states}) \
             AND next_attempt_at <= {at} ORDER BY next_attempt_at, event_timestamp LIMIT {limit}",
            states = work.states(),
        );
        let rows = source.query(&sql, params).await?;
        let rows = rows.iter().map(|row| row_of(dialect, row)).collect::<Result<Vec<_>, _>>()?;
        Ok((rows, now))
    }

    /// Writes down an attempt before its bytes go out. `None` where nothing is to be sent any more, or the lane is no longer
    /// this program's for as long as a call may take.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn attempt(&self, claim: &Claim, id: Uuid) -> Result<Option<PushRow>, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                if !may_send(transaction, claim, now).await? {
                    return Ok(None);
                }
                let Some(mut row) = locked(transaction, id).await? else { return Ok(None) };
                if row.due(now) != Due::Send {
                    return Ok(None);
                }
                row.progress = row.progress.attempted(now);
                save(transaction, id, now, &row.progress).await?;
                Ok(Some(row))
            })
            .await
    }

    /// Writes down what came of an attempt; `jitter` lies between 0 and 1.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn answered(&self, id: Uuid, outcome: &Outcome, jitter: f64) -> Result<Option<PushRow>, BillingError> {
        self.change(id, |progress, now| progress.answered(outcome, now, jitter)).await
    }

    /// Returns the number of attempts of a row that the database knows; `None` where it does not know the row.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn attempts_of(&self, id: Uuid) -> Result<Option<i32>, BillingError> {
        let source = self.billing.source();
        let mut params = Params::default();
        let id = params.bind(source.dialect().uuid(id));
        let rows = source.query(&format!("SELECT attempts FROM stripe_pushes WHERE id = {id}"), params).await?;
        Ok(rows.first().map(|row| read(row, "attempts")).transpose()?)
    }

    /// Takes a row out of what is sent.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn hold(&self, id: Uuid) -> Result<Option<PushRow>, BillingError> {
        self.change(id, |progress, _| match progress.state {
            RowState::Pending => progress.held(),
            _ => progress,
        })
        .await
    }

    /// Notes that the minute of a row that was never sent was read, and is empty. `None` where the lease has ended: the reading
    /// may be of long ago.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn read_first(&self, claim: &Claim, id: Uuid) -> Result<Option<PushRow>, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                if !is_held(transaction, claim, now).await? {
                    return Ok(None);
                }
                let Some(mut row) = locked(transaction, id).await? else { return Ok(None) };
                row.progress.read_back_at = Some(now);
                save(transaction, id, now, &row.progress).await?;
                Ok(Some(row))
            })
            .await
    }

    async fn change(
        &self,
        id: Uuid,
        change: impl Fn(Progress, Timestamp) -> Progress + Sync,
    ) -> Result<Option<PushRow>, BillingError> {
        let change = &change;
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                let Some(mut row) = locked(transaction, id).await? else { return Ok(None) };
                row.progress = change(row.progress, now);
                save(transaction, id, now, &row.progress).await?;
                Ok(Some(row))
            })
            .await
    }

    /// Writes down what the minute of a row says, and does what that decides: units that are not there get a new row. After the
    /// lease has ended a reading decides nothing: it may be older than what witnesses of the row since.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn read_back(&self, claim: &Claim, id: Uuid, value: i128) -> Result<Verdict, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                // Before the row: whoever makes rows holds it, too.
                locks::reports(transaction).await?;
                let now = self.now_in(transaction).await?;
                if !is_held(transaction, claim, now).await? {
                    return Ok(Verdict::Undecided);
                }
                let Some(row) = locked(transaction, id).await? else { return Ok(Verdict::Undecided) };
                let (Some(lane), Some(own)) = (row.lane.clone(), row.value) else { return Ok(Verdict::Undecided) };
                if row.progress.confirmed_at.is_some() || row.progress.state == RowState::Abandoned {
                    return Ok(Verdict::Undecided);
                }
                let has_witness = has_witness(transaction, &row, &lane, now).await?;
                let reading = Reading { value: own, read: value, has_witness };
                let (progress, verdict) = row.progress.read(&reading, now);
                save(transaction, id, now, &progress).await?;
                if verdict == Verdict::Abandoned
                    && let Some(meter) = meters::meter(transaction, &row.meter).await?
                {
                    self.seal_pairs(transaction, &meter, &[(row.tenant_id, row.hour)]).await?;
                }
                Ok(verdict)
            })
            .await
    }

    /// Has the minute of a failed row read: it turns out to be there, or gets a new row.
    ///
    /// # Errors
    /// There is no such row, it has not failed, or a database that is away or refuses.
    pub async fn retry(&self, id: Uuid, author: &Author, body: &str) -> Result<PushRow, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                let Some(mut row) = locked(transaction, id).await? else {
                    return BillingError::refused(RefusalCode::NotFound, format!("there is no row {id}"));
                };
                match row.progress.state {
                    RowState::Failed => {}
                    // Asked for already.
                    RowState::Held => return Ok(row),
                    state => {
                        let what = format!("the row is {}: only one that is failed is tried again", state.shown());
                        return BillingError::refused(RefusalCode::AlreadyExists, what);
                    }
                }
                row.progress = row.progress.held();
                row.progress.read_back_at = None;
                save(transaction, id, now, &row.progress).await?;
                let change = Change { author, action: "stripe_retry", tenant_id: &row.tenant_id, body };
                audit::write(transaction, &change).await?;
                Ok(row)
            })
            .await
    }

    /// Returns the number of rows of a tenant in a range.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn count_pushes(&self, tenant: &TenantId, filter: &PushFilter) -> Result<i64, BillingError> {
        let source = self.billing.source();
        let mut params = Params::default();
        let condition = filter.condition(tenant, source.dialect(), &mut params);
        let sql = format!("SELECT COUNT(*) AS count FROM stripe_pushes WHERE {condition}");
        let rows = source.query(&sql, params).await?;
        Ok(rows.first().map_or(Ok(0), |row| read(row, "count"))?)
    }

    /// A tenant's rows, by hour, meter and revision.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn pushes(
        &self,
        tenant: &TenantId,
        filter: &PushFilter,
        page: &Page,
    ) -> Result<PageOf<PushRow>, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let mut condition = filter.condition(tenant, dialect, &mut params);
        if let Some(cursor) = &page.cursor {
            let [hour, meter, revision] = cursor.keys().map_err(bad_cursor)?;
            let hour: Timestamp = hour.parse().map_err(|_| bad_cursor(crate::CursorError))?;
            let revision: i64 = revision.parse().map_err(|_| bad_cursor(crate::CursorError))?;
            let (hour, meter) = (params.bind(dialect.time(hour)), params.bind(meter));
            let revision = params.bind(revision);
            condition.push_str(&format!(" AND (hour, meter, revision) > ({hour}, {meter}, {revision})"));
        }
        let limit = params.bind(page.rows());
        let sql = format!(
            "SELECT {COLUMNS} FROM stripe_pushes WHERE {condition} ORDER BY hour, meter, revision LIMIT {limit}"
        );
        let rows = source.query(&sql, params).await?;
        let rows = rows.iter().map(|row| row_of(dialect, row)).collect::<Result<Vec<_>, _>>()?;
        let key = |row: &PushRow| Cursor::after([row.hour.to_string(), row.meter.clone(), row.revision.to_string()]);
        Ok(PageOf::cut(rows, page.limit, key))
    }
}

impl PushFilter {
    /// The condition on a tenant's rows.
    fn condition(&self, tenant: &TenantId, dialect: Dialect, params: &mut Params) -> String {
        let tenant = params.bind(tenant.as_str());
        let (from, to) = (params.bind(dialect.time(self.from)), params.bind(dialect.time(self.to)));
        let mut condition = format!("tenant_id = {tenant} AND hour >= {from} AND hour < {to}");
        if let Some(meter) = &self.meter {
            condition.push_str(&format!(" AND meter = {}", params.bind(meter.as_str())));
        }
        condition
    }
}

/// Returns whether a lane is this lease's for as long as a call may take, and not blocked again meanwhile.
async fn may_send(transaction: &Transaction, claim: &Claim, now: Timestamp) -> Result<bool, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let is_leased = is_leased(dialect, claim, &mut params);
    let until = params.bind(dialect.time(now.plus_micros(LEASE_LEFT).unwrap_or(now)));
    let claimed = params.bind(dialect.time(claim.claimed_at));
    let sql = format!(
        "SELECT event_name FROM stripe_lanes WHERE {is_leased} AND leased_until >= {until} \
         AND (blocked IS NULL OR blocked_at < {claimed})"
    );
    Ok(!transaction.query(&sql, params).await?.is_empty())
}

/// Returns whether a lane is this lease's now.
async fn is_held(transaction: &Transaction, claim: &Claim, now: Timestamp) -> Result<bool, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let is_leased = is_leased(dialect, claim, &mut params);
    let now = params.bind(dialect.time(now));
    let sql = format!("SELECT event_name FROM stripe_lanes WHERE {is_leased} AND leased_until > {now}");
    Ok(!transaction.query(&sql, params).await?.is_empty())
}

/// Returns whether a row that was first sent after this one's last attempt is there, or so much time has passed that
/// nothing lags.
async fn has_witness(
    transaction: &Transaction,
    row: &PushRow,
    lane: &LaneKey,
    now: Timestamp,
) -> Result<bool, BillingError> {
    let Some(last) = row.progress.last_attempt_at else { return Ok(true) };
    if now.unix_micros() - last.unix_micros() > WITNESS_AFTER {
        return Ok(true);
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let is_lane = is_lane("", lane, &mut params);
    let last = params.bind(dialect.time(last));
    let sql = format!(
        "SELECT id FROM stripe_pushes WHERE {is_lane} AND first_attempt_at > {last} AND confirmed_at IS NOT NULL \
         AND value <> '0' LIMIT 1"
    );
    Ok(!transaction.query(&sql, params).await?.is_empty())
}

/// The units of a tenant's rows in each state, of hours of one meter.
pub(crate) async fn by_state(
    source: Source<'_>,
    tenant: &TenantId,
    meter: &str,
    hours: (Timestamp, Timestamp),
) -> Result<Vec<(Timestamp, RowState, i128)>, BillingError> {
    let dialect = source.dialect();
    let mut params = Params::default();
    let (tenant, meter) = (params.bind(tenant.as_str()), params.bind(meter));
    let (from, to) = (params.bind(dialect.time(hours.0)), params.bind(dialect.time(hours.1)));
    let sql = format!(
        "SELECT hour, state, CAST(units_micro AS text) AS units_micro FROM stripe_pushes \
         WHERE tenant_id = {tenant} AND meter = {meter} AND hour >= {from} AND hour < {to} AND state <> 'abandoned'"
    );
    let rows = source.query(&sql, params).await?;
    let row = |row| {
        let state = RowState::of(&read::<String>(row, "state")?);
        Ok((dialect.read_time(row, "hour")?, state, wide(row, "units_micro")?))
    };
    rows.iter().map(row).collect()
}
