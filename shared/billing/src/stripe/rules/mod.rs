//! The rules of a row on its way to Stripe, as pure functions: when it is sent, what an answer means, and what a reading of
//! its minute decides; beside them how rows are made, and what is taken over of Stripe. They know no database, no wire and no
//! clock; tests run whole histories through them, and compare them with a model that was made from the contract.

mod adoption;
mod comparing;
mod sealing;

use std::time::Duration;

pub use adoption::{Adoption, Known, adoption};
pub use comparing::{HourRow, LaneSums, MayBeThere, hour_is_there};
pub(crate) use sealing::step;
pub use sealing::{Made, Revision, RowName, identifier, lacking, minutes_for, value_of};

use goldleaves_domain::Timestamp;

const SECOND: i64 = 1_000_000;
/// The time after its first attempt within which a row is sent; later Stripe may have forgotten its identifier.
pub(crate) const SENT_FOR: i64 = 23 * Timestamp::HOUR_MICROS;
/// After so long an older answer can no longer come, and a summary no longer lags.
pub(crate) const WITNESS_AFTER: i64 = 24 * Timestamp::HOUR_MICROS;
/// The time after the last attempt from which a reading may decide that a row is not there.
const ABSENT_AFTER: i64 = Timestamp::HOUR_MICROS;
/// Between the two readings that decide it.
const ABSENT_TWICE: i64 = 600 * SECOND;
/// The first reading of what Stripe took, and the shortest and longest pause between two.
const READ_AFTER: i64 = 600 * SECOND;
const READ_PAUSE_MAX: i64 = Timestamp::HOUR_MICROS;
/// The pauses between two attempts.
const BACK_OFF_MIN: i64 = SECOND;
const BACK_OFF_MAX: i64 = 900 * SECOND;

/// The point that a row has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowState {
    /// There is no customer for its hour.
    Unmapped,
    /// To be sent, or sent with an unknown outcome, or refused for now.
    Pending,
    /// May or may not be there; never sent again.
    Held,
    /// Stripe took it.
    Pushed,
    /// Needs a person.
    Failed,
    /// Not there, and never will be.
    Abandoned,
}

impl RowState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Unmapped, Self::Pending, Self::Held, Self::Pushed, Self::Failed, Self::Abandoned];

    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Pushed => "pushed",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state of a word. One that only a newer program knows is of a row that is under way.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == word).unwrap_or(Self::Pending)
    }

    /// The word in the API: whether a row may be there is no state that a reader can act on.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Held => "pending",
            state => state.as_str(),
        }
    }
}

/// The fields of a row that change once it is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The point that it has reached.
    pub state: RowState,
    /// Calls that were begun.
    pub attempts: i32,
    /// The number of times the key was changed.
    pub key_suffix: i32,
    /// The first call.
    pub first_attempt_at: Option<Timestamp>,
    /// The last call.
    pub last_attempt_at: Option<Timestamp>,
    /// No call before this.
    pub next_attempt_at: Option<Timestamp>,
    /// When Stripe took it.
    pub pushed_at: Option<Timestamp>,
    /// When its minute read its value.
    pub confirmed_at: Option<Timestamp>,
    /// When its minute was read last.
    pub read_back_at: Option<Timestamp>,
    /// The time since when its minute reads nothing.
    pub absent_since: Option<Timestamp>,
    /// The reason it is not done.
    pub last_error: Option<String>,
}

impl Progress {
    /// A row that was just frozen.
    pub const fn new() -> Self {
        Self {
            state: RowState::Pending,
            attempts: 0,
            key_suffix: 0,
            first_attempt_at: None,
            last_attempt_at: None,
            next_attempt_at: None,
            pushed_at: None,
            confirmed_at: None,
            read_back_at: None,
            absent_since: None,
            last_error: None,
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// The next step of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Its minute is read before it is sent for the first time: a ledger that was restored may have forgotten that it was.
    ReadFirst,
    /// It is sent.
    Send,
    /// It is not sent any more.
    Hold,
    /// Its minute is read.
    Read,
}

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stripe has it.
    Taken,
    /// Nothing was answered, or nothing was sent: the same key is used again.
    Unanswered(String),
    /// Refused for now; the answer is replayed under the same key.
    Later {
        /// The text of the refusal.
        error: String,
        /// The time for which Stripe wants to be left alone.
        pause: Option<Duration>,
    },
    /// Nothing of the lane is taken.
    Blocked(String),
    /// This row never will be.
    Refused(String),
}

/// A reading of the minute of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The row's own value.
    pub value: i128,
    /// The minute's.
    pub read: i128,
    /// True if a row that is younger is there, so that this one would be too.
    pub has_witness: bool,
}

