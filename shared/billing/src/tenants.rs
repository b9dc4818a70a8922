//! Tenants: their zones, and all of them by what they used.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::str::FromStr;

use goldleaves_domain::{Period, TenantId};
use goldleaves_pricing::{Bill, Cents, TimeZone, Used};
use goldleaves_store::{Params, read, read_wide};
use sea_orm::EntityTrait as _;
use sea_orm::sea_query::{Expr, OnConflict, Query};

use crate::audit::{self, Author, Change, bad_cursor};
use crate::entities::tenant::{self as entity, Column};
use crate::list::{Cursor, Page, PageOf};
use crate::source::{Source, insert, wide};
use crate::usage::{UnitsTotal, whole_hours};
use crate::{Billing, BillingError, Put, cards, locks};

/// Tenants whose usage is read at once.
const TENANTS_AT_ONCE: i64 = 5_000;

/// One tenant's usage of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantUsage {
    /// The tenant whose figures they are.
    pub tenant_id: String,
    /// Billed events, net of corrections.
    pub events: i64,
    /// Their units.
    pub units: UnitsTotal,
    /// The cost, adjustments included.
    pub cost_cents: Cents,
}

/// In which order tenants are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantSort {
    /// The highest cost first.
    Cost,
    /// The most units first.
    Units,
    /// By name.
    TenantId,
}

/// A word that is no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of cost, units, tenant_id")]
pub struct TenantSortError;

impl FromStr for TenantSort {
    type Err = TenantSortError;

    fn from_str(text: &str) -> Result<Self, TenantSortError> {
        match text {
            "cost" => Ok(Self::Cost),
            "units" => Ok(Self::Units),
            "tenant_id" => Ok(Self::TenantId),
            _ => Err(TenantSortError),
        }
    }
}

impl Billing {
    /// Sets the zone of a tenant's days and months. A period that is closed keeps the one it had.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn set_time_zone(
        &self,
        tenant: &TenantId,
        zone: TimeZone,
        author: &Author,
        body: &str,
    ) -> Result<Put<TimeZone>, BillingError> {
        self.store()
            .write(async |transaction| {
                locks::bills(transaction).await?;
                let source = Source::Transaction(transaction);
                let before = source.first(entity::Entity::find_by_id(tenant.as_str())).await?;
                if before.as_ref().is_some_and(|before| before.time_zone == zone.name()) {
                    return Ok(Put { is_new: false, stored: zone });
                }
                let row = Query::insert()
                    .into_table(entity::Entity)
                    .columns([Column::TenantId, Column::TimeZone, Column::UpdatedAt])
                    .values([tenant.as_str().into(), zone.name().into(), Expr::cust(transaction.dialect().now())])
                    .map_err(|error| BillingError::unreadable("billing_tenants", error))?
                    .on_conflict(
                        OnConflict::column(Column::TenantId)
                            .update_columns([Column::TimeZone, Column::UpdatedAt])
                            .to_owned(),
                    )
                    .to_owned();
                insert(transaction, &row).await?;
                let change = Change { author, action: "tenant", tenant_id: tenant.as_str(), body };
                audit::write(transaction, &change).await?;
                Ok(Put { is_new: before.is_none(), stored: zone })
            })
            .await
    }

    /// A page of all tenants that used anything in the range.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn tenants(
        &self,
        range: &Period,
        sort: TenantSort,
        page: &Page,
    ) -> Result<PageOf<TenantUsage>, BillingError> {
        let after = match &page.cursor {
            None => None,
            Some(cursor) => {
                let [number, name] = cursor.keys().map_err(bad_cursor)?;
                let number: i128 = number.parse().map_err(|_| bad_cursor(crate::CursorError))?;
                Some((Reverse(number), name.to_owned()))
            }
        };
        let tenants = if sort == TenantSort::TenantId {
            self.next_tenants(range, after.map(|(_, name)| name), page.limit).await?
        } else {
            let mut tenants = self.every_tenant(range, sort).await?;
            tenants.retain(|tenant| after.as_ref().is_none_or(|after| sort.key(tenant) > *after));
            tenants
        };
        Ok(PageOf::cut(tenants, page.limit, |tenant| {
            let (number, name) = sort.key(tenant);
            Cursor::after([number.0.to_string(), name])
        }))
    }

    /// The tenants behind a name that used anything in the range, one more than `limit` where there are so many. Their usage is
    /// read, and nobody else's: of many tenants a page takes no longer than of few.
    async fn next_tenants(
        &self,
        range: &Period,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<TenantUsage>, BillingError> {
        let source = self.source();
        let mut names = every_name(source).await?;
        names.retain(|name| after.as_ref().is_none_or(|after| name > after));
        let mut tenants = Vec::new();
        for names in names.chunks(limit as usize + 1) {
            tenants.extend(some_tenants(source, range, &Names::These(names.to_vec())).await?);
            if tenants.len() > limit as usize {
                break;
            }
        }
        Ok(tenants)
    }

    /// Every tenant that used anything in the range, in the order in which pages of them are told.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn every_tenant(&self, range: &Period, sort: TenantSort) -> Result<Vec<TenantUsage>, BillingError> {
        let source = self.source();
        let (mut tenants, mut all) = (Vec::new(), Thousands::default());
        while let Some(names) = all.next(source).await? {
            tenants.extend(some_tenants(source, range, &names).await?);
        }
        tenants.sort_by_cached_key(|tenant| sort.key(tenant));
        Ok(tenants)
    }
}

