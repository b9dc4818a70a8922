//! Billable routes: patterns of whole path segments, of which the longest wins.
//!
//! Matching compares what segments *say*, not how they are written: a segment is decoded, its `;parameters` are cut and
//! the case of ASCII letters is ignored, because an upstream may do all of that before it routes. Whether a route is open
//! is decided in `class`, strictly.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::path::{self, NormalPath, PathError};

/// A pattern that matches whole path segments, 1 to 500 characters: `/api/v1/documents`. `/x/*` and `/x/` are `/x`;
/// `/` matches everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutePattern(Arc<str>);

/// A pattern that can't be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the route pattern {pattern:?} {fault}")]
pub struct RouteError {
    /// The pattern as it was given, at most its first 80 characters.
    pub pattern: String,
    /// The fault of the pattern.
    pub fault: RouteFault,
}

/// The faults of a route pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteFault {
    /// Nothing between two commas, or no pattern at all.
    #[error("is empty")]
    Empty,
    /// Does not start with `/`.
    #[error("does not start with /")]
    NotAbsolute,
    /// Longer than the ledger's column.
    #[error("has more than {} characters", RoutePattern::CHARS_MAX)]
    TooLong,
    /// A `*` anywhere but in a trailing `/*`.
    #[error("has a * that is not a trailing /*")]
    Wildcard,
    /// A `?`, `#` or `;`: no request path that is matched has one.
    #[error("has a ?, # or ;, which is never matched")]
    NeverMatched,
    /// No request could have this path.
    #[error("matches no request: {0}")]
    Path(PathError),
    /// The same pattern twice.
    #[error("is listed twice")]
    Double,
    /// `/` among the open routes.
    #[error("would open everything")]
    OpensAll,
    /// An open route that the gateway or the billing API answers.
    #[error("is never the upstream's")]
    Taken,
}

impl RoutePattern {
    /// The most characters a pattern may have.
    pub(crate) const CHARS_MAX: usize = 500;

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A pattern that an event or a row already carries. Only what the ledger needs is asked of it, so that a stricter
    /// rule for settings never makes old events unreadable; `None` when it would not fit. Visible ASCII, as every
    /// normalised pattern is: a wider route beside a wide tenant would not fit PostgreSQL's 2,704 bytes of an index row.
    pub fn recorded(text: &str) -> Option<Self> {
        let fits = text.starts_with('/') && text.len() <= Self::CHARS_MAX;
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.into()))
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }
}

impl FromStr for RoutePattern {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        canonical(text)
            .map(|pattern| Self(pattern.into()))
            .map_err(|fault| RouteError { pattern: text.chars().take(80).collect(), fault })
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The one form of a pattern: normalised like a request's path, without a trailing `/*` or `/`.
fn canonical(text: &str) -> Result<String, RouteFault> {
    if text.is_empty() {
        return Err(RouteFault::Empty);
    }
    if !text.starts_with('/') {
        return Err(RouteFault::NotAbsolute);
    }
    if text.chars().count() > RoutePattern::CHARS_MAX {
        return Err(RouteFault::TooLong);
    }
    // The slash stays: "/*" is "/".
    let path = if text.ends_with("/*") { text.trim_end_matches('*') } else { text };
    if path.contains('*') || path.len() + 1 < text.len() {
        return Err(RouteFault::Wildcard);
    }
    let normal = NormalPath::normalise(path).map_err(RouteFault::Path)?;
    if path.contains(['?', '#']) || parameters_start(normal.as_str()).is_some() {
        return Err(RouteFault::NeverMatched);
    }
    let pattern = match normal.as_str().trim_end_matches('/') {
        "" => "/",
        pattern => pattern,
    };
    if pattern.len() > RoutePattern::CHARS_MAX { Err(RouteFault::TooLong) } else { Ok(pattern.to_owned()) }
}

/// The routes that are billed: patterns of whole segments, the longest wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillableRoutes {
    /// Most segments first, so that the first match is the longest.
    routes: Vec<Route>,
}

