//! Lanes: what goes to one customer under one name is sent one call after the other, by whichever program has the lane.

use std::collections::BTreeSet;

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use uuid::Uuid;

use super::books::Books;
use super::freeze::Draft;
use crate::{BillingError, locks};

const SECOND: i64 = 1_000_000;
/// The time that a program has a lane.
const LEASE: i64 = 60 * SECOND;
/// No call begins when less than this is left of it: a call takes 20 s.
pub(super) const LEASE_LEFT: i64 = 30 * SECOND;
/// After so long it is tried whether what blocked a lane is still so.
const BLOCKED_FOR: i64 = 900 * SECOND;
/// The interval at which a lane's total is compared.
const CHECK_EVERY: i64 = Timestamp::DAY_MICROS;
/// The interval while there is a difference.
const CHECK_AGAIN: i64 = 900 * SECOND;
/// Rows that are looked at to find lanes.
const ROWS_LOOKED_AT: i64 = 2_000;

/// The reason a lane is blocked whose meter can't count what is to be pushed.
pub const METER_UNFIT: &str = "meter_unfit";

/// Names a lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// The tenant whose usage it is.
    pub stripe_customer_id: String,
    /// Under which name.
    pub event_name: String,
}

/// A lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its name.
    pub key: LaneKey,
    /// When its total was last compared.
    pub checked_at: Option<Timestamp>,
    /// True if both sides were equal then.
    pub is_even: bool,
    /// The reason nothing is sent.
    pub blocked: Option<String>,
    /// The time since when it is so.
    pub blocked_at: Option<Timestamp>,
}

/// The work that a lane is taken for. Readings are slower than sending may be, so that neither waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneWork {
    /// Rows are sent, and totals compared.
    Send,
    /// Minutes are read.
    Read,
}

impl LaneWork {
    /// The states of the rows that it is done to, as a list of SQL. Each work looks at its own rows: many that wait for one kind
    /// leave no place among the first for those of the other.
    pub(super) const fn states(self) -> &'static str {
        match self {
            Self::Send => "'pending'",
            Self::Read => "'held', 'pushed'",
        }
    }
}

/// A lane that is this program's for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The lane.
    pub lane: Lane,
    /// Names the lease, and no other of the same program: one that ended must not give back, or use, what came after it.
    pub lease: Uuid,
    /// From when on.
    pub claimed_at: Timestamp,
}

/// Makes the lanes of rows that were frozen.
pub(super) async fn make(transaction: &Transaction, now: Timestamp, drafts: &[Draft]) -> Result<(), BillingError> {
    let lanes: BTreeSet<&LaneKey> = drafts.iter().filter_map(|draft| Some(&draft.frozen.as_ref()?.lane)).collect();
    make_these(transaction, now, &lanes).await
}

