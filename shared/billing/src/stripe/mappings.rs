//! The customer of Stripe to which a part of a tenant's usage goes, from an hour on.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::{TenantId, Timestamp};
use goldleaves_store::{Dialect, Params, Rows, Transaction, read};
use sea_orm::QueryResult;

use super::books::Books;
use super::freeze::Draft;
use super::meters::StoredMeter;
use super::meters::meter;
use super::reports::{read_hours, settled_since};
use super::seal::unmapped;
use crate::audit::{self, Author, Change};
use crate::source::Source;
use crate::{BillingError, Put, RefusalCode, locks};

/// From an hour on, a tenant's usage of a meter goes to a customer; or to nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The tenant whose usage it is.
    pub tenant_id: String,
    /// The name of the meter.
    pub meter: String,
    /// From when on.
    pub from_hour: Timestamp,
    /// To whom; `None` is to nobody.
    pub stripe_customer_id: Option<String>,
    /// The user who said so.
    pub actor: String,
    /// When.
    pub created_at: Timestamp,
}

/// A mapping that is wanted.
#[derive(Debug, Clone)]
pub struct NewMapping {
    /// The tenant whose usage it is.
    pub tenant_id: TenantId,
    /// The name of the meter.
    pub meter: String,
    /// From when on; the next hour where it is not said.
    pub from_hour: Option<Timestamp>,
    /// To whom; `None` is to nobody.
    pub stripe_customer_id: Option<String>,
}

/// The most tenants whose usage of an hour a customer can have: each row has a minute of its own.
const TENANTS_OF_LANE_MAX: usize = 60;

impl Books {
    /// Sends a tenant's usage to a customer from an hour on: freezes what waited for one since then, and makes the rows that its
    /// settled hours lack. The same again changes nothing.
    ///
    /// # Errors
    /// There is no such meter, another customer has been there from that hour on or has rows since then, the customer has the usage
    /// of as many tenants as an hour has minutes, or a database that is away or refuses.
    pub async fn map(&self, new: &NewMapping, author: &Author, body: &str) -> Result<Put<Mapping>, BillingError> {
        self.billing.store().write(async |transaction| self.map_in(transaction, new, author, body).await).await
    }

    async fn map_in(
        &self,
        transaction: &Transaction,
        new: &NewMapping,
        author: &Author,
        body: &str,
    ) -> Result<Put<Mapping>, BillingError> {
        locks::reports(transaction).await?;
        let now = self.now_in(transaction).await?;
        let Some(meter) = meter(transaction, &new.meter).await? else {
            let what = format!("there is no meter {:?}: PUT /billing/stripe/meters/{} first", new.meter, new.meter);
            return BillingError::refused(RefusalCode::NotFound, what);
        };
        let next = hour_after(now.hour());
        let tenant = new.tenant_id.as_str();
        let stored = of_tenant(transaction, tenant, &new.meter).await?;
        let last = stored.last();
        // The same customer said again without an hour is what is there already.
        let is_said = |mapping: &&Mapping| mapping.stripe_customer_id == new.stripe_customer_id;
        let from_hour = match (new.from_hour, last.filter(is_said)) {
            (Some(hour), _) => hour,
            (None, Some(last)) => last.from_hour,
            // A second thought within the hour comes an hour later.
            (None, None) => last.map_or(next, |last| hour_after(last.from_hour).max(next)),
        };
        if let Some(there) = stored.iter().find(|mapping| mapping.from_hour == from_hour) {
            if there.stripe_customer_id == new.stripe_customer_id {
                return Ok(Put { is_new: false, stored: there.clone() });
            }
            let what = format!(
                "from {from_hour} on this usage goes to {}: choose a later from_hour",
                there.stripe_customer_id.as_deref().unwrap_or("nobody")
            );
            return BillingError::refused(RefusalCode::AlreadyExists, what);
        }
        let until = stored.iter().map(|mapping| mapping.from_hour).find(|from| *from > from_hour);
        check_rows(transaction, new, from_hour, until).await?;
        check_room(transaction, new, from_hour, until).await?;
        let mapping = Mapping {
            tenant_id: tenant.to_owned(),
            meter: new.meter.clone(),
            from_hour,
            stripe_customer_id: new.stripe_customer_id.clone(),
            actor: author.actor.clone(),
            created_at: now,
        };
        insert(transaction, &mapping).await?;
        let change = Change { author, action: "stripe_mapping", tenant_id: tenant, body };
        audit::write(transaction, &change).await?;
        self.give(transaction, new, &meter, &mapping).await?;
        Ok(Put { is_new: true, stored: mapping })
    }

