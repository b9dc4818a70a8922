//! The limits of an answer: how long it may read, and of how much it may be made.

use std::time::Duration;

/// The most that an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// The time for which a statement may read.
    pub statement: Duration,
    /// The number of lines that a bill or a report may be made of, one for each route, action and rate card. A period
    /// is closed however many it has.
    pub lines: usize,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self { statement: Duration::from_secs(10), lines: 1_000_000 }
    }
}