async fn make_these(transaction: &Transaction, now: Timestamp, lanes: &BTreeSet<&LaneKey>) -> Result<(), BillingError> {
    if lanes.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let rows = lane_rows(dialect, lanes.iter().copied(), &mut params);
    let now = params.bind(dialect.time(now));
    let sql = format!(
        "INSERT INTO stripe_lanes (stripe_customer_id, event_name, leased_until) \
         SELECT r.stripe_customer_id, r.event_name, {now} FROM ({rows}) AS r WHERE true \
         ON CONFLICT (stripe_customer_id, event_name) DO NOTHING"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Blocks lanes with usage that their meter can't count, but for those that are blocked for another reason. Those in which
/// nothing was ever sent are made for it.
pub(super) async fn block_unfit(
    transaction: &Transaction,
    now: Timestamp,
    lanes: &BTreeSet<&LaneKey>,
) -> Result<(), BillingError> {
    if lanes.is_empty() {
        return Ok(());
    }
    make_these(transaction, now, lanes).await?;
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let rows = lane_rows(dialect, lanes.iter().copied(), &mut params);
    let (reason, at) = (params.bind(METER_UNFIT), params.bind(dialect.time(now)));
    let sql = format!(
        "UPDATE stripe_lanes SET blocked = {reason}, blocked_at = {at} FROM ({rows}) AS r \
         WHERE stripe_lanes.stripe_customer_id = r.stripe_customer_id AND stripe_lanes.event_name = r.event_name \
             AND (stripe_lanes.blocked IS NULL OR stripe_lanes.blocked = {reason})"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

pub(super) fn lane_rows<'a>(
    dialect: Dialect,
    lanes: impl Iterator<Item = &'a LaneKey> + Clone,
    params: &mut Params,
) -> String {
    Rows::new(dialect)
        .column("stripe_customer_id", lanes.clone().map(|lane| lane.stripe_customer_id.as_str()))
        .column("event_name", lanes.map(|lane| lane.event_name.as_str()))
        .query(params)
}

/// The condition that names a lane.
pub(super) fn is_lane(alias: &str, lane: &LaneKey, params: &mut Params) -> String {
    let customer = params.bind(lane.stripe_customer_id.as_str());
    let name = params.bind(lane.event_name.as_str());
    format!("{alias}stripe_customer_id = {customer} AND {alias}event_name = {name}")
}

/// The condition that a lane is still in this lease's hands: each lease has a name of its own.
pub(super) fn is_leased(dialect: Dialect, claim: &Claim, params: &mut Params) -> String {
    let lane = is_lane("", &claim.lane.key, params);
    format!("{lane} AND owner = {}", params.bind(dialect.uuid(claim.lease)))
}

fn ago(now: Timestamp, micros: i64) -> Timestamp {
    now.plus_micros(-micros).unwrap_or(now)
}

impl Books {
    /// Takes lanes in which something of this kind is to be done, and which nobody has. `started_at` is the moment before
    /// which a comparison of totals does not count.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn claim(&self, work: LaneWork, most: usize, started_at: Timestamp) -> Result<Vec<Claim>, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                locks::lanes(transaction).await?;
                let now = self.now_in(transaction).await?;
                let mut wanted = due(transaction, work, now).await?;
                if work == LaneWork::Send && wanted.len() < most {
                    wanted.extend(unchecked(transaction, now, started_at).await?);
                }
                let wanted: BTreeSet<LaneKey> = wanted.into_iter().take(most).collect();
                take(transaction, &wanted, now).await
            })
            .await
    }

    /// Gives a lane back, unless the lease has ended and the lane is somebody else's by now.
    ///
    /// # Errors
    /// A database that is away or refuses; the lease ends by itself then.
    pub async fn release(&self, claim: &Claim) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let dialect = transaction.dialect();
                let now = self.now_in(transaction).await?;
                let mut params = Params::default();
                let is_leased = is_leased(dialect, claim, &mut params);
                let now = params.bind(dialect.time(now));
                let sql = format!("UPDATE stripe_lanes SET owner = NULL, leased_until = {now} WHERE {is_leased}");
                transaction.execute(&sql, params).await?;
                Ok(())
            })
            .await
    }

    /// Sends nothing of a lane until what is wrong with it was looked at again.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn block(&self, lane: &LaneKey, reason: &str) -> Result<(), BillingError> {
        self.set_blocked(Some(lane), Some(reason)).await
    }

    /// Sends nothing at all until what is wrong was looked at again.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn block_all(&self, reason: &str) -> Result<(), BillingError> {
        self.set_blocked(None, Some(reason)).await
    }

    /// Sends again what is in a lane, unless the lease has ended: whoever has the lane by now may have found a reason to block it.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn unblock(&self, claim: &Claim) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let mut params = Params::default();
                let is_leased = is_leased(transaction.dialect(), claim, &mut params);
                let sql = format!("UPDATE stripe_lanes SET blocked = NULL, blocked_at = NULL WHERE {is_leased}");
                transaction.execute(&sql, params).await?;
                Ok(())
            })
            .await
    }

    /// Sends again what was blocked for one reason.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn unblock_all(&self, reason: &str) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let mut params = Params::default();
                let reason = params.bind(reason);
                let sql = format!("UPDATE stripe_lanes SET blocked = NULL, blocked_at = NULL WHERE blocked = {reason}");
                transaction.execute(&sql, params).await?;
                Ok(())
            })
            .await
    }

    async fn set_blocked(&self, lane: Option<&LaneKey>, reason: Option<&str>) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                set_blocked(transaction, lane, reason, now).await
            })
            .await
    }

    /// Notes that a lane's total was compared, and what it was: Stripe's and ours.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn compared(&self, lane: &LaneKey, stripe: i128, ours: i128) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let dialect = transaction.dialect();
                let now = self.now_in(transaction).await?;
                let numeric = if dialect == Dialect::Postgres { "::numeric" } else { "" };
                let mut params = Params::default();
                let at = params.bind(dialect.time(now));
                let (stripe, ours) = (params.bind(stripe.to_string()), params.bind(ours.to_string()));
                let lane = is_lane("", lane, &mut params);
                let sql = format!(
                    "UPDATE stripe_lanes SET checked_at = {at}, stripe_value = {stripe}{numeric}, \
                         pushed_value = {ours}{numeric} WHERE {lane}"
                );
                transaction.execute(&sql, params).await?;
                Ok(())
            })
            .await
    }
}

