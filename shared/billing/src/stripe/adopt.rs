//! Taking over what Stripe has and the ledger does not know, after a restore or after somebody else pushed.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::Timestamp;
use goldleaves_store::{Params, Rows, Transaction, read};
use uuid::Uuid;

use super::books::{Books, State, state};
use super::freeze::{Draft, Frozen, identifier};
use super::lanes::{self, LaneKey, is_lane};
use super::meters::{self, StoredMeter};
use super::rows::{COLUMNS, PushRow, row_of};
use super::rules::{Adoption, Known, adoption, step};
use super::seal::insert;
use crate::audit::{self, Author, Change};
use crate::source::Source;
use crate::{BillingError, RefusalCode, locks};

const HALF_MINUTE: i64 = 30_000_000;

/// A minute of which Stripe has another value than the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its start.
    pub minute: Timestamp,
    /// The sum that Stripe has.
    pub value: i128,
}

/// The result of an adoption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Values without a row that have one now.
    pub adopted: u64,
    /// Rows that say now what Stripe has.
    pub corrected: u64,
    /// Minutes that differ and whose row is too young to be sure: they may only lag.
    pub left: u64,
}

impl Books {
    /// The rows of a lane's window that are not given up.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn rows_of(&self, lane: &LaneKey, from: Timestamp, to: Timestamp) -> Result<Vec<PushRow>, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let is_lane = is_lane("", lane, &mut params);
        let (from, to) = (params.bind(dialect.time(from)), params.bind(dialect.time(to)));
        let sql = format!(
            "SELECT {COLUMNS} FROM stripe_pushes WHERE {is_lane} AND event_timestamp >= {from} \
             AND event_timestamp < {to} AND state <> 'abandoned' ORDER BY event_timestamp"
        );
        source.query(&sql, params).await?.iter().map(|row| row_of(dialect, row)).collect()
    }

    /// Returns whose meter a lane is, where usage was ever sent to it or is to be.
    ///
    /// # Errors
    /// No meter has the lane's event name, nobody's usage goes to its customer, or a database that is away or refuses.
    pub async fn meter_of_lane(&self, lane: &LaneKey) -> Result<StoredMeter, BillingError> {
        let source = self.billing.source();
        let meter = meter_of(source, lane).await?;
        check_mapped(lane, &tenants_of(source, lane, &meter).await?)?;
        Ok(meter)
    }

    /// Makes rows of what Stripe has in these minutes, begins a new generation of identifiers, and makes rows of the
    /// differences.
    ///
    /// # Errors
    /// Nothing is known of the lane, or a database that is away or refuses.
    pub async fn adopt(
        &self,
        lane: &LaneKey,
        found: &[Found],
        author: &Author,
        body: &str,
    ) -> Result<Adopted, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                locks::reports(transaction).await?;
                let now = self.now_in(transaction).await?;
                let source = Source::Transaction(transaction);
                let meter = meter_of(source, lane).await?;
                let tenants = tenants_of(source, lane, &meter).await?;
                check_mapped(lane, &tenants)?;
                let state = begin_generation(transaction).await?;
                let adopting = Adopting { lane, meter: &meter, tenants: &tenants, state, now };
                let (adopted, mut pairs) = adopting.take_over(transaction, found).await?;
                pairs.extend(adopting.name_anew(transaction).await?);
                let pairs: Vec<_> = pairs.into_iter().collect();
                self.seal_pairs(transaction, &meter, &pairs).await?;
                lanes::set_blocked(transaction, Some(lane), None, now).await?;
                recheck(transaction, lane).await?;
                audit::write(transaction, &Change { author, action: "stripe_adopt", tenant_id: "", body }).await?;
                Ok(adopted)
            })
            .await
    }
}

type Pairs = BTreeSet<(String, Timestamp)>;

struct Adopting<'a> {
    lane: &'a LaneKey,
    meter: &'a StoredMeter,
    /// From which hour on which tenant's usage goes there.
    tenants: &'a [(String, Timestamp)],
    state: State,
    now: Timestamp,
}

