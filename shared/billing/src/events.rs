//! A tenant's events by pages, as a person looks through them.

use goldleaves_domain::{Period, TenantId};
use goldleaves_store::{Dialect, Params, read};
use uuid::Uuid;

use crate::audit::bad_cursor;
use crate::event_state::EventState;
use crate::items::{self, EventItem};
use crate::list::{Cursor, Page, PageOf};
use crate::source::wide;
use crate::{Billing, BillingError};

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// The events that are asked for.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// When.
    pub range: Period,
    /// The state that they are in.
    pub state: EventState,
    /// The one route, if only one is wanted.
    pub route: Option<String>,
    /// The one action, if only one is wanted.
    pub action: Option<String>,
    /// The one user, if only one is wanted.
    pub user_id: Option<String>,
    /// In which order.
    pub order: Order,
}

/// Selects the void events of a tenant: named by a void, or billed with a repeat that is.
pub(crate) fn voided(tenant: &str) -> String {
    format!(
        "SELECT c.event_id AS id FROM usage_corrections AS c WHERE c.tenant_id = {tenant} AND c.kind = 'void' \
         UNION SELECT d.duplicate_of FROM usage_corrections AS c JOIN usage_duplicates AS d ON d.id = c.event_id \
             WHERE c.tenant_id = {tenant} AND c.kind = 'void'"
    )
}

/// Returns whether one billed event is void: its own corrections and those of its repeats are looked at, however many the tenant has.
/// SQLite does not reorder what is joined by `CROSS JOIN`.
pub(crate) fn is_void(alias: &str) -> String {
    format!(
        "(EXISTS (SELECT 1 FROM usage_corrections AS c WHERE c.event_id = {alias}.id AND c.kind = 'void' \
             AND c.tenant_id = {alias}.tenant_id) \
         OR ({alias}.client_request_id IS NOT NULL AND EXISTS (SELECT 1 FROM usage_duplicates AS o \
             CROSS JOIN usage_corrections AS c WHERE c.event_id = o.id AND c.kind = 'void' AND c.tenant_id = o.tenant_id \
             AND o.tenant_id = {alias}.tenant_id AND o.client_request_id = {alias}.client_request_id \
             AND o.duplicate_of = {alias}.id)))"
    )
}

impl Billing {
    /// A page of a tenant's events.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn usage_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<PageOf<EventItem>, BillingError> {
        let source = self.source();
        let dialect = source.dialect();
        let mut list = List { dialect, filter, params: Params::default() };
        let sql = list.page(tenant.as_str(), page)?;
        let rows = source.query(&sql, list.params).await?;
        let items = rows.iter().map(|row| EventItem::read(dialect, row)).collect::<Result<Vec<_>, _>>()?;
        Ok(PageOf::cut(items, page.limit, |item| Cursor::after([item.ts.to_string(), item.event_id.clone()])))
    }

    /// Returns whether there are more events than `most`. Each is only counted where what the rollups know of their hours leaves that
    /// open: a million events take longer to count than a statement may read when other calls keep the disk busy.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn has_more_usage_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        most: u32,
    ) -> Result<bool, BillingError> {
        let source = self.source();
        let new = || List { dialect: source.dialect(), filter, params: Params::default() };
        let (mut bound, mut exact) = (new(), new());
        let at_most = bound.at_most(tenant.as_str(), most);
        for (sql, params) in [(at_most, bound.params), (exact.count(tenant.as_str(), most), exact.params)] {
            let rows = source.query(&sql, params).await?;
            if rows.first().map_or(Ok(0), |row| read::<i64>(row, "events"))? <= i64::from(most) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A statement in the making.
struct List<'a> {
    dialect: Dialect,
    filter: &'a EventFilter,
    params: Params,
}

/// One table that events are in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Billed,
    Repeats,
    Letters,
}

