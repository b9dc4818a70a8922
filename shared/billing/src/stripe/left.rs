//! Hours of which a row could not be made: its lane has no free minute now, or the hour has more usage than its meter can count.
//!
//! They are marked as hours that are to be looked at again, each minute, until the row is there; the lane of too much usage is blocked
//! for as long as that is so.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::Timestamp;
use goldleaves_store::{Params, Transaction};

use super::freeze::{Draft, lanes_of};
use super::lanes::{self, LaneKey};
use super::meters::StoredMeter;
use super::seal::{Pair, pair_rows};
use crate::BillingError;

/// The reason a row of an hour could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftFor {
    /// Other rows of its lane have every minute that it may have. In the next hour there are others.
    NoMinute,
    /// It takes more rows than an hour has minutes: only a meter of whole units can count it.
    TooMuch,
}

/// A tenant's hour of a meter, of which a row could not be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftHour {
    /// The tenant whose usage it is.
    pub tenant_id: String,
    /// The name of the meter.
    pub meter: String,
    /// The hour.
    pub hour: Timestamp,
    /// The units that are in no row.
    pub units_micro: i128,
    /// The reason.
    pub why: LeftFor,
}

impl LeftHour {
    pub(super) fn pair(&self) -> Pair {
        (self.tenant_id.clone(), self.hour)
    }
}

/// Blocks the lanes of hours with too much usage, which are returned: those of nobody's customer are not to be pushed.
pub(super) async fn block(
    transaction: &Transaction,
    meter: &StoredMeter,
    too_much: &[Draft],
    now: Timestamp,
) -> Result<Vec<Draft>, BillingError> {
    let places = lanes_of(transaction, meter, too_much).await?;
    let lanes: BTreeSet<&LaneKey> = places.iter().map(|(_, lane)| lane).collect();
    lanes::block_unfit(transaction, now, &lanes).await?;
    Ok(places.iter().filter_map(|(at, _)| too_much.get(*at)).cloned().collect())
}

/// Marks hours as not done: whoever looks at what changed late looks at them, too. They have not changed, and don't count as if.
pub(super) async fn mark(transaction: &Transaction, left: &[LeftHour], now: Timestamp) -> Result<(), BillingError> {
    if left.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let pairs: BTreeSet<Pair> = left.iter().map(LeftHour::pair).collect();
    let mut params = Params::default();
    let (rows, now) = (pair_rows(dialect, pairs.iter(), &mut params), params.bind(dialect.time(now)));
    let sql = format!(
        "INSERT INTO usage_late_hours AS h (tenant_id, hour, changes, sealed, changed_at) \
         SELECT r.tenant_id, r.hour, 0, -1, {now} FROM ({rows}) AS r WHERE true \
         ON CONFLICT (tenant_id, hour) DO UPDATE SET sealed = h.changes - 1 WHERE h.sealed = h.changes"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// The hours of drafts that could not be made.
pub(super) fn of(meter: &StoredMeter, without_minute: &[Draft], too_much: &[Draft]) -> Vec<LeftHour> {
    let mut left: BTreeMap<(LeftFor, &str, Timestamp), i128> = BTreeMap::new();
    for (why, drafts) in [(LeftFor::NoMinute, without_minute), (LeftFor::TooMuch, too_much)] {
        for draft in drafts {
            *left.entry((why, &draft.tenant, draft.hour)).or_default() += draft.units_micro;
        }
    }
    let hour = |((why, tenant, hour), units_micro): ((LeftFor, &str, Timestamp), i128)| LeftHour {
        tenant_id: tenant.to_owned(),
        meter: meter.meter.clone(),
        hour,
        units_micro,
        why,
    };
    left.into_iter().map(hour).collect()
}
