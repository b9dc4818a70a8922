//! Many rows as one parameter list: arrays for `unnest` on PostgreSQL, one JSON text for `json_each` on SQLite, so that a
//! statement's text does not depend on how many rows it takes. Where SQLite gets very many rows, always in the same few numbers,
//! each cell is a parameter instead: its JSON is read once for every cell of a row.

use std::fmt::Write as _;

use goldleaves_domain::{Timestamp, hex_text};
use sea_orm::sea_query::ArrayType;
use sea_orm::{Statement, StatementBuilder, Value};
use uuid::Uuid;

use crate::dialect::Dialect;

/// A statement's parameters, numbered as they are bound.
#[derive(Debug, Default)]
pub struct Params(Vec<Value>);

impl Params {
    /// Binds a value; what it returns stands for it in the statement.
    pub fn bind(&mut self, value: impl Into<Value>) -> String {
        format!("${}", self.add(value.into()))
    }

    /// Binds a value; returns its number.
    fn add(&mut self, value: Value) -> usize {
        self.0.push(value);
        self.0.len()
    }

    pub(crate) fn into_values(self) -> Vec<Value> {
        self.0
    }
}

/// A statement of the query builder as text, and its parameters.
pub fn build(dialect: Dialect, statement: &impl StatementBuilder) -> (String, Params) {
    let Statement { sql, values, .. } = statement.build(&dialect.backend());
    (sql, Params(values.map(|values| values.0).unwrap_or_default()))
}

/// A value that a column of [`Rows`] can hold. Arrays of `sea-query` know no NULL, so a value that never occurs stands
/// for it.
pub trait Cell {
    /// The type of an element, as PostgreSQL calls it.
    const TYPE: &'static str;
    /// The same, as the driver calls it.
    const ARRAY: ArrayType;
    /// The value that stands for NULL, if there is any.
    const NULL: Option<&'static str> = None;
    /// Bytes are hexadecimal in JSON.
    const IS_BYTES: bool = false;

    /// The cell as an element of an array.
    fn value(self) -> Value;
    /// The cell in JSON.
    fn json(self) -> serde_json::Value;
    /// The cell as a parameter of SQLite.
    fn sqlite(self) -> Value;
}

impl Cell for Uuid {
    const TYPE: &'static str = "uuid";
    const ARRAY: ArrayType = ArrayType::Uuid;

    fn value(self) -> Value {
        self.into()
    }

    fn json(self) -> serde_json::Value {
        self.as_hyphenated().to_string().into()
    }

    fn sqlite(self) -> Value {
        self.as_hyphenated().to_string().into()
    }
}

impl Cell for Option<Uuid> {
    const TYPE: &'static str = Uuid::TYPE;
    const ARRAY: ArrayType = Uuid::ARRAY;
    const NULL: Option<&'static str> = Some("'00000000-0000-0000-0000-000000000000'::uuid");

    fn value(self) -> Value {
        self.unwrap_or_default().value()
    }

    fn json(self) -> serde_json::Value {
        self.map_or(serde_json::Value::Null, Cell::json)
    }

    fn sqlite(self) -> Value {
        self.map_or(Value::String(None), Cell::sqlite)
    }
}

impl Cell for &str {
    const TYPE: &'static str = "text";
    const ARRAY: ArrayType = ArrayType::String;

    fn value(self) -> Value {
        self.into()
    }

    fn json(self) -> serde_json::Value {
        self.into()
    }

    fn sqlite(self) -> Value {
        self.value()
    }
}

impl Cell for String {
    const TYPE: &'static str = <&str>::TYPE;
    const ARRAY: ArrayType = <&str>::ARRAY;

    fn value(self) -> Value {
        self.into()
    }

    fn json(self) -> serde_json::Value {
        self.into()
    }

    fn sqlite(self) -> Value {
        self.value()
    }
}

impl Cell for Option<&str> {
    const TYPE: &'static str = <&str>::TYPE;
    const ARRAY: ArrayType = <&str>::ARRAY;
    const NULL: Option<&'static str> = Some("''");

    fn value(self) -> Value {
        self.unwrap_or_default().value()
    }

    fn json(self) -> serde_json::Value {
        self.into()
    }

    fn sqlite(self) -> Value {
        self.into()
    }
}

impl Cell for i64 {
    const TYPE: &'static str = "bigint";
    const ARRAY: ArrayType = ArrayType::BigInt;

    fn value(self) -> Value {
        self.into()
    }

    fn json(self) -> serde_json::Value {
        self.into()
    }

    fn sqlite(self) -> Value {
        self.value()
    }
}

impl Cell for Option<i64> {
    const TYPE: &'static str = i64::TYPE;
    const ARRAY: ArrayType = i64::ARRAY;
    const NULL: Option<&'static str> = Some("(-9223372036854775807)");

    fn value(self) -> Value {
        self.unwrap_or(-i64::MAX).value()
    }

    fn json(self) -> serde_json::Value {
        self.into()
    }

    fn sqlite(self) -> Value {
        self.into()
    }
}

impl Cell for Timestamp {
    const TYPE: &'static str = "timestamptz";
    const ARRAY: ArrayType = ArrayType::ChronoDateTimeUtc;

    fn value(self) -> Value {
        Value::ChronoDateTimeUtc(self.to_date_time())
    }

    fn json(self) -> serde_json::Value {
        self.to_string().into()
    }

    fn sqlite(self) -> Value {
        self.to_string().into()
    }
}

