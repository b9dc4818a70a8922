//! Making of rows: what an hour counts, less what its rows say, is a further row.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Rows, Transaction, read, read_wide};
use sea_orm::QueryResult;
use uuid::Uuid;

use super::books::{Books, state};
use super::freeze::{Draft, Freezing, freeze, wide};
use super::lanes;
use super::left::{self, LeftHour};
use super::meters::{self, StoredMeter};
use super::rules::{Made, Revision, RowState, lacking};
use crate::late::hour_after;
use crate::source::{Source, wide as wide_sums};
use crate::{BillingError, locks};

/// Tenants and hours of one transaction.
pub(super) const PAIRS_AT_ONCE: i64 = 5_000;
/// The time after its end for which an hour is still waited for.
pub(super) const SETTLE_MICROS: i64 = 300_000_000;

/// The result of sealing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Rows that were made.
    pub rows: u64,
    /// Their units, each taken as positive.
    pub units_micro: i128,
    /// Hours of which a row could not be made: they are looked at again with those that change late.
    pub left: Vec<LeftHour>,
}

impl Sealed {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.units_micro += other.units_micro;
        self.left.extend(other.left);
    }
}

/// A tenant's hour.
pub(super) type Pair = (String, Timestamp);

impl Books {
    /// Makes the missing rows of an hour, of all tenants and meters.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub(super) async fn seal_hour(&self, hour: Timestamp) -> Result<Sealed, BillingError> {
        let mut sealed = Sealed::default();
        for meter in self.meters().await? {
            let mut after = Some(String::new());
            while let Some(tenant) = after.take() {
                let (part, next) = self
                    .billing
                    .store()
                    .write(async |transaction| {
                        locks::reports(transaction).await?;
                        let Some(meter) = meters::meter(transaction, &meter.meter).await? else {
                            return Ok((Sealed::default(), None));
                        };
                        let used = used_in(transaction, &meter, hour, &tenant).await?;
                        let full = i64::try_from(used.len()).unwrap_or(i64::MAX) == PAIRS_AT_ONCE;
                        let next = if full { used.last_key_value().map(|(pair, _)| pair.0.clone()) } else { None };
                        Ok::<_, BillingError>((self.make(transaction, &meter, used).await?, next))
                    })
                    .await?;
                sealed.add(part);
                after = next;
            }
        }
        Ok(sealed)
    }

    /// Looks again at hours that changed after their end or were left, so many at once, behind those of the look before; where
    /// there are more, from where on.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn seal_late(&self, after: Option<LateAt>) -> Result<(Sealed, Option<LateAt>), BillingError> {
        let after = &after;
        self.billing
            .store()
            .write(async |transaction| {
                locks::reports(transaction).await?;
                let now = self.now_in(transaction).await?;
                let late = late(transaction, now, after.as_ref()).await?;
                // Read under the lock: of a meter that was added since, the hours would count as looked at.
                let meters = meters::all(Source::Transaction(transaction)).await?;
                let pairs: Vec<Pair> = late.iter().map(|late| late.0.pair.clone()).collect();
                let mut sealed = Sealed::default();
                for meter in &meters {
                    sealed.add(self.freeze_waiting(transaction, meter, now, &pairs).await?);
                    sealed.add(self.seal_pairs(transaction, meter, &pairs).await?);
                }
                let is_full = i64::try_from(late.len()).unwrap_or(i64::MAX) == PAIRS_AT_ONCE;
                let next = late.last().filter(|_| is_full).map(|(at, _)| at.clone());
                let left: BTreeSet<Pair> = sealed.left.iter().map(LeftHour::pair).collect();
                let done: Vec<_> = late.into_iter().filter(|(at, _)| !left.contains(&at.pair)).collect();
                mark_sealed(transaction, &done).await?;
                Ok((sealed, next))
            })
            .await
    }

    /// Makes the missing rows of these hours of a meter, within a transaction that holds the lock.
    pub(crate) async fn seal_pairs(
        &self,
        transaction: &Transaction,
        meter: &StoredMeter,
        pairs: &[Pair],
    ) -> Result<Sealed, BillingError> {
        if pairs.is_empty() {
            return Ok(Sealed::default());
        }
        let used = used_of(transaction, meter, pairs).await?;
        self.make(transaction, meter, used).await
    }

    /// Freezes rows of these hours that had no customer and have one by now: of many old hours that are mapped at once there are
    /// more rows than free minutes.
    async fn freeze_waiting(
        &self,
        transaction: &Transaction,
        meter: &StoredMeter,
        now: Timestamp,
        pairs: &[Pair],
    ) -> Result<Sealed, BillingError> {
        if pairs.is_empty() {
            return Ok(Sealed::default());
        }
        let mut drafts = waiting(transaction, &meter.meter, pairs).await?;
        let without = self.freeze_these(transaction, meter, now, &mut drafts).await?;
        Ok(Sealed { left: left::of(meter, &without, &[]), ..Sealed::default() })
    }

    /// Freezes rows that had no customer, as far as they have one; those that found no minute are left, and returned.
    pub(super) async fn freeze_these(
        &self,
        transaction: &Transaction,
        meter: &StoredMeter,
        now: Timestamp,
        drafts: &mut Vec<Draft>,
    ) -> Result<Vec<Draft>, BillingError> {
        let state = state(transaction).await?;
        let without = freeze(transaction, &Freezing { meter, state, now }, drafts).await?;
        thaw(transaction, drafts, now).await?;
        drafts.retain(|draft| without.contains(&draft.id));
        left::mark(transaction, &left::of(meter, drafts, &[]), now).await?;
        Ok(drafts.clone())
    }

    pub(crate) async fn make(
        &self,
        transaction: &Transaction,
        meter: &StoredMeter,
        used: BTreeMap<Pair, i128>,
    ) -> Result<Sealed, BillingError> {
        let made = made(transaction, &meter.meter, used.keys()).await?;
        let (mut drafts, mut too_much) = (Vec::new(), Vec::new());
        for ((tenant, hour), units_micro) in used {
            let there = made.get(&(tenant.clone(), hour)).copied().unwrap_or_default();
            let draft = |Revision { number, units_micro }| {
                let (id, tenant) = (Uuid::now_v7(), tenant.clone());
                Draft { id, tenant, hour, revision: number, units_micro, frozen: None }
            };
            match lacking(units_micro, there, meter.places) {
                Some(rows) => drafts.extend(rows.into_iter().map(draft)),
                None => too_much.push(draft(there.rest(units_micro))),
            }
        }
        if drafts.is_empty() && too_much.is_empty() {
            return Ok(Sealed::default());
        }
        let (now, state) = (self.now_in(transaction).await?, state(transaction).await?);
        let without = freeze(transaction, &Freezing { meter, state, now }, &mut drafts).await?;
        let too_much = left::block(transaction, meter, &too_much, now).await?;
        let (kept, without): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|draft| !without.contains(&draft.id));
        insert(transaction, &meter.meter, now, &kept).await?;
        lanes::make(transaction, now, &kept).await?;
        let left = left::of(meter, &without, &too_much);
        left::mark(transaction, &left, now).await?;
        let units_micro = kept.iter().map(|draft| draft.units_micro.abs()).sum();
        Ok(Sealed { rows: kept.len() as u64, units_micro, left })
    }
}