/// The verdict of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Undecided,
    /// It is there.
    Confirmed,
    /// It is not there, and its units are uncovered.
    Abandoned,
    /// Stripe took it and it is not there.
    Missing,
    /// Something else is there.
    Differs,
}

fn plus(moment: Timestamp, micros: i64) -> Timestamp {
    moment.plus_micros(micros).unwrap_or(moment)
}

fn since(moment: Timestamp, now: Timestamp) -> i64 {
    now.unix_micros() - moment.unix_micros()
}

impl Progress {
    /// Returns the next step of the row of this minute.
    pub fn due(&self, minute: Timestamp, now: Timestamp) -> Due {
        match self.state {
            RowState::Pending => self.pending(minute, now),
            RowState::Held => {
                let last = self.last_attempt_at.or(self.first_attempt_at).unwrap_or(now);
                let is_due = since(last, now) >= ABSENT_AFTER && self.is_read_due(last, now);
                if is_due { Due::Read } else { Due::Nothing }
            }
            RowState::Pushed if self.confirmed_at.is_none() => {
                let pushed = self.pushed_at.unwrap_or(now);
                let is_due = since(pushed, now) >= READ_AFTER && self.is_read_due(pushed, now);
                if is_due { Due::Read } else { Due::Nothing }
            }
            RowState::Unmapped | RowState::Pushed | RowState::Failed | RowState::Abandoned => Due::Nothing,
        }
    }

    fn pending(&self, minute: Timestamp, now: Timestamp) -> Due {
        if self.first_attempt_at.is_some_and(|first| since(first, now) >= SENT_FOR) {
            return Due::Hold;
        }
        if self.next_attempt_at.is_some_and(|next| next > now) {
            return Due::Nothing;
        }
        let was_read = self.read_back_at.is_some_and(|read| since(read, now) < ABSENT_AFTER);
        if self.first_attempt_at.is_none() && since(minute, now) > SENT_FOR && !was_read {
            return Due::ReadFirst;
        }
        Due::Send
    }

    /// Readings become rarer the longer one waits.
    fn is_read_due(&self, from: Timestamp, now: Timestamp) -> bool {
        match self.read_back_at {
            // A reading before the last attempt says nothing of it.
            Some(read) if read >= from => since(read, now) >= since(from, read).clamp(READ_AFTER, READ_PAUSE_MAX),
            _ => true,
        }
    }

    /// The row with an attempt that is about to be made.
    #[must_use]
    pub fn attempted(mut self, now: Timestamp) -> Self {
        self.attempts = self.attempts.saturating_add(1);
        self.first_attempt_at = self.first_attempt_at.or(Some(now));
        self.last_attempt_at = Some(now);
        // Whoever takes the lane after a crash leaves a call that may still be under way its time.
        self.next_attempt_at = Some(plus(now, 60 * SECOND));
        self
    }

    /// The row after an attempt; `jitter` lies between 0 and 1.
    #[must_use]
    pub fn answered(mut self, outcome: &Outcome, now: Timestamp, jitter: f64) -> Self {
        // What was decided by another meanwhile stays decided.
        if self.state != RowState::Pending && *outcome != Outcome::Taken {
            return self;
        }
        match outcome {
            Outcome::Taken => {
                if matches!(self.state, RowState::Pending | RowState::Held) {
                    self.state = RowState::Pushed;
                }
                self.pushed_at = self.pushed_at.or(Some(now));
                self.next_attempt_at = None;
                self.absent_since = None;
                self.last_error = None;
            }
            Outcome::Unanswered(error) => {
                self.next_attempt_at = Some(plus(now, back_off(self.attempts, jitter)));
                self.last_error = Some(error.clone());
            }
            Outcome::Later { error, pause } => {
                let pause = pause.and_then(|pause| i64::try_from(pause.as_micros()).ok()).unwrap_or_default();
                self.key_suffix = self.key_suffix.saturating_add(1);
                self.next_attempt_at = Some(plus(now, back_off(self.attempts, jitter).max(pause)));
                self.last_error = Some(error.clone());
            }
            Outcome::Blocked(error) => {
                // The refusal is replayed under the same key, too.
                self.key_suffix = self.key_suffix.saturating_add(1);
                self.next_attempt_at = Some(now);
                self.last_error = Some(error.clone());
            }
            Outcome::Refused(error) => {
                self.state = RowState::Failed;
                self.next_attempt_at = None;
                self.last_error = Some(error.clone());
            }
        }
        self
    }