impl TenantSort {
    /// Returns the key that tenants are ordered by.
    fn key(self, tenant: &TenantUsage) -> (Reverse<i128>, String) {
        let number = match self {
            Self::Cost => tenant.cost_cents.0,
            Self::Units => tenant.units.0,
            Self::TenantId => 0,
        };
        (Reverse(number), tenant.tenant_id.clone())
    }
}

/// The tenants that a statement is about.
#[derive(Debug)]
pub(crate) enum Names {
    /// The tenants behind one name, up to another, in the database's order.
    Between { after: Option<String>, until: Option<String> },
    /// These.
    These(Vec<String>),
}

impl Names {
    /// The condition on a column that holds the name.
    fn condition(&self, column: &str, params: &mut Params) -> String {
        match self {
            Self::Between { after, until } => {
                let bound =
                    [(">", after), ("<=", until)].into_iter().filter_map(|(sign, name)| Some((sign, name.as_ref()?)));
                bound.map(|(sign, name)| format!(" AND {column} {sign} {}", params.bind(name.as_str()))).collect()
            }
            Self::These(names) => {
                let names: Vec<String> = names.iter().map(|name| params.bind(name.as_str())).collect();
                format!(" AND {column} IN ({})", names.join(", "))
            }
        }
    }
}

/// Names in the database's order.
struct NextNames(Vec<String>);

impl NextNames {
    /// The last of them, where there may be more behind it.
    fn pop_if_full(mut self) -> Option<String> {
        if i64::try_from(self.0.len()).is_ok_and(|count| count < TENANTS_AT_ONCE) { None } else { self.0.pop() }
    }
}

/// All tenants, a few thousand at once, so that their rows take no more memory however many there are.
#[derive(Debug, Default)]
pub(crate) struct Thousands {
    after: Option<String>,
    is_over: bool,
}

impl Thousands {
    /// The next tenants; `None` behind the last.
    pub(crate) async fn next(&mut self, source: Source<'_>) -> Result<Option<Names>, BillingError> {
        if self.is_over {
            return Ok(None);
        }
        let until = names_behind(source, self.after.as_deref()).await?.pop_if_full();
        self.is_over = until.is_none();
        let after = std::mem::replace(&mut self.after, until.clone());
        Ok(Some(Names::Between { after, until }))
    }
}