impl Adopting<'_> {
    async fn take_over(&self, transaction: &Transaction, found: &[Found]) -> Result<(Adopted, Pairs), BillingError> {
        let rows = self.rows(transaction, found).await?;
        let (mut adopted, mut pairs) = (Adopted::default(), Pairs::new());
        let (mut wanted, mut drafts, mut revisions) = (Vec::new(), Vec::new(), BTreeMap::new());
        for found in found {
            let row = rows.get(&found.minute);
            match (adoption(row.map(known).as_ref(), found.value, self.now), row) {
                (Adoption::Confirm, Some(row)) => {
                    self.mark(transaction, &[row.id]).await?;
                    adopted.corrected += 1;
                }
                (Adoption::GiveUp | Adoption::Replace, Some(row)) => {
                    give_up(transaction, row, "another value was at Stripe, which another row says now").await?;
                    pairs.insert((row.tenant_id.clone(), row.hour));
                    adopted.corrected += 1;
                    wanted.extend((found.value != 0).then_some((found, Some(row))));
                }
                (Adoption::Adopt, _) => {
                    adopted.adopted += 1;
                    wanted.push((found, None));
                }
                (Adoption::Leave, _) => adopted.left += 1,
                (Adoption::Nothing | Adoption::Confirm | Adoption::GiveUp | Adoption::Replace, _) => {}
            }
        }
        for (found, row) in wanted {
            let draft = self.draft(transaction, found, row, &mut revisions).await?;
            pairs.insert((draft.tenant.clone(), draft.hour));
            drafts.push(draft);
        }
        insert(transaction, &self.meter.meter, self.now, &drafts).await?;
        let ids: Vec<Uuid> = drafts.iter().map(|draft| draft.id).collect();
        self.mark(transaction, &ids).await?;
        Ok((adopted, pairs))
    }

    /// Gives up the rows that the ledger has never sent: what a restore forgot may have been sent under their identifiers. They
    /// are made again, under those of the new generation.
    async fn name_anew(&self, transaction: &Transaction) -> Result<Pairs, BillingError> {
        let dialect = transaction.dialect();
        let mut params = Params::default();
        let is_lane = is_lane("", self.lane, &mut params);
        let sql = format!(
            "SELECT {COLUMNS} FROM stripe_pushes WHERE {is_lane} AND state = 'pending' AND attempts = 0 AND origin = 'sealed'"
        );
        let mut pairs = Pairs::new();
        for row in transaction.query(&sql, params).await? {
            let row = row_of(dialect, &row)?;
            give_up(transaction, &row, "made again under an identifier that was never sent").await?;
            pairs.insert((row.tenant_id, row.hour));
        }
        Ok(pairs)
    }

    /// The rows of these minutes, also those that were given up: they have their minute still.
    async fn rows(
        &self,
        transaction: &Transaction,
        found: &[Found],
    ) -> Result<BTreeMap<Timestamp, PushRow>, BillingError> {
        let dialect = transaction.dialect();
        let mut params = Params::default();
        let halves = found.iter().map(|found| found.minute.plus_micros(HALF_MINUTE).unwrap_or(found.minute));
        let minutes = Rows::new(dialect).column("minute", halves).query(&mut params);
        let is_lane = is_lane("", self.lane, &mut params);
        let sql = format!(
            "SELECT {COLUMNS} FROM stripe_pushes WHERE {is_lane} AND event_timestamp IN (SELECT minute FROM ({minutes}) AS m)"
        );
        let rows = transaction.query(&sql, params).await?;
        let row = |row| {
            let row = row_of(dialect, row)?;
            let minute = row.event_timestamp.and_then(|minute| minute.plus_micros(-HALF_MINUTE)).unwrap_or(row.hour);
            Ok((minute, row))
        };
        rows.iter().map(row).collect()
    }

    /// A row of what Stripe has: of the row's tenant and hour, else of whoever goes to this customer then.
    async fn draft(
        &self,
        transaction: &Transaction,
        found: &Found,
        row: Option<&PushRow>,
        revisions: &mut BTreeMap<(String, Timestamp), i64>,
    ) -> Result<Draft, BillingError> {
        let hour = row.map_or(found.minute.hour(), |row| row.hour);
        let tenant = match row {
            Some(row) => row.tenant_id.clone(),
            None => self.tenant_at(hour)?,
        };
        let key = (tenant.clone(), hour);
        let revision = match revisions.get(&key) {
            Some(revision) => revision + 1,
            None => next_revision(transaction, &tenant, &self.meter.meter, hour).await?,
        };
        revisions.insert(key, revision);
        let units_micro = found.value * step(self.meter.places);
        let mut draft = Draft { id: Uuid::now_v7(), tenant, hour, revision, units_micro, frozen: None };
        let identifier = identifier(self.state.generation, &self.meter.meter, &draft);
        let minute = found.minute.plus_micros(HALF_MINUTE);
        draft.frozen = Some(Frozen { lane: self.lane.clone(), value: found.value, minute, identifier });
        Ok(draft)
    }

    fn tenant_at(&self, hour: Timestamp) -> Result<String, BillingError> {
        let at = self.tenants.iter().rev().find(|(_, from)| *from <= hour).or_else(|| self.tenants.first());
        match at {
            Some((tenant, _)) => Ok(tenant.clone()),
            None => BillingError::refused(RefusalCode::NotFound, unmapped(self.lane)),
        }
    }

    /// These rows are there.
    async fn mark(&self, transaction: &Transaction, ids: &[Uuid]) -> Result<(), BillingError> {
        if ids.is_empty() {
            return Ok(());
        }
        let dialect = transaction.dialect();
        let mut params = Params::default();
        let ids = Rows::new(dialect).column("id", ids.iter().copied()).query(&mut params);
        let now = params.bind(dialect.time(self.now));
        let sql = format!(
            "UPDATE stripe_pushes SET state = 'pushed', origin = 'adopted', pushed_at = {now}, confirmed_at = {now}, \
                 read_back_at = {now}, next_attempt_at = NULL FROM ({ids}) AS r WHERE stripe_pushes.id = r.id"
        );
        transaction.execute(&sql, params).await?;
        Ok(())
    }
}

