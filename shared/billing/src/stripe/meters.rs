//! The meters that usage is pushed to, and what was found when they were last read at Stripe.

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Transaction, read};
use sea_orm::QueryResult;

use super::books::{Books, flag, state};
use crate::audit::{self, Author, Change};
use crate::source::Source;
use crate::{BillingError, Put, RefusalCode, locks};

/// The meter that there always is: units.
pub const METER: &str = "goldleaves_units";

/// A meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMeter {
    /// Its name here.
    pub meter: String,
    /// The name of its events at Stripe.
    pub event_name: String,
    /// Its id at Stripe.
    pub stripe_meter_id: String,
    /// The route that it counts; empty is all usage.
    pub route: String,
    /// 0 pushes whole units, 6 millionths.
    pub places: i16,
    /// When it was last read at Stripe; nothing is sent before.
    pub checked_at: Option<Timestamp>,
    /// The reason nothing is pushed to it.
    pub unfit: Option<String>,
}

/// A meter that is wanted.
#[derive(Debug, Clone)]
pub struct NewMeter {
    /// Its name here.
    pub meter: String,
    /// The name of its events at Stripe.
    pub event_name: String,
    /// Its id at Stripe.
    pub stripe_meter_id: String,
    /// The route that it counts; empty is all usage.
    pub route: String,
    /// 0 or 6.
    pub places: i16,
    /// True if it was found fit at Stripe; what could not be read is kept unchecked.
    pub is_checked: bool,
}

impl NewMeter {
    fn is(&self, stored: &StoredMeter) -> bool {
        let new = (&self.event_name, &self.stripe_meter_id, &self.route, self.places);
        new == (&stored.event_name, &stored.stripe_meter_id, &stored.route, stored.places)
    }
}

impl Books {
    /// Adds a meter, or changes one that has no frozen rows. The same again changes nothing.
    ///
    /// # Errors
    /// It has rows, another meter has its event name, or a database that is away or refuses.
    pub async fn put_meter(
        &self,
        new: &NewMeter,
        author: &Author,
        body: &str,
    ) -> Result<Put<StoredMeter>, BillingError> {
        self.billing.store().write(async |transaction| self.put_meter_in(transaction, new, author, body).await).await
    }

    async fn put_meter_in(
        &self,
        transaction: &Transaction,
        new: &NewMeter,
        author: &Author,
        body: &str,
    ) -> Result<Put<StoredMeter>, BillingError> {
        locks::reports(transaction).await?;
        let now = self.now_in(transaction).await?;
        let before = meter(transaction, &new.meter).await?;
        let (is_new, route_before) = (before.is_none(), before.as_ref().map(|stored| stored.route.clone()));
        if let Some(stored) = before {
            if new.is(&stored) {
                if new.is_checked {
                    checked(transaction, &new.meter, now, None).await?;
                }
                let stored = meter(transaction, &new.meter).await?.unwrap_or(stored);
                return Ok(Put { is_new: false, stored });
            }
            if has_rows(transaction, &new.meter).await? {
                let what = format!("{:?} has rows for Stripe and can't be another meter any more", new.meter);
                return BillingError::refused(RefusalCode::AlreadyExists, what);
            }
        }
        if let Some(other) = of_event_name(transaction, new).await? {
            let what = format!("the event name {:?} is that of the meter {other:?}", new.event_name);
            return BillingError::refused(RefusalCode::AlreadyExists, what);
        }
        upsert(transaction, new, now).await?;
        if route_before.is_some_and(|route| route != new.route) {
            give_up_waiting(transaction, &new.meter).await?;
        }
        audit::write(transaction, &Change { author, action: "stripe_meter", tenant_id: "", body }).await?;
        let stored = meter(transaction, &new.meter).await?;
        let stored = stored.ok_or_else(|| BillingError::unreadable("stripe_meters", "no row"))?;
        Ok(Put { is_new, stored })
    }

    /// All meters.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn meters(&self) -> Result<Vec<StoredMeter>, BillingError> {
        all(self.billing.source()).await
    }

    /// Writes down that a meter was read at Stripe, and why it does not fit, if so.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn meter_checked(&self, meter: &str, unfit: Option<&str>) -> Result<(), BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let now = self.now_in(transaction).await?;
                checked(transaction, meter, now, unfit).await
            })
            .await
    }

    /// Returns whether the ledger's rows are of live mode, if anything was ever read of it; the first answer stays.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn livemode(&self, found: Option<bool>) -> Result<Option<bool>, BillingError> {
        self.billing
            .store()
            .write(async |transaction| {
                let state = state(transaction).await?;
                if let (None, Some(found)) = (state.livemode, found) {
                    let flag = flag(transaction.dialect(), found);
                    let sql = format!("UPDATE stripe_state SET livemode = {flag} WHERE id = 1 AND livemode IS NULL");
                    transaction.execute(&sql, Params::default()).await?;
                    return Ok(Some(found));
                }
                Ok(state.livemode)
            })
            .await
    }
}

