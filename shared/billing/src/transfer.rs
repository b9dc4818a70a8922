//! What bills are made by and what was decided, as lines: out of one ledger, and into another that was built anew.
//!
//! Corrections, cards, zones, closed periods, limits, mappings and rows for Stripe are input: no event tells them. What
//! follows from them is worked out again where they come to.

use std::collections::BTreeSet;

use goldleaves_store::{Dialect, Params, Transaction, read};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::corrections;
use crate::{Billing, BillingError, RefusalCode, locks};

/// Rows that are read or written at once.
const ROWS_AT_ONCE: i64 = 1_000;

/// How a column is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Uuid,
    Time,
    Integer,
    Wide,
    Flag,
}

use Kind::{Flag, Integer, Text, Time, Uuid as Id, Wide};

/// A table: its name, its key, and its columns.
struct Table {
    name: &'static str,
    key: &'static [&'static str],
    columns: &'static [(&'static str, Kind)],
}

/// Every table of input, in the order in which they are written: what others name comes first.
const TABLES: [Table; 11] = [
    Table {
        name: "rate_cards",
        key: &["version"],
        columns: &[
            ("version", Integer),
            ("card", Text),
            ("rate_micro_cents", Integer),
            ("effective_from", Time),
            ("created_at", Time),
            ("id", Id),
            ("tenant_id", Text),
            ("route", Text),
            ("action", Text),
            ("model", Text),
            ("pricing", Text),
            ("origin", Text),
            ("actor", Text),
            ("reason", Text),
        ],
    },
    Table {
        name: "billing_tenants",
        key: &["tenant_id"],
        columns: &[("tenant_id", Text), ("time_zone", Text), ("updated_at", Time)],
    },
    Table {
        name: "usage_limits",
        key: &["tenant_id", "period", "version"],
        columns: &[
            ("tenant_id", Text),
            ("period", Text),
            ("version", Integer),
            ("soft_micro", Integer),
            ("hard_micro", Integer),
            ("soft_cents", Integer),
            ("hard_cents", Integer),
            ("actor", Text),
            ("reason", Text),
            ("created_at", Time),
        ],
    },
    Table { name: "stripe_state", key: &["id"], columns: &[("id", Integer), ("generation", Id), ("livemode", Flag)] },
    Table {
        name: "stripe_meters",
        key: &["meter"],
        columns: &[
            ("meter", Text),
            ("event_name", Text),
            ("stripe_meter_id", Text),
            ("route", Text),
            ("places", Integer),
            ("checked_at", Time),
            ("unfit", Text),
        ],
    },
    Table {
        name: "stripe_mappings",
        key: &["tenant_id", "meter", "from_hour"],
        columns: &[
            ("tenant_id", Text),
            ("meter", Text),
            ("from_hour", Time),
            ("stripe_customer_id", Text),
            ("actor", Text),
            ("created_at", Time),
        ],
    },
    Table {
        name: "stripe_pushes",
        key: &["tenant_id", "meter", "hour", "revision"],
        columns: &[
            ("id", Id),
            ("tenant_id", Text),
            ("meter", Text),
            ("hour", Time),
            ("revision", Integer),
            ("units_micro", Wide),
            ("state", Text),
            ("stripe_customer_id", Text),
            ("event_name", Text),
            ("value", Text),
            ("event_timestamp", Time),
            ("identifier", Text),
            ("frozen_at", Time),
            ("attempts", Integer),
            ("first_attempt_at", Time),
            ("last_attempt_at", Time),
            ("next_attempt_at", Time),
            ("pushed_at", Time),
            ("confirmed_at", Time),
            ("last_error", Text),
            ("created_at", Time),
            ("updated_at", Time),
            ("key_suffix", Integer),
            ("read_back_at", Time),
            ("absent_since", Time),
            ("origin", Text),
        ],
    },
    Table {
        name: "billing_periods",
        key: &["tenant_id", "number"],
        columns: &[
            ("tenant_id", Text),
            ("number", Integer),
            ("starts_at", Time),
            ("ends_at", Time),
            ("time_zone", Text),
            ("tzdb", Text),
            ("total_cents", Wide),
            ("lines_hash", Text),
            ("actor", Text),
            ("reason", Text),
            ("closed_at", Time),
        ],
    },
    Table {
        name: "billing_lines",
        key: &["tenant_id", "number", "line"],
        columns: &[
            ("tenant_id", Text),
            ("number", Integer),
            ("line", Integer),
            ("for_number", Integer),
            ("kind", Text),
            ("route", Text),
            ("action", Text),
            ("rate_version", Integer),
            ("events", Integer),
            ("units_micro", Wide),
            ("cents", Wide),
        ],
    },
    Table {
        name: "usage_corrections",
        key: &["id"],
        columns: &[
            ("id", Id),
            ("tenant_id", Text),
            ("kind", Text),
            ("event_id", Id),
            ("follows", Id),
            ("ts", Time),
            ("route", Text),
            ("action", Text),
            ("rate_version", Integer),
            ("events", Integer),
            ("units_micro", Integer),
            ("cents", Integer),
            ("actor", Text),
            ("reason", Text),
            ("created_at", Time),
        ],
    },
    Table {
        name: "billing_audit",
        key: &["id"],
        columns: &[
            ("id", Id),
            ("at", Time),
            ("actor", Text),
            ("roles", Text),
            ("request_id", Text),
            ("action", Text),
            ("tenant_id", Text),
            ("body", Text),
        ],
    },
];