impl Cell for Option<Timestamp> {
    const TYPE: &'static str = Timestamp::TYPE;
    const ARRAY: ArrayType = Timestamp::ARRAY;
    const NULL: Option<&'static str> = Some("'1900-01-01T00:00:00.000001Z'::timestamptz");

    fn value(self) -> Value {
        const NEVER_MICROS: i64 = -2_208_988_800_000_000 + 1;
        let moment = self.or_else(|| Timestamp::from_unix_micros(NEVER_MICROS).ok());
        Value::ChronoDateTimeUtc(moment.and_then(Timestamp::to_date_time))
    }

    fn json(self) -> serde_json::Value {
        self.map_or(serde_json::Value::Null, Cell::json)
    }

    fn sqlite(self) -> Value {
        self.map_or(Value::String(None), Cell::sqlite)
    }
}

impl Cell for &[u8] {
    const TYPE: &'static str = "bytea";
    const ARRAY: ArrayType = ArrayType::Bytes;
    const IS_BYTES: bool = true;

    fn value(self) -> Value {
        self.to_vec().into()
    }

    fn json(self) -> serde_json::Value {
        hex_text(self).into()
    }

    fn sqlite(self) -> Value {
        self.value()
    }
}

/// Rows of named columns.
#[derive(Debug)]
pub struct Rows {
    dialect: Dialect,
    columns: Vec<Column>,
    json: Vec<Vec<serde_json::Value>>,
    /// Where each cell is a parameter: the cells, by row.
    prepared: Option<Vec<Vec<Value>>>,
}

#[derive(Debug)]
struct Column {
    name: &'static str,
    kind: &'static str,
    null: Option<&'static str>,
    is_bytes: bool,
    array: Option<Value>,
}

impl Rows {
    /// No rows yet.
    pub const fn new(dialect: Dialect) -> Self {
        Self { dialect, columns: Vec::new(), json: Vec::new(), prepared: None }
    }

    /// No rows yet, of which SQLite gets a parameter for each cell. Their number is a part of the statement.
    pub const fn prepared(dialect: Dialect) -> Self {
        let prepared = if matches!(dialect, Dialect::Sqlite) { Some(Vec::new()) } else { None };
        Self { dialect, columns: Vec::new(), json: Vec::new(), prepared }
    }

    /// Adds a column; every column has as many cells as the first.
    pub fn column<C: Cell>(mut self, name: &'static str, cells: impl Iterator<Item = C>) -> Self {
        let array = match self.dialect {
            Dialect::Postgres => Some(Value::Array(C::ARRAY, Some(Box::new(cells.map(Cell::value).collect())))),
            Dialect::Sqlite => {
                let is_first = self.columns.is_empty();
                match &mut self.prepared {
                    Some(rows) => add_column(rows, is_first, cells.map(Cell::sqlite)),
                    None => add_column(&mut self.json, is_first, cells.map(Cell::json)),
                }
                None
            }
        };
        self.columns.push(Column { name, kind: C::TYPE, null: C::NULL, is_bytes: C::IS_BYTES, array });
        self
    }

    /// A query that gives the rows, each with its number `n`, in their order.
    pub fn query(self, params: &mut Params) -> String {
        let mut names = Vec::new();
        if let Some(rows) = self.prepared {
            return prepared_query(&self.columns, rows, params);
        }
        if self.dialect == Dialect::Sqlite {
            let json = serde_json::Value::Array(self.json.into_iter().map(serde_json::Value::Array).collect());
            let json = params.bind(json.to_string());
            for (at, column) in self.columns.iter().enumerate() {
                let cell = format!("j.value ->> {at}");
                let cell = if column.is_bytes { format!("unhex({cell})") } else { cell };
                names.push(format!("{cell} AS {}", column.name));
            }
            return format!("SELECT j.key AS n, {} FROM json_each({json}) AS j", names.join(", "));
        }
        let (mut arrays, mut cells) = (Vec::new(), Vec::new());
        for (at, column) in self.columns.into_iter().enumerate() {
            let cell = column.null.map_or_else(|| format!("c{at}"), |null| format!("NULLIF(c{at}, {null})"));
            names.push(format!("{cell} AS {}", column.name));
            cells.push(format!("c{at}"));
            if let Some(array) = column.array {
                arrays.push(format!("{}::{}[]", params.bind(array), column.kind));
            }
        }
        let (names, arrays, cells) = (names.join(", "), arrays.join(", "), cells.join(", "));
        format!("SELECT n, {names} FROM unnest({arrays}) WITH ORDINALITY AS u({cells}, n)")
    }
}

/// Adds a cell to each row; the first column makes the rows.
fn add_column<T>(rows: &mut Vec<Vec<T>>, is_first: bool, cells: impl Iterator<Item = T>) {
    for (at, cell) in cells.enumerate() {
        match rows.get_mut(at) {
            Some(row) if !is_first => row.push(cell),
            _ => rows.push(vec![cell]),
        }
    }
}

fn prepared_query(columns: &[Column], rows: Vec<Vec<Value>>, params: &mut Params) -> String {
    let names: Vec<String> =
        columns.iter().enumerate().map(|(at, column)| format!("v.column{} AS {}", at + 2, column.name)).collect();
    let mut tuples = String::with_capacity(rows.len() * columns.len() * 8);
    for (n, row) in rows.into_iter().enumerate() {
        let separator = if n == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(tuples, "{separator}({n}");
        for cell in row {
            let _ = write!(tuples, ", ${}", params.add(cell));
        }
        tuples.push(')');
    }
    format!("SELECT v.column1 AS n, {} FROM (VALUES {tuples}) AS v", names.join(", "))
}
