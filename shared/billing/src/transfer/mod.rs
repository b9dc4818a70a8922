//! The decisions that bills are made by, as lines: out of one ledger, and into another that was built anew.
//!
//! Corrections, cards, zones, closed periods, limits, mappings and rows for Stripe are input: no event tells them. What
//! follows from them is worked out again where they come to.

mod import;
mod row;
mod tables;

use goldleaves_store::{Params, Transaction, read};
use sea_orm::QueryResult;
use serde_json::{Map, Value};

use crate::{Billing, BillingError};
use tables::{TABLES, Table};

pub use import::{ImportStep, TableImport, Transfer};

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 1_000;

impl Billing {
    /// Hands over every line, table by table, and returns how many there are. All of them are read in one snapshot, so that
    /// they fit each other whatever is written meanwhile, and page by page, so that their number takes no memory.
    ///
    /// # Errors
    /// A database that is away or refuses, or what `take` comes to.
    pub async fn export<E: From<BillingError>>(&self, mut take: impl FnMut(&str) -> Result<(), E>) -> Result<u64, E> {
        let lines = self.store().snapshot(async |transaction| {
            let mut count = 0;
            for table in &TABLES {
                let mut last = None;
                loop {
                    let rows = page(transaction, table, last.as_ref()).await?;
                    for row in &rows {
                        match take(&line(table, row)?) {
                            Ok(()) => count += 1,
                            Err(error) => return Ok(Err(error)),
                        }
                    }
                    if rows.len() < ROWS_AT_ONCE {
                        break;
                    }
                    last = rows.into_iter().next_back();
                }
            }
            Ok::<_, BillingError>(Ok(count))
        });
        lines.await?
    }
}

/// The rows behind this one, in the order of the key.
async fn page(
    transaction: &Transaction,
    table: &Table,
    last: Option<&QueryResult>,
) -> Result<Vec<QueryResult>, BillingError> {
    let (dialect, mut params) = (transaction.dialect(), Params::default());
    let (cells, keys) = (table.cells(dialect), table.keys());
    let behind = match last {
        Some(last) => {
            let mut values = Vec::new();
            for key in table.key {
                let kind = table.columns.iter().find(|(name, _)| name == key).map_or(tables::Text, |(_, kind)| *kind);
                let value: String = read(last, key)?;
                values.push(row::bind(dialect, kind, &value, &mut params));
            }
            format!("WHERE ({keys}) > ({})", values.join(", "))
        }
        None => String::new(),
    };
    let limit = params.bind(i64::try_from(ROWS_AT_ONCE).unwrap_or(i64::MAX));
    let sql = format!("SELECT {cells} FROM {} AS t {behind} ORDER BY {keys} LIMIT {limit}", table.name);
    Ok(transaction.query(&sql, params).await?)
}

fn line(table: &Table, row: &QueryResult) -> Result<String, BillingError> {
    let mut line = Map::from_iter([("table".to_owned(), Value::from(table.name))]);
    for (name, _) in table.columns {
        let cell: Option<String> = read(row, name)?;
        line.insert((*name).to_owned(), cell.map_or(Value::Null, Value::from));
    }
    Ok(Value::Object(line).to_string())
}