/// What an import did with a table's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableImport {
    /// Which table.
    pub table: &'static str,
    /// Rows that are new.
    pub added: u64,
    /// Rows that were there.
    pub there: u64,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Table by table.
    pub tables: Vec<TableImport>,
    /// Corrections whose event is not there yet: they wait for another import.
    pub waiting: Vec<String>,
}

impl Table {
    fn of(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// Every column as text.
    fn cells(&self, dialect: Dialect) -> String {
        let cell = |(name, kind): &(&str, Kind)| match (kind, dialect) {
            (Time, Dialect::Postgres) => {
                format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}")
            }
            _ => format!("CAST({name} AS text) AS {name}"),
        };
        self.columns.iter().map(cell).collect::<Vec<_>>().join(", ")
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

impl Billing {
    /// Hands over every line, table by table, with the number of lines so far.
    ///
    /// # Errors
    /// A database that is away or refuses, or what `take` comes to.
    pub async fn export<E: From<BillingError>>(&self, mut take: impl FnMut(&str) -> Result<(), E>) -> Result<u64, E> {
        let source = self.source();
        let mut count = 0;
        for table in &TABLES {
            let (cells, key) = (table.cells(source.dialect()), table.key.join(", "));
            let mut offset = 0;
            loop {
                let mut params = Params::default();
                let (limit, skipped) = (params.bind(ROWS_AT_ONCE), params.bind(offset));
                let sql = format!("SELECT {cells} FROM {} ORDER BY {key} LIMIT {limit} OFFSET {skipped}", table.name);
                let rows = source.query(&sql, params).await?;
                for row in &rows {
                    let mut line = Map::from_iter([("table".to_owned(), Value::from(table.name))]);
                    for (name, _) in table.columns {
                        let cell: Option<String> = read(row, name).map_err(BillingError::from)?;
                        line.insert((*name).to_owned(), cell.map_or(Value::Null, Value::from));
                    }
                    take(&Value::Object(line).to_string())?;
                    count += 1;
                }
                offset += ROWS_AT_ONCE;
                if rows.len() < usize::try_from(ROWS_AT_ONCE).unwrap_or(usize::MAX) {
                    break;
                }
            }
        }
        Ok(count)
    }

    /// Takes lines in, all or none: what is there is left, and a row that is there with other content refuses them all.
    ///
    /// # Errors
    /// A line that can't be read or contradicts what is there, or a database that is away or refuses.
    pub async fn import(&self, lines: &[String]) -> Result<Transfer, BillingError> {
        let mut rows = Vec::new();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let row = parse(line).map_err(|what| wrong(at + 1, &what))?;
            rows.push((at + 1, row));
        }
        self.store()
            .write(async |transaction| {
                locks::bills(transaction).await?;
                let mut transfer = Transfer::default();
                for table in &TABLES {
                    let mut done = TableImport { table: table.name, ..TableImport::default() };
                    for (at, row) in rows.iter().filter(|(_, row)| row.table.name == table.name) {
                        match take_in(transaction, (*at, row)).await? {
                            Taken::Added => done.added += 1,
                            Taken::There => done.there += 1,
                            Taken::Waits(name) => transfer.waiting.push(name),
                            Taken::Follows => {}
                        }
                    }
                    if done.added + done.there > 0 {
                        transfer.tables.push(done);
                    }
                }
                Ok(transfer)
            })
            .await
    }
}

/// A row of a line.
struct Row {
    table: &'static Table,
    cells: Vec<Option<String>>,
}

impl Row {
    fn cell(&self, name: &str) -> Option<&str> {
        let at = self.table.columns.iter().position(|(column, _)| *column == name)?;
        self.cells.get(at)?.as_deref()
    }
}

/// What became of a row.
enum Taken {
    Added,
    There,
    /// Its event is not there.
    Waits(String),
    /// It is worked out again.
    Follows,
}

fn parse(line: &str) -> Result<Row, String> {
    let mut members: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let table = match members.remove("table") {
        Some(Value::String(name)) => Table::of(&name).ok_or(format!("{name:?} is no table of an export"))?,
        Some(_) => return Err("table must be a string".to_owned()),
        None => {
            old_card(&mut members)?;
            Table::of("rate_cards").ok_or("no table")?
        }
    };
    let mut cells = Vec::new();
    for (name, kind) in table.columns {
        cells.push(match members.remove(*name) {
            Some(Value::Null) | None => None,
            Some(Value::String(text)) => Some(check(name, *kind, text)?),
            Some(_) => return Err(format!("{name} must be a string or null")),
        });
    }
    match members.keys().next() {
        Some(name) => Err(format!("{name:?} is no column of {}", table.name)),
        None => Ok(Row { table, cells }),
    }
}

/// A line as `goldleaves rate-cards export` writes it.
fn old_card(members: &mut Map<String, Value>) -> Result<(), String> {
    let version = members.remove("version").and_then(|version| version.as_i64()).ok_or("version must be an integer")?;
    let rate = members.remove("cents_per_unit");
    let rate: goldleaves_pricing::Rate =
        rate.as_ref().and_then(Value::as_str).and_then(|rate| rate.parse().ok()).ok_or("cents_per_unit is no rate")?;
    for (name, value) in [
        ("version", version.to_string()),
        ("rate_micro_cents", rate.micro_cents().to_string()),
        ("tenant_id", String::new()),
        ("route", String::new()),
        ("action", String::new()),
        ("model", "per_unit".to_owned()),
        ("origin", "setting".to_owned()),
    ] {
        members.insert(name.to_owned(), Value::from(value));
    }
    Ok(())
}

fn check(name: &str, kind: Kind, text: String) -> Result<String, String> {
    let fits = match kind {
        Text => !text.contains('\0'),
        Id => Uuid::try_parse(&text).is_ok(),
        Time => text.parse::<goldleaves_domain::Timestamp>().is_ok(),
        Integer => text.parse::<i64>().is_ok(),
        Wide => text.parse::<i128>().is_ok(),
        Flag => ["0", "1", "true", "false"].contains(&text.as_str()),
    };
    if !fits {
        return Err(format!("{name} can't be {text:?}"));
    }
    Ok(match kind {
        Time => text.parse::<goldleaves_domain::Timestamp>().map_or(text, |time| time.to_string()),
        Flag => if ["1", "true"].contains(&text.as_str()) { "1" } else { "0" }.to_owned(),
        _ => text,
    })
}

fn wrong(at: usize, what: &str) -> BillingError {
    BillingError::Refused(crate::Refusal::new(RefusalCode::Invalid, format!("line {at}: {what}")))
}

async fn take_in(transaction: &Transaction, (at, row): (usize, &Row)) -> Result<Taken, BillingError> {
    let kind = row.cell("kind").filter(|_| row.table.name == "usage_corrections");
    if kind == Some("follow") {
        return Ok(Taken::Follows);
    }
    if let Some(there) = stored(transaction, row).await? {
        let times = ["created_at", "updated_at", "checked_at"];
        let differs = row
            .table
            .columns
            .iter()
            .zip(&row.cells)
            .zip(&there)
            .find(|((column, given), there)| given.is_some() && given != there && !times.contains(&column.0));
        return match differs {
            None => Ok(Taken::There),
            Some((((name, _), given), there)) => {
                let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "null".to_owned());
                let what = format!(
                    "{} is there already, and its {name} is {}, not {}",
                    row.table.name,
                    text(there),
                    text(given)
                );
                Err(wrong(at, &what))
            }
        };
    }
    let event = row.cell("event_id").and_then(|id| Uuid::try_parse(id).ok());
    let tenant = row.cell("tenant_id").unwrap_or_default();
    if let (Some(event), Some(_)) = (event, kind)
        && !corrections::is_there(transaction, tenant, event).await?
    {
        let name = format!("{} of event {event} of {tenant}", row.cell("id").unwrap_or_default());
        return Ok(Taken::Waits(name));
    }
    insert(transaction, row).await?;
    if let (Some(event), Some(_)) = (event, kind) {
        corrections::settle(transaction, tenant, event).await?;
    }
    Ok(Taken::Added)
}