    /// Gives a tenant's usage since an hour to the customer that it has from now on. The hours are looked at here, because the
    /// steady look does not come back to them before the night.
    async fn give(
        &self,
        transaction: &Transaction,
        new: &NewMapping,
        meter: &StoredMeter,
        made: &Mapping,
    ) -> Result<(), BillingError> {
        let (from_hour, now) = (made.from_hour, made.created_at);
        let mut drafts = unmapped(transaction, new.tenant_id.as_str(), &new.meter, from_hour).await?;
        self.freeze_these(transaction, meter, now, &mut drafts).await?;
        if new.stripe_customer_id.is_none() {
            return Ok(());
        }
        let Some(hours) = settled_since(from_hour, now) else { return Ok(()) };
        let used = read_hours(Source::Transaction(transaction), &new.tenant_id, meter, hours).await?;
        let tenant = new.tenant_id.as_str();
        let used = used.into_iter().map(|(hour, units)| ((tenant.to_owned(), hour), units)).collect();
        self.make(transaction, meter, used).await?;
        Ok(())
    }

    /// A tenant's mappings of all meters, or of one.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn mappings(&self, tenant: &TenantId) -> Result<Vec<Mapping>, BillingError> {
        let source = self.billing.source();
        let dialect = source.dialect();
        let mut params = Params::default();
        let tenant = params.bind(tenant.as_str());
        let sql = format!("{SELECT} WHERE tenant_id = {tenant} ORDER BY meter, from_hour");
        source.query(&sql, params).await?.iter().map(|row| mapping_of(dialect, row)).collect()
    }
}

fn hour_after(hour: Timestamp) -> Timestamp {
    hour.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(hour)
}

const SELECT: &str = "SELECT tenant_id, meter, from_hour, stripe_customer_id, actor, created_at FROM stripe_mappings";

fn mapping_of(dialect: Dialect, row: &QueryResult) -> Result<Mapping, BillingError> {
    Ok(Mapping {
        tenant_id: read(row, "tenant_id")?,
        meter: read(row, "meter")?,
        from_hour: dialect.read_time(row, "from_hour")?,
        stripe_customer_id: read(row, "stripe_customer_id")?,
        actor: read(row, "actor")?,
        created_at: dialect.read_time(row, "created_at")?,
    })
}

async fn of_tenant(transaction: &Transaction, tenant: &str, meter: &str) -> Result<Vec<Mapping>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (tenant, meter) = (params.bind(tenant), params.bind(meter));
    let sql = format!("{SELECT} WHERE tenant_id = {tenant} AND meter = {meter} ORDER BY from_hour");
    transaction.query(&sql, params).await?.iter().map(|row| mapping_of(dialect, row)).collect()
}

/// Refuses a mapping of hours of which rows have gone, or go, to somebody else: what is corrected of an hour goes where the hour
/// went.
async fn check_rows(
    transaction: &Transaction,
    new: &NewMapping,
    from: Timestamp,
    until: Option<Timestamp>,
) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (tenant, meter) = (params.bind(new.tenant_id.as_str()), params.bind(new.meter.as_str()));
    let customer = params.bind(new.stripe_customer_id.as_deref().unwrap_or_default());
    let mut hours = format!("hour >= {}", params.bind(dialect.time(from)));
    if let Some(until) = until {
        hours.push_str(&format!(" AND hour < {}", params.bind(dialect.time(until))));
    }
    let sql = format!(
        "SELECT hour, stripe_customer_id FROM stripe_pushes WHERE tenant_id = {tenant} AND meter = {meter} AND {hours} \
         AND state <> 'unmapped' AND stripe_customer_id <> {customer} ORDER BY hour DESC LIMIT 1"
    );
    let Some(row) = transaction.query(&sql, params).await?.pop() else { return Ok(()) };
    let last = dialect.read_time(&row, "hour")?;
    let there: String = read(&row, "stripe_customer_id")?;
    let what = format!("the usage of {last} has rows for {there}, and stays there: choose a later from_hour");
    BillingError::refused(RefusalCode::AlreadyExists, what)
}

/// Refuses a mapping to a customer that has the usage of as many others as an hour has minutes: the rows of an hour have a minute
/// each, and those that find none would be more with every hour.
async fn check_room(
    transaction: &Transaction,
    new: &NewMapping,
    from: Timestamp,
    until: Option<Timestamp>,
) -> Result<(), BillingError> {
    let Some(customer) = &new.stripe_customer_id else { return Ok(()) };
    let mut others = Mappings::of_customer(transaction, &new.meter, customer).await?;
    others.0.remove(new.tenant_id.as_str());
    let Some(full) = others.full_hour(customer, from, until) else { return Ok(()) };
    let what = format!(
        "{customer} has the usage of {TENANTS_OF_LANE_MAX} tenants of {} from {full} on, which is as many as can be told apart at \
         Stripe: give this tenant another customer, or the customer's tenants another meter",
        new.meter
    );
    BillingError::refused(RefusalCode::LaneFull, what)
}

