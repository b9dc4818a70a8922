//! Route patterns: whole segments of the normalised path.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A pattern that matches whole path segments, 1 to 500 characters: `/api/v1/documents`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutePattern(Arc<str>);

/// Why a text is no route pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Does not start with `/`.
    #[error("a route pattern starts with /")]
    NotAbsolute,
    /// Longer than the ledger's column.
    #[error("a route pattern has at most {} characters", RoutePattern::CHARS_MAX)]
    TooLong,
}

impl RoutePattern {
    /// The most characters a pattern may have.
    pub const CHARS_MAX: usize = 500;

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoutePattern {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        if !text.starts_with('/') {
            return Err(RouteError::NotAbsolute);
        }
        if text.chars().count() > Self::CHARS_MAX {
            return Err(RouteError::TooLong);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