impl List<'_> {
    fn tables(&self) -> &'static [Table] {
        match self.filter.state {
            EventState::Billed | EventState::Void => &[Table::Billed],
            EventState::Repeat => &[Table::Repeats],
            EventState::SetAside => &[Table::Letters],
            EventState::All => &[Table::Billed, Table::Repeats, Table::Letters],
        }
    }

    fn page(&mut self, tenant: &str, page: &Page) -> Result<String, BillingError> {
        let tenant = self.params.bind(tenant);
        let limit = self.params.bind(page.rows());
        let direction = if self.filter.order == Order::Ascending { "ASC" } else { "DESC" };
        let mut sources = Vec::new();
        for table in self.tables() {
            let (columns, from, time, id) = self.parts(*table);
            let mut conditions = self.conditions(*table, &tenant);
            if let Some(cursor) = &page.cursor {
                conditions.push(self.behind(*table, cursor, time, id)?);
            }
            sources.push(format!(
                "SELECT * FROM (SELECT {columns} FROM {from} WHERE {} ORDER BY {time} {direction}, {id} {direction} \
                 LIMIT {limit}) AS {}",
                conditions.join(" AND "),
                name(*table),
            ));
        }
        let (with, collate) = (voided(&tenant), self.collate());
        Ok(format!(
            "WITH voided AS ({with}) SELECT * FROM ({}) AS every ORDER BY ts {direction}, event_id{collate} {direction} \
             LIMIT {limit}",
            sources.join(" UNION ALL ")
        ))
    }

    /// Counts the events, up to one more than `most`.
    fn count(&mut self, tenant: &str, most: u32) -> String {
        let tenant = self.params.bind(tenant);
        self.count_of(self.tables(), &tenant, most)
    }

    fn count_of(&mut self, tables: &[Table], tenant: &str, most: u32) -> String {
        let limit = self.params.bind(i64::from(most) + 1);
        let mut sources = Vec::new();
        for table in tables {
            let from = self.parts(*table).1;
            let conditions = self.conditions(*table, tenant).join(" AND ");
            sources.push(format!("SELECT 1 AS one FROM {from} WHERE {conditions}"));
        }
        format!(
            "WITH voided AS ({}) SELECT COUNT(*) AS events FROM (SELECT one FROM ({}) AS every LIMIT {limit}) AS counted",
            voided(tenant),
            sources.join(" UNION ALL ")
        )
    }

    /// Counts at least as many as there are: all that the hours of the range billed, void ones and those of every user too; and what was
    /// not billed one by one, since nothing else knows of it.
    fn at_most(&mut self, tenant: &str, most: u32) -> String {
        let tenant = self.params.bind(tenant);
        let (billed, others): (Vec<Table>, Vec<Table>) =
            self.tables().iter().partition(|table| **table == Table::Billed);
        let mut counts = Vec::new();
        if !billed.is_empty() {
            let (from, to) = (self.filter.range.start().hour(), self.filter.range.end());
            let (from, to) = (self.dialect.time(from), self.dialect.time(to));
            let (from, to) = (self.params.bind(from), self.params.bind(to));
            let mut sql = format!(
                "SELECT {} AS events FROM usage_rollups AS r WHERE r.tenant_id = {tenant} AND r.hour >= {from} \
                 AND r.hour < {to}",
                wide::count(self.dialect, "r.events")
            );
            for (column, value) in [("route", &self.filter.route), ("action", &self.filter.action)] {
                if let Some(value) = value {
                    sql.push_str(&format!(" AND r.{column} = {}", self.params.bind(value.as_str())));
                }
            }
            counts.push(format!("({sql})"));
        }
        if !others.is_empty() {
            counts.push(format!("({})", self.count_of(&others, &tenant, most)));
        }
        format!("SELECT {} AS events", counts.join(" + "))
    }

    /// Columns, table, and the keys of the order.
    fn parts(&self, table: Table) -> (String, &'static str, &'static str, &'static str) {
        match table {
            Table::Billed => {
                let columns = items::of_events(self.dialect, "e", "e.id IN (SELECT id FROM voided)");
                (columns, "usage_events AS e", "e.ts", "e.id")
            }
            Table::Repeats => (items::of_repeats(self.dialect, "d"), "usage_duplicates AS d", "d.ts", "d.id"),
            Table::Letters => {
                let id = if self.dialect == Dialect::Postgres { "l.id COLLATE \"C\"" } else { "l.id" };
                let columns = items::of_letters(self.dialect, "l");
                (columns, "usage_dead_letters AS l", "COALESCE(l.ts, l.created_at)", id)
            }
        }
    }

    fn conditions(&mut self, table: Table, tenant: &str) -> Vec<String> {
        let range = self.filter.range;
        let (from, to) = (self.dialect.time(range.start()), self.dialect.time(range.end()));
        let (from, to) = (self.params.bind(from), self.params.bind(to));
        let alias = match table {
            Table::Billed => "e",
            Table::Repeats => "d",
            Table::Letters => "l",
        };
        let time = self.parts(table).2;
        let mut conditions = vec![format!("{alias}.tenant_id = {tenant} AND {time} >= {from} AND {time} < {to}")];
        match self.filter.state {
            EventState::Billed => conditions.push("e.id NOT IN (SELECT id FROM voided)".to_owned()),
            EventState::Void => conditions.push("e.id IN (SELECT id FROM voided)".to_owned()),
            _ => {}
        }
        let filters =
            [("route", &self.filter.route), ("action", &self.filter.action), ("user_id", &self.filter.user_id)];
        for (column, value) in filters {
            match (value, table) {
                (None, _) => {}
                // Their columns are bytes that nobody may be able to read.
                (Some(_), Table::Letters) => conditions.push("1 = 0".to_owned()),
                (Some(value), _) => conditions.push(format!("{alias}.{column} = {}", self.params.bind(value.as_str()))),
            }
        }
        conditions
    }

    fn behind(&mut self, table: Table, cursor: &Cursor, time: &str, id: &str) -> Result<String, BillingError> {
        let (at, after) = cursor.time_and_text().map_err(bad_cursor)?;
        let at = self.params.bind(self.dialect.time(at));
        let after = match (table, Uuid::try_parse(after)) {
            (Table::Letters, _) => self.params.bind(after),
            (_, Ok(after)) => self.params.bind(self.dialect.uuid(after)),
            // A hash, of what could not be read: it stands among the ids by its first digits.
            (_, Err(_)) => {
                let digits = after.get(..32).and_then(|digits| Uuid::try_parse(digits).ok());
                self.params.bind(self.dialect.uuid(digits.unwrap_or(Uuid::max())))
            }
        };
        let behind = if self.filter.order == Order::Ascending { ">" } else { "<" };
        Ok(format!("({time}, {id}) {behind} ({at}, {after})"))
    }

    const fn collate(&self) -> &'static str {
        match self.dialect {
            Dialect::Postgres => " COLLATE \"C\"",
            Dialect::Sqlite => "",
        }
    }
}

const fn name(table: Table) -> &'static str {
    match table {
        Table::Billed => "billed",
        Table::Repeats => "repeats",
        Table::Letters => "letters",
    }
}
