//! Lists by pages: an opaque cursor over an order that never changes.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use goldleaves_domain::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, Value};

/// Where the next page begins: behind the item with these keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<String>);

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the next_cursor of an earlier answer to the same question")]
pub struct CursorError;

impl Cursor {
    /// Behind the item with these keys.
    pub(crate) fn after<const N: usize>(keys: [String; N]) -> Self {
        Self(keys.into())
    }

    /// The keys, if there are so many.
    pub(crate) fn keys<const N: usize>(&self) -> Result<[&str; N], CursorError> {
        let keys: Vec<&str> = self.0.iter().map(String::as_str).collect();
        keys.try_into().map_err(|_| CursorError)
    }

    /// A moment and a text, the keys of most lists.
    pub(crate) fn time_and_text(&self) -> Result<(Timestamp, &str), CursorError> {
        let [time, text] = self.keys()?;
        Ok((time.parse().map_err(|_| CursorError)?, text))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No key holds a control character.
        out.write_str(&URL_SAFE_NO_PAD.encode(self.0.join("\n")))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let keys = String::from_utf8(bytes).map_err(|_| CursorError)?;
        let keys: Vec<String> = keys.split('\n').map(str::to_owned).collect();
        // No key was ever written with one, and no database takes NUL.
        if keys.iter().any(|key| key.contains(char::is_control)) { Err(CursorError) } else { Ok(Self(keys)) }
    }
}

/// The page that is asked for.
#[derive(Debug, Clone)]
pub struct Page {
    /// The most items.
    pub limit: u32,
    /// Where it begins; `None` is the first page.
    pub cursor: Option<Cursor>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct PageOf<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// The rows behind one with these keys, in the order of both.
pub(crate) fn behind<C: ColumnTrait>(columns: [C; 2], keys: [Value; 2]) -> Expr {
    let columns = Expr::tuple(columns.map(|column| Expr::col(column.as_column_ref())));
    columns.gt(Expr::tuple(keys.map(Expr::val)))
}

impl<T> PageOf<T> {
    /// A page of what was read: one item more than the limit says that there is another page.
    pub(crate) fn cut(mut items: Vec<T>, limit: u32, key: impl FnOnce(&T) -> Cursor) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(key) } else { None };
        Self { items, next }
    }
}

impl Page {
    /// Returns the number of rows that are read to know whether there is another page.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}
