//! The parts of answers: objects whose members stand in a fixed order, as JSON that loses nothing and as rows of CSV.

use std::fmt::Display;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::contract::{PAGE_OF, Shape};

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// Nothing.
    Null,
    /// A text.
    Text(String),
    /// A number of any size, as its digits.
    Number(String),
    /// JSON that is there as text already.
    Json(String),
    /// An object.
    Object(Item),
    /// Objects.
    List(Vec<Item>),
}

/// An object.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    names: Vec<&'static str>,
    cells: Vec<Cell>,
}

impl Cell {
    pub(crate) fn text(value: impl Display) -> Self {
        Self::Text(value.to_string())
    }

    pub(crate) fn number(value: impl Display) -> Self {
        Self::Number(value.to_string())
    }

    pub(crate) fn text_or_null(value: Option<impl Display>) -> Self {
        value.map_or(Self::Null, Self::text)
    }

    pub(crate) fn number_or_null(value: Option<impl Display>) -> Self {
        value.map_or(Self::Null, Self::number)
    }
}

impl Item {
    /// An object of this shape.
    pub(crate) fn new<const N: usize>(shape: &Shape<N>, cells: [Cell; N]) -> Self {
        Self::of(&shape.names(), cells)
    }

    /// An object of members with these names.
    pub(crate) fn of<const N: usize>(names: &[&'static str; N], cells: [Cell; N]) -> Self {
        Self { names: names.to_vec(), cells: cells.into() }
    }

    /// With one more member.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, cell: Cell) -> Self {
        self.names.push(name);
        self.cells.push(cell);
        self
    }

    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Writes it as an answer.
    pub(crate) fn answer(&self, status: StatusCode) -> Response {
        (status, Json(self)).into_response()
    }

    /// The members, in their order.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'static str, &Cell)> {
        self.names.iter().copied().zip(&self.cells)
    }
}

/// A page of a list as an answer.
pub(crate) fn page(items: Vec<Item>, next: Option<impl Display>) -> Item {
    Item::new(&PAGE_OF, [Cell::List(items), Cell::text_or_null(next)])
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(text) | Self::Json(text) => {
                RawValue::from_string(text.clone()).map_err(S::Error::custom)?.serialize(serializer)
            }
            Self::Object(item) => item.serialize(serializer),
            Self::List(items) => serializer.collect_seq(items),
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.names.len()))?;
        for (name, cell) in self.names.iter().zip(&self.cells) {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}
