//! A line of a file as a row of a table.

use goldleaves_pricing::RateCard;
use goldleaves_store::{Dialect, Params};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::tables::{Flag, Id, Integer, Kind, Table, Text, Time, Wide};

/// A row, each cell as text.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) table: &'static Table,
    pub(super) cells: Vec<Option<String>>,
}

/// The content of a line.
#[derive(Debug)]
pub(super) enum Line {
    /// A row of a table.
    Row(Row),
    /// A rate card, as `goldleaves rate-cards export` writes it.
    Card(RateCard),
}

impl Line {
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut members: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let table = match members.remove("table") {
            Some(Value::String(name)) => Table::of(&name).ok_or(format!("{name:?} is no table of an export"))?,
            Some(_) => return Err("table must be a string".to_owned()),
            None => return Ok(Self::Card(goldleaves_cards::read_rate_card(line)?)),
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
            None => Ok(Self::Row(Row { table, cells })),
        }
    }
}

impl Row {
    pub(super) fn cell(&self, name: &str) -> Option<&str> {
        let at = self.table.columns.iter().position(|(column, _)| *column == name)?;
        self.cells.get(at)?.as_deref()
    }

    /// The cell of this column as a statement takes it.
    pub(super) fn bind(&self, dialect: Dialect, name: &str, params: &mut Params) -> String {
        let kind = self.table.columns.iter().find(|(column, _)| *column == name).map_or(Text, |(_, kind)| *kind);
        bind(dialect, kind, self.cell(name).unwrap_or_default(), params)
    }

    /// The columns that the line has a value for: one that an older export lacks keeps its default.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let given = self.table.columns.iter().zip(&self.cells);
        given.filter_map(|((name, _), cell)| cell.is_some().then_some(*name)).collect()
    }
}

/// A value, which is there as text, as a statement takes it.
pub(super) fn bind(dialect: Dialect, kind: Kind, text: &str, params: &mut Params) -> String {
    let text = params.bind(text);
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

/// The value as every export writes it, or what is wrong with it.
pub(super) fn check(name: &str, kind: Kind, text: String) -> Result<String, String> {
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