async fn insert(transaction: &Transaction, mapping: &Mapping) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let values = [
        params.bind(mapping.tenant_id.as_str()),
        params.bind(mapping.meter.as_str()),
        params.bind(dialect.time(mapping.from_hour)),
        params.bind(mapping.stripe_customer_id.clone()),
        params.bind(mapping.actor.as_str()),
        params.bind(dialect.time(mapping.created_at)),
    ];
    let sql = format!(
        "INSERT INTO stripe_mappings (tenant_id, meter, from_hour, stripe_customer_id, actor, created_at) VALUES ({})",
        values.join(", ")
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// The tenants of these rows, each once.
pub(super) fn tenants(dialect: Dialect, drafts: &[Draft], params: &mut Params) -> String {
    let tenants: BTreeSet<&str> = drafts.iter().map(|draft| draft.tenant.as_str()).collect();
    Rows::new(dialect).column("tenant_id", tenants.into_iter()).query(params)
}

/// The mappings of some tenants for one meter.
#[derive(Debug, Default)]
pub(super) struct Mappings(BTreeMap<String, Vec<(Timestamp, Option<String>)>>);

impl Mappings {
    pub(super) async fn read(transaction: &Transaction, meter: &str, drafts: &[Draft]) -> Result<Self, BillingError> {
        let dialect = transaction.dialect();
        let mut params = Params::default();
        let tenants = tenants(dialect, drafts, &mut params);
        let meter = params.bind(meter);
        let sql = format!(
            "SELECT m.tenant_id, m.from_hour, m.stripe_customer_id FROM ({tenants}) AS t JOIN stripe_mappings AS m \
             ON m.tenant_id = t.tenant_id WHERE m.meter = {meter} ORDER BY m.tenant_id, m.from_hour"
        );
        Self::of_rows(dialect, &transaction.query(&sql, params).await?)
    }

    /// All that the tenants have that ever had this customer.
    async fn of_customer(transaction: &Transaction, meter: &str, customer: &str) -> Result<Self, BillingError> {
        let dialect = transaction.dialect();
        let mut params = Params::default();
        let (meter, customer) = (params.bind(meter), params.bind(customer));
        let sql = format!(
            "SELECT m.tenant_id, m.from_hour, m.stripe_customer_id FROM stripe_mappings AS m WHERE m.meter = {meter} \
             AND m.tenant_id IN (SELECT o.tenant_id FROM stripe_mappings AS o WHERE o.meter = {meter} \
                 AND o.stripe_customer_id = {customer}) ORDER BY m.tenant_id, m.from_hour"
        );
        Self::of_rows(dialect, &transaction.query(&sql, params).await?)
    }

    fn of_rows(dialect: Dialect, rows: &[QueryResult]) -> Result<Self, BillingError> {
        let mut mappings = Self::default();
        for row in rows {
            let from = dialect.read_time(row, "from_hour")?;
            let of_tenant = mappings.0.entry(read(row, "tenant_id")?).or_default();
            of_tenant.push((from, read(row, "stripe_customer_id")?));
        }
        Ok(mappings)
    }

    /// The first hour of these in which a customer has as many tenants as an hour has minutes.
    fn full_hour(&self, customer: &str, from: Timestamp, until: Option<Timestamp>) -> Option<Timestamp> {
        let starts = self.0.values().flatten().map(|(start, _)| *start);
        let later = starts.filter(|start| *start > from && until.is_none_or(|until| *start < until));
        // Between two of them nothing changes.
        let hours: BTreeSet<Timestamp> = later.chain([from]).collect();
        let tenants =
            |hour: Timestamp| self.0.keys().filter(|tenant| self.customer(tenant, hour) == Some(customer)).count();
        hours.into_iter().find(|hour| tenants(*hour) >= TENANTS_OF_LANE_MAX)
    }

    /// The customer of a tenant for an hour.
    pub(super) fn customer(&self, tenant: &str, hour: Timestamp) -> Option<&str> {
        let mappings = self.0.get(tenant)?;
        mappings.iter().rev().find(|(from, _)| *from <= hour)?.1.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_unix_micros(hour * Timestamp::HOUR_MICROS).unwrap()
    }

    #[test]
    fn a_customer_is_full_where_sixty_have_it_at_once() {
        let of = |from: i64, until: i64| vec![(at(from), Some("cus_1".to_owned())), (at(until), None)];
        let mut mappings = Mappings((0..59).map(|number| (format!("t{number}"), of(0, 100))).collect());
        assert_eq!(mappings.full_hour("cus_1", at(0), None), None);
        // One after the other, they are never sixty and one.
        mappings.0.insert("early".to_owned(), of(10, 20));
        mappings.0.insert("late".to_owned(), of(30, 40));
        assert_eq!(mappings.full_hour("cus_1", at(0), None), Some(at(10)));
        assert_eq!(mappings.full_hour("cus_1", at(0), Some(at(10))), None);
        assert_eq!(mappings.full_hour("cus_1", at(20), None), Some(at(30)));
        assert_eq!(mappings.full_hour("cus_1", at(40), None), None);
        assert_eq!(mappings.full_hour("cus_2", at(0), None), None);
    }
}