/// A row as the rule of taking over sees it.
fn known(row: &PushRow) -> Known {
    Known {
        state: row.progress.state,
        value: row.value,
        attempts: row.progress.attempts,
        last_attempt_at: row.progress.last_attempt_at,
        is_sealed: row.origin == "sealed",
    }
}

/// Gives a row up, and its minute to the row of what is there.
async fn give_up(transaction: &Transaction, row: &PushRow, why: &str) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let why = params.bind(why);
    let id = params.bind(dialect.uuid(row.id));
    let sql = format!(
        "UPDATE stripe_pushes SET state = 'abandoned', event_timestamp = NULL, next_attempt_at = NULL, \
             last_error = {why} WHERE id = {id}"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

fn unmapped(lane: &LaneKey) -> String {
    let LaneKey { stripe_customer_id, event_name } = lane;
    format!("no tenant's usage of {event_name:?} goes to {stripe_customer_id}: map one first")
}

fn check_mapped(lane: &LaneKey, tenants: &[(String, Timestamp)]) -> Result<(), BillingError> {
    if tenants.is_empty() { BillingError::refused(RefusalCode::NotFound, unmapped(lane)) } else { Ok(()) }
}

async fn meter_of(source: Source<'_>, lane: &LaneKey) -> Result<StoredMeter, BillingError> {
    let meters = meters::all(source).await?;
    match meters.into_iter().find(|meter| meter.event_name == lane.event_name) {
        Some(meter) => Ok(meter),
        None => {
            let what = format!("no meter has the event name {:?}", lane.event_name);
            BillingError::refused(RefusalCode::NotFound, what)
        }
    }
}

async fn tenants_of(
    source: Source<'_>,
    lane: &LaneKey,
    meter: &StoredMeter,
) -> Result<Vec<(String, Timestamp)>, BillingError> {
    let dialect = source.dialect();
    let mut params = Params::default();
    let (customer, meter) = (params.bind(lane.stripe_customer_id.as_str()), params.bind(meter.meter.as_str()));
    let sql = format!(
        "SELECT tenant_id, from_hour FROM stripe_mappings WHERE stripe_customer_id = {customer} AND meter = {meter} \
         ORDER BY from_hour, tenant_id"
    );
    let rows = source.query(&sql, params).await?;
    rows.iter().map(|row| Ok((read(row, "tenant_id")?, dialect.read_time(row, "from_hour")?))).collect()
}

async fn next_revision(
    transaction: &Transaction,
    tenant: &str,
    meter: &str,
    hour: Timestamp,
) -> Result<i64, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (tenant, meter, hour) = (params.bind(tenant), params.bind(meter), params.bind(dialect.time(hour)));
    let sql = format!(
        "SELECT COALESCE(MAX(revision), -1) AS revision FROM stripe_pushes \
         WHERE tenant_id = {tenant} AND meter = {meter} AND hour = {hour}"
    );
    let rows = transaction.query(&sql, params).await?;
    let last: i32 = rows.first().map_or(Ok(-1), |row| read(row, "revision"))?;
    Ok(i64::from(last) + 1)
}

/// Rows that a restore forgot had identifiers that must not come again.
async fn begin_generation(transaction: &Transaction) -> Result<State, BillingError> {
    state(transaction).await?;
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let generation = params.bind(dialect.uuid(Uuid::new_v4()));
    transaction.execute(&format!("UPDATE stripe_state SET generation = {generation} WHERE id = 1"), params).await?;
    state(transaction).await
}

async fn recheck(transaction: &Transaction, lane: &LaneKey) -> Result<(), BillingError> {
    let mut params = Params::default();
    let lane = is_lane("", lane, &mut params);
    let sql = format!("UPDATE stripe_lanes SET checked_at = NULL WHERE {lane}");
    transaction.execute(&sql, params).await?;
    Ok(())
}
