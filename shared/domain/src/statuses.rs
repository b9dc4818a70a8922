//! The final statuses that are billed.

use std::fmt;
use std::str::FromStr;

/// The words of `BILLABLE_STATUSES`: classes (`2xx`) and single codes (`404`), of 200 to 599.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillableStatuses {
    /// Every status that is billed, ascending.
    statuses: Vec<u16>,
}

/// The words that are no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} must be a class from 2xx to 5xx or a status from 200 to 599", words.join(", "))]
pub struct StatusesError {
    /// The words, quoted, in the order given.
    pub words: Vec<String>,
}

impl BillableStatuses {
    /// The statuses that are billed unless the setting says otherwise.
    pub const DEFAULT: &str = "2xx,3xx";

    /// Parses words separated by commas; blanks around them are ignored. With `2xx`, 101 is billed too; no other 1xx
    /// ever is.
    ///
    /// # Errors
    /// Every word that is neither a class nor a status.
    pub fn parse(list: &str) -> Result<Self, StatusesError> {
        let mut statuses = Vec::new();
        let mut words = Vec::new();
        for word in list.split(',').map(str::trim) {
            match class_or_status(word) {
                Some(range) => statuses.extend(range),
                None => words.push(format!("{word:?}")),
            }
        }
        if !words.is_empty() {
            return Err(StatusesError { words });
        }
        if (200..300).all(|status| statuses.contains(&status)) {
            statuses.push(101);
        }
        statuses.sort_unstable();
        statuses.dedup();
        Ok(Self { statuses })
    }

    /// Returns whether a response with this final status is billed.
    pub fn contains(&self, status: u16) -> bool {
        self.statuses.binary_search(&status).is_ok()
    }
}

/// The words again, a whole class as one.
impl fmt::Display for BillableStatuses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        for class in 2..=5_u16 {
            let all = class * 100..(class + 1) * 100;
            if all.clone().all(|status| self.contains(status)) {
                words.push(format!("{class}xx"));
            } else {
                words.extend(all.filter(|status| self.contains(*status)).map(|status| status.to_string()));
            }
        }
        out.write_str(&words.join(","))
    }
}

/// `2xx,3xx`.
impl Default for BillableStatuses {
    fn default() -> Self {
        Self { statuses: std::iter::once(101).chain(200..400).collect() }
    }
}

impl FromStr for BillableStatuses {
    type Err = StatusesError;

    fn from_str(list: &str) -> Result<Self, StatusesError> {
        Self::parse(list)
    }
}

fn class_or_status(word: &str) -> Option<std::ops::Range<u16>> {
    match word.as_bytes() {
        [class @ b'2'..=b'5', b'x' | b'X', b'x' | b'X'] => {
            let first = u16::from(class - b'0') * 100;
            Some(first..first + 100)
        }
        [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => word.parse().ok().map(|status: u16| status..status + 1),
        _ => None,
    }
}