/// The row that is there under the same key.
async fn stored(transaction: &Transaction, row: &Row) -> Result<Option<Vec<Option<String>>>, BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let mut conditions = Vec::new();
    for name in row.table.key {
        conditions.push(format!("{name} = {}", bind(dialect, row, name, &mut params)));
    }
    let sql = format!("SELECT {} FROM {} WHERE {}", row.table.cells(dialect), row.table.name, conditions.join(" AND "));
    let rows = transaction.query(&sql, params).await?;
    let Some(found) = rows.first() else { return Ok(None) };
    let mut cells = Vec::new();
    for (name, kind) in row.table.columns {
        let cell: Option<String> = read(found, name)?;
        let cell = cell.map(|cell| check(name, *kind, cell)).transpose();
        cells.push(cell.map_err(|what| BillingError::unreadable(name, what))?);
    }
    Ok(Some(cells))
}

async fn insert(transaction: &Transaction, row: &Row) -> Result<(), BillingError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    // A column that an older export lacks keeps its default.
    let given: BTreeSet<&str> = row
        .table
        .columns
        .iter()
        .zip(&row.cells)
        .filter_map(|((name, _), cell)| cell.is_some().then_some(*name))
        .collect();
    let names: Vec<&str> = row.table.names().split(", ").filter_map(|name| given.get(name).copied()).collect();
    let values: Vec<String> = names.iter().map(|name| bind(dialect, row, name, &mut params)).collect();
    let sql = format!("INSERT INTO {} ({}) VALUES ({})", row.table.name, names.join(", "), values.join(", "));
    transaction.execute(&sql, params).await?;
    Ok(())
}

fn bind(dialect: Dialect, row: &Row, name: &str, params: &mut Params) -> String {
    let kind = row.table.columns.iter().find(|(column, _)| *column == name).map_or(Text, |(_, kind)| *kind);
    let text = params.bind(row.cell(name).unwrap_or_default());
    match (dialect, kind) {
        (_, Text) | (Dialect::Sqlite, Id | Time | Wide) => text,
        (Dialect::Sqlite, Integer | Flag) => format!("CAST({text} AS INTEGER)"),
        (Dialect::Postgres, Id) => format!("{text}::uuid"),
        (Dialect::Postgres, Time) => format!("{text}::timestamptz"),
        (Dialect::Postgres, Integer) => format!("{text}::bigint"),
        (Dialect::Postgres, Wide) => format!("{text}::numeric"),
        (Dialect::Postgres, Flag) => format!("{text}::bool"),
    }
}