/// Returns the usage of tenants behind this one in an hour, net of corrections.
async fn used_in(
    transaction: &Transaction,
    meter: &StoredMeter,
    hour: Timestamp,
    after: &str,
) -> Result<BTreeMap<Pair, i128>, BillingError> {
    let dialect = transaction.dialect();
    let until = hour.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(hour);
    let mut params = Params::default();
    let (from, to) = (params.bind(dialect.time(hour)), params.bind(dialect.time(until)));
    let (after, limit) = (params.bind(after), params.bind(PAIRS_AT_ONCE));
    let route = |alias: &str, params: &mut Params| match meter.route.as_str() {
        "" => String::new(),
        route => format!(" AND {alias}.route = {}", params.bind(route)),
    };
    let (of_rollup, of_correction) = (route("r", &mut params), route("c", &mut params));
    let collate = bytewise(dialect);
    let sql = format!(
        "SELECT tenant_id, {sums} FROM ( \
             SELECT r.tenant_id, {rolled} FROM usage_rollups AS r \
                 WHERE r.hour >= {from} AND r.hour < {to} AND r.tenant_id {collate} > {after} {of_rollup} \
             UNION ALL SELECT c.tenant_id, {corrected} FROM usage_corrections AS c WHERE c.ts >= {from} \
                 AND c.ts < {to} AND c.kind <> 'amount' AND c.tenant_id {collate} > {after} {of_correction} \
         ) AS u GROUP BY tenant_id ORDER BY tenant_id {collate} LIMIT {limit}",
        sums = wide_sums::sums(dialect),
        rolled = wide_sums::of_rollup(dialect, "r"),
        corrected = wide_sums::of_row(dialect, "c.units_micro"),
    );
    let rows = transaction.query(&sql, params).await?;
    let pair = |row| Ok(((read(row, "tenant_id")?, hour), read_wide(dialect, row, "units_micro")?));
    rows.iter().map(pair).collect()
}