/// A pattern and what its segments say, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    pattern: RoutePattern,
    names: Vec<Vec<u8>>,
}

impl BillableRoutes {
    /// The guide's six.
    pub const DEFAULT: &str = "/api/v1/documents,/api/v1/cases,/api/v1/clients,/api/v1/forms,/api/v1/ai,/api/v1/search";

    /// Parses patterns separated by commas; blanks around them are ignored.
    ///
    /// # Errors
    /// Every pattern that can't be used, in the order given.
    pub fn parse(list: &str) -> Result<Self, Vec<RouteError>> {
        let mut routes: Vec<Route> = Vec::new();
        let mut errors = Vec::new();
        for text in list.split(',').map(str::trim) {
            match text.parse::<RoutePattern>() {
                Ok(pattern) => {
                    let route = Route::new(pattern);
                    if routes.iter().any(|other| other.names == route.names) {
                        let pattern = text.chars().take(80).collect();
                        errors.push(RouteError { pattern, fault: RouteFault::Double });
                    } else {
                        routes.push(route);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self::sorted(routes)) } else { Err(errors) }
    }

    /// None at all, for where the list could not be read.
    pub const fn none() -> Self {
        Self { routes: Vec::new() }
    }

    /// The pattern with the most segments that this path starts with; it decides the event's `route`.
    pub fn longest_match(&self, path: &NormalPath) -> Option<&RoutePattern> {
        let text = path.as_str();
        let is_plain = !text.bytes().any(|byte| matches!(byte, b'%' | b';'));
        let mut routes = self.routes.iter();
        let route = routes.find(|route| if is_plain { route.matches_plain(text) } else { route.matches(path) });
        route.map(|route| &route.pattern)
    }

    /// The patterns, longest first.
    pub fn patterns(&self) -> impl Iterator<Item = &RoutePattern> {
        self.routes.iter().map(|route| &route.pattern)
    }

    fn sorted(mut routes: Vec<Route>) -> Self {
        routes.sort_by_key(|route| std::cmp::Reverse(route.names.len()));
        Self { routes }
    }
}

/// The guide's six.
impl Default for BillableRoutes {
    fn default() -> Self {
        let patterns = Self::DEFAULT.split(',').filter_map(|pattern| pattern.parse().ok());
        Self::sorted(patterns.map(Route::new).collect())
    }
}

impl Route {
    fn new(pattern: RoutePattern) -> Self {
        let names = pattern.segments().map(|segment| path::decoded(segment).to_ascii_lowercase()).collect();
        Self { pattern, names }
    }

    fn matches(&self, path: &NormalPath) -> bool {
        let mut segments = path.segments().map(without_parameters).filter(|segment| !segment.is_empty());
        self.names.iter().all(|name| segments.next().is_some_and(|segment| path::says(segment, name)))
    }

    /// The same for a path without escapes and parameters, which nearly all are: what it says is what it is.
    fn matches_plain(&self, path: &str) -> bool {
        let mut rest = path.as_bytes();
        self.names.iter().all(|name| {
            let after = rest.strip_prefix(b"/").and_then(|rest| rest.split_at_checked(name.len()));
            let Some((segment, after)) = after else { return false };
            rest = after;
            segment.eq_ignore_ascii_case(name) && matches!(rest.first(), None | Some(b'/'))
        })
    }
}

/// A segment without its `;parameters`, also when the `;` is escaped: an upstream may cut before or after it decodes.
pub(crate) fn without_parameters(segment: &str) -> &str {
    parameters_start(segment).and_then(|start| segment.get(..start)).unwrap_or(segment)
}

/// Where the first `;`, bare or escaped, stands in a normalised text.
fn parameters_start(normal: &str) -> Option<usize> {
    match (normal.find(';'), normal.find("%3B")) {
        (Some(bare), Some(escaped)) => Some(bare.min(escaped)),
        (bare, escaped) => bare.or(escaped),
    }
}