    /// The row after a reading of its minute, and what that decides.
    #[must_use]
    pub fn read(mut self, reading: &Reading, now: Timestamp) -> (Self, Verdict) {
        self.read_back_at = Some(now);
        if reading.read == reading.value {
            self.state = RowState::Pushed;
            self.pushed_at = self.pushed_at.or(Some(now));
            self.confirmed_at = Some(now);
            (self.absent_since, self.next_attempt_at, self.last_error) = (None, None, None);
            return (self, Verdict::Confirmed);
        }
        if reading.read != 0 {
            self.last_error = Some(format!("its minute reads {} at Stripe, not {}", reading.read, reading.value));
            if self.state == RowState::Pushed {
                self.state = RowState::Failed;
            }
            return (self, Verdict::Differs);
        }
        let last = self.last_attempt_at.or(self.pushed_at).unwrap_or(now);
        if !reading.has_witness || since(last, now) < ABSENT_AFTER {
            self.absent_since = None;
            return (self, Verdict::Undecided);
        }
        let first = *self.absent_since.get_or_insert(now);
        if since(first, now) < ABSENT_TWICE {
            return (self, Verdict::Undecided);
        }
        match self.state {
            RowState::Held => {
                self.state = RowState::Abandoned;
                (self, Verdict::Abandoned)
            }
            RowState::Pushed => {
                self.state = RowState::Failed;
                self.last_error = Some("not_in_summary: Stripe took it, and its summaries do not have it".to_owned());
                self.absent_since = None;
                (self, Verdict::Missing)
            }
            _ => (self, Verdict::Undecided),
        }
    }

    /// The row with no attempt left: its outcome is found out by reading.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.state = RowState::Held;
        (self.absent_since, self.next_attempt_at) = (None, None);
        let error = self.last_error.take().unwrap_or_else(|| "no answer".to_owned());
        self.last_error = Some(if error.starts_with("held: ") { error } else { format!("held: {error}") });
        self
    }

    /// When something is to be done with the row next; `None` when only a person changes that.
    pub(crate) fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            RowState::Pending => Some(self.next_attempt_at.unwrap_or(now)),
            RowState::Held => {
                let last = self.last_attempt_at.or(self.first_attempt_at).unwrap_or(now);
                Some(self.next_read(last, ABSENT_AFTER))
            }
            RowState::Pushed if self.confirmed_at.is_none() => {
                Some(self.next_read(self.pushed_at.unwrap_or(now), READ_AFTER))
            }
            _ => None,
        }
    }

    fn next_read(&self, from: Timestamp, after: i64) -> Timestamp {
        match self.read_back_at {
            Some(read) if read >= from => plus(read, since(from, read).clamp(READ_AFTER, READ_PAUSE_MAX)),
            _ => plus(from, after),
        }
        .max(plus(from, after))
    }
}

/// Full jitter over a span that doubles from a second to a quarter of an hour.
fn back_off(attempts: i32, jitter: f64) -> i64 {
    let doublings = attempts.clamp(1, 11).unsigned_abs();
    let span = BACK_OFF_MIN.saturating_mul(1_i64 << doublings).min(BACK_OFF_MAX);
    // Not below a second: the clock of a lane is its lease.
    BACK_OFF_MIN.max((span as f64 * jitter.clamp(0.0, 1.0)) as i64)
}

#[cfg(test)]
mod tests;