/// The start of a moment's hour.
pub(super) fn hour_of(dialect: Dialect, column: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("date_trunc('hour', {column} AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"),
        Dialect::Sqlite => format!("substr({column}, 1, 13) || ':00:00.000000Z'"),
    }
}

/// Order of names by their bytes, as it is here.
const fn bytewise(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "COLLATE \"C\"",
        Dialect::Sqlite => "COLLATE BINARY",
    }
}

pub(super) fn pair_rows<'a>(
    dialect: Dialect,
    pairs: impl Iterator<Item = &'a Pair> + Clone,
    params: &mut Params,
) -> String {
    Rows::new(dialect)
        .column("tenant_id", pairs.clone().map(|pair| pair.0.as_str()))
        .column("hour", pairs.map(|pair| pair.1))
        .query(params)
}

/// Returns the usage of these hours, net of corrections; 0 where nothing was used.
async fn used_of(
    transaction: &Transaction,
    meter: &StoredMeter,
    pairs: &[Pair],
) -> Result<BTreeMap<Pair, i128>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let keys = pair_rows(dialect, pairs.iter(), &mut params);
    let route = |alias: &str, params: &mut Params| match meter.route.as_str() {
        "" => String::new(),
        route => format!(" AND {alias}.route = {}", params.bind(route)),
    };
    let (of_rollup, of_correction) = (route("r", &mut params), route("c", &mut params));
    let sql = format!(
        "WITH k AS ({keys}) SELECT tenant_id, hour, {sums} FROM ( \
             SELECT r.tenant_id, r.hour, {rolled} FROM k JOIN usage_rollups AS r \
                 ON r.tenant_id = k.tenant_id AND r.hour = k.hour {of_rollup} \
             UNION ALL SELECT c.tenant_id, k.hour, {corrected} FROM k JOIN usage_corrections AS c \
                 ON c.tenant_id = k.tenant_id AND c.ts >= k.hour AND c.ts < {next} AND c.kind <> 'amount' \
                 {of_correction} \
         ) AS u GROUP BY tenant_id, hour",
        sums = wide_sums::sums(dialect),
        rolled = wide_sums::of_rollup(dialect, "r"),
        corrected = wide_sums::of_row(dialect, "c.units_micro"),
        next = hour_after(dialect, "k.hour"),
    );
    let mut used: BTreeMap<Pair, i128> = pairs.iter().map(|pair| (pair.clone(), 0)).collect();
    for row in transaction.query(&sql, params).await? {
        let pair = (read(&row, "tenant_id")?, dialect.read_time(&row, "hour")?);
        used.insert(pair, read_wide(dialect, &row, "units_micro")?);
    }
    Ok(used)
}

async fn made<'a>(
    transaction: &Transaction,
    meter: &str,
    pairs: impl Iterator<Item = &'a Pair> + Clone,
) -> Result<BTreeMap<Pair, Made>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let keys = pair_rows(dialect, pairs, &mut params);
    let meter = params.bind(meter);
    let sql = format!(
        "SELECT p.tenant_id, p.hour, p.revision, p.state, CAST(p.units_micro AS text) AS units_micro FROM ({keys}) AS k \
         JOIN stripe_pushes AS p ON p.tenant_id = k.tenant_id AND p.meter = {meter} AND p.hour = k.hour"
    );
    let mut made: BTreeMap<Pair, Made> = BTreeMap::new();
    for row in transaction.query(&sql, params).await? {
        let there = made.entry((read(&row, "tenant_id")?, dialect.read_time(&row, "hour")?)).or_default();
        let number: i32 = read(&row, "revision")?;
        let state = RowState::of(&read::<String>(&row, "state")?);
        there.add(i64::from(number), state, wide(&row, "units_micro")?);
    }
    Ok(made)
}