/// Every tenant that ever used anything or was corrected, by the bytes of the name.
pub(crate) async fn every_name(source: Source<'_>) -> Result<Vec<String>, BillingError> {
    let (mut names, mut after) = (Vec::new(), None::<String>);
    loop {
        let next = names_behind(source, after.as_deref()).await?;
        names.extend(next.0.iter().cloned());
        match next.pop_if_full() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The next few thousand tenants behind a name. The indexes are asked for one name after the other: to read their rows would
/// take as long as there are hours.
async fn names_behind(source: Source<'_>, after: Option<&str>) -> Result<NextNames, BillingError> {
    let mut params = Params::default();
    let (after, most) = (params.bind(after.unwrap_or_default()), params.bind(TENANTS_AT_ONCE));
    let next = |than: &str| {
        let least =
            |table: &str| format!("SELECT MIN(t.tenant_id) AS name FROM {table} AS t WHERE t.tenant_id > {than}");
        let (used, corrected) = (least("usage_rollups"), least("usage_corrections"));
        format!("(SELECT MIN(name) FROM ({used} UNION ALL {corrected}) AS least)")
    };
    let sql = format!(
        "WITH RECURSIVE names (name, n) AS ( \
             SELECT {first}, CAST(1 AS bigint) \
             UNION ALL SELECT {next}, m.n + 1 FROM names AS m WHERE m.name IS NOT NULL AND m.n < {most} \
         ) SELECT name FROM names WHERE name IS NOT NULL ORDER BY n",
        first = next(&after),
        next = next("m.name"),
    );
    let rows = source.query(&sql, params).await?;
    let names = rows.iter().map(|row| Ok(read(row, "name")?)).collect::<Result<Vec<String>, BillingError>>()?;
    Ok(NextNames(names))
}

async fn some_tenants(source: Source<'_>, range: &Period, names: &Names) -> Result<Vec<TenantUsage>, BillingError> {
    let dialect = source.dialect();
    let mut params = Params::default();
    let sql = every_tenant(source, range, TenantKeys::Tenants, names, &mut params);
    let mut used: BTreeMap<String, Vec<(i64, Used)>> = BTreeMap::new();
    let mut cents: BTreeMap<String, i128> = BTreeMap::new();
    for row in source.query(&sql, params).await? {
        let tenant: String = read(&row, "tenant_id")?;
        let adjusted: String = read(&row, "cents")?;
        let adjusted: i128 = adjusted.parse().map_err(|error| BillingError::unreadable("cents", error))?;
        *cents.entry(tenant.clone()).or_default() += adjusted;
        let part = Used { events: read(&row, "events")?, units_micro: read_wide(dialect, &row, "units_micro")? };
        let version: i64 = read(&row, "rate_version")?;
        let parts = used.entry(tenant).or_default();
        if version != 0 {
            parts.push((version, part));
        }
    }
    let versions = used.values().flatten().map(|(version, _)| *version);
    let cards = cards::of_versions(source, versions).await?;
    let mut tenants = Vec::new();
    for (tenant_id, parts) in used {
        let mut bill = Bill::default();
        for (version, used) in parts {
            let card = cards.get(&version).ok_or(BillingError::MissingCard { version })?;
            bill.add(version, &card.pricing, (), used);
        }
        let (used, adjusted) = (bill.used(), cents.remove(&tenant_id).unwrap_or_default());
        if (used.events, used.units_micro, adjusted) == (0, 0, 0) {
            continue;
        }
        let cost_cents = Cents(bill.total().0 + adjusted);
        tenants.push(TenantUsage { tenant_id, events: used.events, units: UnitsTotal(used.units_micro), cost_cents });
    }
    Ok(tenants)
}

/// The further keys by which usage of all tenants is told, beside tenant and card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TenantKeys {
    /// Nothing.
    Tenants,
    /// Route and action.
    Places,
}

/// The statement that tells the usage of these tenants.
pub(crate) fn every_tenant(
    source: Source<'_>,
    range: &Period,
    keys: TenantKeys,
    names: &Names,
    params: &mut Params,
) -> String {
    let dialect = source.dialect();
    let keys = |alias: &str| match keys {
        TenantKeys::Tenants => String::new(),
        TenantKeys::Places => format!("{alias}route, {alias}action, "),
    };
    let mut parts = Vec::new();
    let (first, last) = whole_hours(range);
    let (first, last) = if first < last { (first, last) } else { (range.end(), range.end()) };
    if first < last {
        let (from, to) = (params.bind(dialect.time(first)), params.bind(dialect.time(last)));
        parts.push(format!(
            "SELECT r.tenant_id, {}r.rate_version, r.events, 0 AS cents, {} FROM usage_rollups AS r \
             WHERE r.hour >= {from} AND r.hour < {to}{}",
            keys("r."),
            wide::of_rollup(dialect, "r"),
            names.condition("r.tenant_id", params)
        ));
    }
    // Events are found by their tenant; whose there are in a cut hour is known from the rollups.
    for (from, to) in [(range.start(), first), (last, range.end())] {
        if from < to {
            let hours = (params.bind(dialect.time(from.hour())), params.bind(dialect.time(to)));
            let (from, to) = (params.bind(dialect.time(from)), params.bind(dialect.time(to)));
            parts.push(format!(
                "SELECT e.tenant_id, {}e.rate_version, 1 AS events, 0 AS cents, {} FROM ( \
                     SELECT DISTINCT tenant_id FROM usage_rollups WHERE hour >= {} AND hour < {}{} \
                 ) AS t JOIN usage_events AS e ON e.tenant_id = t.tenant_id WHERE e.ts >= {from} AND e.ts < {to}",
                keys("e."),
                wide::of_row(dialect, "e.units_micro"),
                hours.0,
                hours.1,
                names.condition("tenant_id", params),
            ));
        }
    }
    let (from, to) = (params.bind(dialect.time(range.start())), params.bind(dialect.time(range.end())));
    parts.push(format!(
        "SELECT c.tenant_id, {}c.rate_version, c.events, c.cents, {} FROM usage_corrections AS c \
         WHERE c.ts >= {from} AND c.ts < {to}{}",
        keys("c."),
        wide::of_row(dialect, "c.units_micro"),
        names.condition("c.tenant_id", params)
    ));
    format!(
        "SELECT tenant_id, {keys}rate_version, {} AS events, CAST(COALESCE(SUM(cents), 0) AS text) AS cents, {} FROM ({}) AS u \
         GROUP BY tenant_id, {keys}rate_version",
        wide::count(dialect, "events"),
        wide::sums(dialect),
        parts.join(" UNION ALL "),
        keys = keys(""),
    )
}
