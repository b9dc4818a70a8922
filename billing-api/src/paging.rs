//! Pages of lists as callers ask for them: a cursor goes on where its own list was left, and with no other one.
//!
//! A cursor carries a fingerprint of the question that it is of. That keeps mistakes from being answered with the wrong items; it is
//! no secret and protects nothing.

use axum::response::Response;
use goldleaves_billing::{Cursor, Page};
use goldleaves_domain::{Period, hex_text};
use http::StatusCode;
use sha2::{Digest, Sha256};

use crate::answer::ApiError;
use crate::cell::{self, Item};
use crate::contract::TENANT;
use crate::query::Query;

/// Bytes of a fingerprint: enough that no mistake passes.
const FINGERPRINT_BYTES: usize = 8;
/// Parameters that may differ from page to page, and the one that is a part of its own: a tenant in the path is the same one.
const APART: [&str; 3] = ["limit", "cursor", TENANT];
/// Stands between a cursor's fingerprint and its keys.
const MARK: char = '.';

/// The question that a list answers, however far it has been read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question(Vec<String>);

/// A page that is asked for, and the question that it is of.
#[derive(Debug)]
pub(crate) struct Paging {
    question: Question,
    page: Page,
}

impl Question {
    /// With a further part, which tells questions apart.
    #[must_use]
    pub(crate) fn with(mut self, part: impl Into<String>) -> Self {
        self.0.push(part.into());
        self
    }

    /// With the parameters that tell questions apart.
    #[must_use]
    pub(crate) fn with_parameters(mut self, query: &Query) -> Self {
        let parameters = query.all().filter(|(name, _)| !APART.contains(name));
        self.0.extend(parameters.flat_map(|(name, value)| [name.to_owned(), value.to_owned()]));
        self
    }

    /// With the range that was meant: where dates are left out, it moves on with the month.
    #[must_use]
    pub(crate) fn with_range(self, range: &Period) -> Self {
        self.with(range.start().to_string()).with(range.end().to_string())
    }

    /// The fingerprint of the question and of the keys behind which a page begins.
    fn fingerprint(&self, keys: &str) -> String {
        let mut digest = Sha256::new();
        for part in self.0.iter().map(String::as_str).chain([keys]) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        hex_text(digest.finalize().get(..FINGERPRINT_BYTES).unwrap_or_default())
    }

    fn write(&self, cursor: &Cursor) -> String {
        let keys = cursor.to_string();
        format!("{}{MARK}{keys}", self.fingerprint(&keys))
    }

    fn read(&self, text: &str) -> Option<Cursor> {
        let (fingerprint, keys) = text.split_once(MARK)?;
        if self.fingerprint(keys) == fingerprint { keys.parse().ok() } else { None }
    }
}

impl Paging {
    /// The page of this question that a query asks for.
    pub(crate) fn read(question: Question, query: &Query) -> Result<Self, ApiError> {
        let limit = query.limit()?;
        let other = || {
            let detail = "cursor is not the next_cursor of an earlier answer to the same question: the tenant, the parameters but \
                 limit, the range and the token's roles must be those of the page before";
            ApiError::Parameter(detail.to_owned())
        };
        let cursor = query.get("cursor").map(|text| question.read(text).ok_or_else(other)).transpose()?;
        Ok(Self { question, page: Page { limit, cursor } })
    }

    pub(crate) const fn page(&self) -> &Page {
        &self.page
    }

    /// The page as an answer.
    pub(crate) fn answer(&self, items: Vec<Item>, next: Option<&Cursor>) -> Response {
        cell::page(items, next.map(|next| self.question.write(next))).answer(StatusCode::OK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(parts: &[&str]) -> Question {
        Question(parts.iter().map(|&part| part.to_owned()).collect())
    }

    #[test]
    fn a_cursor_is_of_its_question_alone() {
        let cursor: Cursor = "YQpi".parse().unwrap();
        let own = question(&["corrections", "acme", "month", "2026-03"]);
        let text = own.write(&cursor);
        assert_eq!(own.read(&text), Some(cursor.clone()));
        for other in [
            question(&[]),
            question(&["corrections", "acme", "month", "2026-04"]),
            question(&["corrections", "acmemonth", "2026-03"]),
            question(&["corrections", "", "acme", "month", "2026-03"]),
            question(&["late", "acme", "month", "2026-03"]),
        ] {
            assert_eq!(other.read(&text), None, "{other:?}");
        }
        let (fingerprint, keys) = text.split_once(MARK).unwrap();
        for altered in
            [keys.to_owned(), format!("{fingerprint}.YQpj"), format!("{fingerprint}."), format!(".{keys}"), text + "."]
        {
            assert_eq!(own.read(&altered), None, "{altered}");
        }
    }
}