/// Columns of rows that are made or frozen.
fn draft_rows(dialect: Dialect, drafts: &[Draft], now: Timestamp, params: &mut Params) -> String {
    let frozen = || drafts.iter().map(|draft| draft.frozen.as_ref());
    let values: Vec<Option<String>> = frozen().map(|frozen| frozen.map(|frozen| frozen.value.to_string())).collect();
    let is_nothing = |draft: &Draft| draft.frozen.as_ref().is_some_and(|frozen| frozen.value == 0);
    let state = |draft: &Draft| match &draft.frozen {
        None => "unmapped",
        Some(_) if is_nothing(draft) => "pushed",
        Some(_) => "pending",
    };
    // There is nothing to be sent or read of a value of 0.
    let done = |draft: &Draft| is_nothing(draft).then_some(now);
    Rows::new(dialect)
        .column("id", drafts.iter().map(|draft| draft.id))
        .column("tenant_id", drafts.iter().map(|draft| draft.tenant.as_str()))
        .column("hour", drafts.iter().map(|draft| draft.hour))
        .column("revision", drafts.iter().map(|draft| draft.revision))
        .column("units_micro", drafts.iter().map(|draft| draft.units_micro.to_string()))
        .column("state", drafts.iter().map(state))
        .column("customer", frozen().map(|frozen| frozen.map(|frozen| frozen.lane.stripe_customer_id.as_str())))
        .column("event_name", frozen().map(|frozen| frozen.map(|frozen| frozen.lane.event_name.as_str())))
        .column("value", values.iter().map(Option::as_deref))
        .column("minute", frozen().map(|frozen| frozen.and_then(|frozen| frozen.minute)))
        .column("identifier", frozen().map(|frozen| frozen.map(|frozen| frozen.identifier.as_str())))
        .column("frozen_at", frozen().map(|frozen| frozen.map(|_| now)))
        .column("next_at", drafts.iter().map(|draft| (state(draft) == "pending").then_some(now)))
        .column("done_at", drafts.iter().map(done))
        .query(params)
}

pub(super) async fn insert(
    transaction: &Transaction,
    meter: &str,
    now: Timestamp,
    drafts: &[Draft],
) -> Result<(), BillingError> {
    if drafts.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let rows = draft_rows(dialect, drafts, now, &mut params);
    let meter = params.bind(meter);
    let units = if dialect == Dialect::Postgres { "r.units_micro::numeric" } else { "r.units_micro" };
    let sql = format!(
        "INSERT INTO stripe_pushes (id, tenant_id, meter, hour, revision, units_micro, state, stripe_customer_id, \
             event_name, value, event_timestamp, identifier, frozen_at, next_attempt_at, pushed_at, confirmed_at) \
         SELECT r.id, r.tenant_id, {meter}, r.hour, r.revision, {units}, r.state, r.customer, r.event_name, r.value, \
             r.minute, r.identifier, r.frozen_at, r.next_at, r.done_at, r.done_at FROM ({rows}) AS r ORDER BY r.n"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Rows of a tenant and meter that wait for a customer, from an hour on.
pub(super) async fn unmapped(
    transaction: &Transaction,
    tenant: &str,
    meter: &str,
    from_hour: Timestamp,
) -> Result<Vec<Draft>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (tenant, meter) = (params.bind(tenant), params.bind(meter));
    let from = params.bind(dialect.time(from_hour));
    let sql = format!(
        "SELECT id, tenant_id, hour, revision, CAST(units_micro AS text) AS units_micro FROM stripe_pushes \
         WHERE tenant_id = {tenant} AND meter = {meter} AND hour >= {from} AND state = 'unmapped' ORDER BY hour, revision"
    );
    drafts_of(dialect, &transaction.query(&sql, params).await?)
}

/// Rows without a customer, as they were read.
pub(super) fn drafts_of(dialect: Dialect, rows: &[QueryResult]) -> Result<Vec<Draft>, BillingError> {
    let draft = |row| {
        Ok(Draft {
            id: dialect.read_uuid(row, "id")?,
            tenant: read(row, "tenant_id")?,
            hour: dialect.read_time(row, "hour")?,
            revision: i64::from(read::<i32>(row, "revision")?),
            units_micro: wide(row, "units_micro")?,
            frozen: None,
        })
    };
    rows.iter().map(draft).collect()
}

/// Writes down what was frozen of rows that waited.
pub(super) async fn thaw(transaction: &Transaction, drafts: &[Draft], now: Timestamp) -> Result<(), BillingError> {
    let frozen: Vec<Draft> = drafts.iter().filter(|draft| draft.frozen.is_some()).cloned().collect();
    if frozen.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let rows = draft_rows(dialect, &frozen, now, &mut params);
    let sql = format!(
        "UPDATE stripe_pushes SET state = r.state, stripe_customer_id = r.customer, event_name = r.event_name, \
             value = r.value, event_timestamp = r.minute, identifier = r.identifier, frozen_at = r.frozen_at, \
             next_attempt_at = r.next_at, pushed_at = r.done_at, confirmed_at = r.done_at, updated_at = {} \
         FROM ({rows}) AS r WHERE stripe_pushes.id = r.id AND stripe_pushes.frozen_at IS NULL",
        dialect.now()
    );
    transaction.execute(&sql, params).await?;
    lanes::make(transaction, now, &frozen).await
}

/// Rows of these hours of a meter that wait for a customer.
async fn waiting(transaction: &Transaction, meter: &str, pairs: &[Pair]) -> Result<Vec<Draft>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let keys = pair_rows(dialect, pairs.iter(), &mut params);
    let meter = params.bind(meter);
    let sql = format!(
        "SELECT p.id, p.tenant_id, p.hour, p.revision, CAST(p.units_micro AS text) AS units_micro FROM ({keys}) AS k \
         JOIN stripe_pushes AS p ON p.tenant_id = k.tenant_id AND p.meter = {meter} AND p.hour = k.hour \
         WHERE p.state = 'unmapped' ORDER BY p.hour, p.tenant_id, p.revision"
    );
    drafts_of(dialect, &transaction.query(&sql, params).await?)
}