const SELECT: &str = "SELECT meter, event_name, stripe_meter_id, route, CAST(places AS integer) AS places, checked_at, unfit \
     FROM stripe_meters";

fn meter_of(dialect: Dialect, row: &QueryResult) -> Result<StoredMeter, BillingError> {
    let places: i32 = read(row, "places")?;
    Ok(StoredMeter {
        meter: read(row, "meter")?,
        event_name: read(row, "event_name")?,
        stripe_meter_id: read(row, "stripe_meter_id")?,
        route: read(row, "route")?,
        places: if places == 0 { 0 } else { 6 },
        checked_at: dialect.read_time_or_null(row, "checked_at")?,
        unfit: read(row, "unfit")?,
    })
}

pub(super) async fn all(source: Source<'_>) -> Result<Vec<StoredMeter>, BillingError> {
    let rows = source.query(&format!("{SELECT} ORDER BY meter"), Params::default()).await?;
    rows.iter().map(|row| meter_of(source.dialect(), row)).collect()
}

pub(super) async fn meter(transaction: &Transaction, name: &str) -> Result<Option<StoredMeter>, BillingError> {
    let mut params = Params::default();
    let name = params.bind(name);
    let rows = transaction.query(&format!("{SELECT} WHERE meter = {name}"), params).await?;
    rows.first().map(|row| meter_of(transaction.dialect(), row)).transpose()
}

async fn has_rows(transaction: &Transaction, meter: &str) -> Result<bool, BillingError> {
    let mut params = Params::default();
    let meter = params.bind(meter);
    let sql = format!("SELECT id FROM stripe_pushes WHERE meter = {meter} AND frozen_at IS NOT NULL LIMIT 1");
    Ok(!transaction.query(&sql, params).await?.is_empty())
}

/// Gives up the rows of a meter that have no customer: they are of another route than it counts now. A mapping makes those of
/// its hours anew.
async fn give_up_waiting(transaction: &Transaction, meter: &str) -> Result<(), BillingError> {
    let mut params = Params::default();
    let (why, meter) = (params.bind("its meter counted another route then"), params.bind(meter));
    let sql = format!(
        "UPDATE stripe_pushes SET state = 'abandoned', last_error = {why} WHERE meter = {meter} AND state = 'unmapped'"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

async fn of_event_name(transaction: &Transaction, new: &NewMeter) -> Result<Option<String>, BillingError> {
    let mut params = Params::default();
    let (name, meter) = (params.bind(new.event_name.as_str()), params.bind(new.meter.as_str()));
    let sql = format!("SELECT meter FROM stripe_meters WHERE event_name = {name} AND meter <> {meter}");
    let rows = transaction.query(&sql, params).await?;
    Ok(rows.first().map(|row| read(row, "meter")).transpose()?)
}

async fn upsert(transaction: &Transaction, new: &NewMeter, now: Timestamp) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let checked = if new.is_checked { params.bind(dialect.time(now)) } else { "NULL".to_owned() };
    let values = [
        params.bind(new.meter.as_str()),
        params.bind(new.event_name.as_str()),
        params.bind(new.stripe_meter_id.as_str()),
        params.bind(new.route.as_str()),
        params.bind(i64::from(new.places)),
        checked,
    ];
    let sql = format!(
        "INSERT INTO stripe_meters (meter, event_name, stripe_meter_id, route, places, checked_at) VALUES ({}) \
         ON CONFLICT (meter) DO UPDATE SET event_name = EXCLUDED.event_name, \
             stripe_meter_id = EXCLUDED.stripe_meter_id, route = EXCLUDED.route, places = EXCLUDED.places, \
             checked_at = EXCLUDED.checked_at, unfit = NULL",
        values.join(", ")
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

async fn checked(
    transaction: &Transaction,
    meter: &str,
    now: Timestamp,
    unfit: Option<&str>,
) -> Result<(), BillingError> {
    let mut params = Params::default();
    let unfit: Option<String> = unfit.map(|unfit| unfit.chars().take(500).collect());
    let (now, unfit, meter) = (params.bind(transaction.dialect().time(now)), params.bind(unfit), params.bind(meter));
    let sql = format!("UPDATE stripe_meters SET checked_at = {now}, unfit = {unfit} WHERE meter = {meter}");
    transaction.execute(&sql, params).await?;
    Ok(())
}