/// Blocks or unblocks a lane, or all of them.
pub(super) async fn set_blocked(
    transaction: &Transaction,
    lane: Option<&LaneKey>,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), BillingError> {
    let mut params = Params::default();
    let at = params.bind(transaction.dialect().time(now));
    let mut conditions = Vec::new();
    let set = match reason {
        Some(reason) => {
            let reason = params.bind(reason);
            // What blocks all lanes leaves those alone that are blocked for a reason of their own.
            if lane.is_none() {
                conditions.push(format!("(blocked IS NULL OR blocked = {reason})"));
            }
            format!("blocked = {reason}, blocked_at = {at}")
        }
        None => "blocked = NULL, blocked_at = NULL".to_owned(),
    };
    if let Some(lane) = lane {
        conditions.push(is_lane("", lane, &mut params));
    }
    let sql = format!("UPDATE stripe_lanes SET {set} WHERE {}", conditions.join(" AND "));
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// A lane that nobody has and that is not blocked, or was blocked a while ago. One that was given back is free also where the
/// clock has gone back since.
fn is_free(now: Timestamp, dialect: Dialect, params: &mut Params) -> String {
    let (at, before) = (params.bind(dialect.time(now)), params.bind(dialect.time(ago(now, BLOCKED_FOR))));
    format!("(l.owner IS NULL OR l.leased_until <= {at}) AND (l.blocked IS NULL OR l.blocked_at <= {before})")
}

async fn due(transaction: &Transaction, work: LaneWork, now: Timestamp) -> Result<Vec<LaneKey>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let free = is_free(now, dialect, &mut params);
    let (at, limit) = (params.bind(dialect.time(now)), params.bind(ROWS_LOOKED_AT));
    let states = work.states();
    let sql = format!(
        "SELECT l.stripe_customer_id, l.event_name FROM stripe_pushes AS p JOIN stripe_lanes AS l \
             ON l.stripe_customer_id = p.stripe_customer_id AND l.event_name = p.event_name \
         WHERE p.state IN ({states}) AND p.next_attempt_at <= {at} AND {free} \
         ORDER BY p.next_attempt_at LIMIT {limit}"
    );
    keys(transaction, &sql, params).await
}

async fn unchecked(
    transaction: &Transaction,
    now: Timestamp,
    started_at: Timestamp,
) -> Result<Vec<LaneKey>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let free = is_free(now, dialect, &mut params);
    let before = params.bind(dialect.time(ago(now, CHECK_EVERY).max(started_at)));
    let (again, limit) = (params.bind(dialect.time(ago(now, CHECK_AGAIN))), params.bind(ROWS_LOOKED_AT));
    let sql = format!(
        "SELECT l.stripe_customer_id, l.event_name FROM stripe_lanes AS l WHERE {free} AND (l.checked_at IS NULL \
             OR l.checked_at < {before} OR (l.stripe_value <> l.pushed_value AND l.checked_at < {again})) \
         ORDER BY l.checked_at LIMIT {limit}"
    );
    keys(transaction, &sql, params).await
}

async fn keys(transaction: &Transaction, sql: &str, params: Params) -> Result<Vec<LaneKey>, BillingError> {
    let rows = transaction.query(sql, params).await?;
    let key = |row| {
        Ok(LaneKey { stripe_customer_id: read(row, "stripe_customer_id")?, event_name: read(row, "event_name")? })
    };
    rows.iter().map(key).collect()
}

async fn take(
    transaction: &Transaction,
    wanted: &BTreeSet<LaneKey>,
    now: Timestamp,
) -> Result<Vec<Claim>, BillingError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let lease = Uuid::new_v4();
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let rows = lane_rows(dialect, wanted.iter(), &mut params);
    let until = now.plus_micros(LEASE).unwrap_or(now);
    let (id, until) = (params.bind(dialect.uuid(lease)), params.bind(dialect.time(until)));
    let sql = format!(
        "UPDATE stripe_lanes SET owner = {id}, leased_until = {until} FROM ({rows}) AS r \
         WHERE stripe_lanes.stripe_customer_id = r.stripe_customer_id AND stripe_lanes.event_name = r.event_name \
         RETURNING stripe_lanes.stripe_customer_id, stripe_lanes.event_name, stripe_lanes.checked_at, \
             stripe_lanes.blocked, stripe_lanes.blocked_at, \
             CASE WHEN stripe_lanes.stripe_value = stripe_lanes.pushed_value THEN 1 ELSE 0 END AS is_even"
    );
    let rows = transaction.query(&sql, params).await?;
    let claim = |row| {
        let lane = Lane {
            key: LaneKey { stripe_customer_id: read(row, "stripe_customer_id")?, event_name: read(row, "event_name")? },
            checked_at: dialect.read_time_or_null(row, "checked_at")?,
            is_even: read::<i32>(row, "is_even")? == 1,
            blocked: read(row, "blocked")?,
            blocked_at: dialect.read_time_or_null(row, "blocked_at")?,
        };
        Ok(Claim { lane, lease, claimed_at: now })
    };
    rows.iter().map(claim).collect()
}