/// The place of an hour among those that changed late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateAt {
    changed_at: Timestamp,
    pair: Pair,
}

/// Hours that changed after they were sealed or were left, and how often by now.
async fn late(
    transaction: &Transaction,
    now: Timestamp,
    after: Option<&LateAt>,
) -> Result<Vec<(LateAt, i64)>, BillingError> {
    let dialect = transaction.dialect();
    let settled = now.plus_micros(-SETTLE_MICROS).unwrap_or(now).hour();
    let mut params = Params::default();
    let (settled, limit) = (params.bind(dialect.time(settled)), params.bind(PAIRS_AT_ONCE));
    let mut condition = format!("changes <> sealed AND hour < {settled}");
    if let Some(LateAt { changed_at, pair: (tenant, hour) }) = after {
        let (changed_at, tenant) = (params.bind(dialect.time(*changed_at)), params.bind(tenant.as_str()));
        let hour = params.bind(dialect.time(*hour));
        condition.push_str(&format!(" AND (changed_at, tenant_id, hour) > ({changed_at}, {tenant}, {hour})"));
    }
    let sql = format!(
        "SELECT tenant_id, hour, changes, changed_at FROM usage_late_hours WHERE {condition} \
         ORDER BY changed_at, tenant_id, hour LIMIT {limit}"
    );
    let rows = transaction.query(&sql, params).await?;
    let late = |row| {
        let pair = (read(row, "tenant_id")?, dialect.read_time(row, "hour")?);
        Ok((LateAt { changed_at: dialect.read_time(row, "changed_at")?, pair }, read(row, "changes")?))
    };
    rows.iter().map(late).collect()
}

/// Marks late hours as sealed, unless they changed since they were read: those stay late.
async fn mark_sealed(transaction: &Transaction, late: &[(LateAt, i64)]) -> Result<(), BillingError> {
    if late.is_empty() {
        return Ok(());
    }
    let mut params = Params::default();
    let rows = Rows::new(transaction.dialect())
        .column("tenant_id", late.iter().map(|late| late.0.pair.0.as_str()))
        .column("hour", late.iter().map(|late| late.0.pair.1))
        .column("changes", late.iter().map(|late| late.1))
        .query(&mut params);
    let sql = format!(
        "UPDATE usage_late_hours SET sealed = r.changes FROM ({rows}) AS r \
         WHERE usage_late_hours.tenant_id = r.tenant_id AND usage_late_hours.hour = r.hour"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Every meter, also the one that there always is.
pub(crate) async fn meter_or_default(source: Source<'_>, name: &str) -> Result<Option<StoredMeter>, BillingError> {
    let meters = meters::all(source).await?;
    let known = meters.into_iter().find(|meter| meter.meter == name);
    Ok(known.or_else(|| {
        (name == meters::METER).then(|| StoredMeter {
            meter: name.to_owned(),
            event_name: name.to_owned(),
            stripe_meter_id: String::new(),
            route: String::new(),
            places: 6,
            checked_at: None,
            unfit: None,
        })
    }))
}
