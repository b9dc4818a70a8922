//! The states of a usage event, as lists show and filter them.

use std::fmt;
use std::str::FromStr;

/// The state of an event, or the states that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventState {
    /// On the bill.
    Billed,
    /// Was on the bill, and was taken off it.
    Void,
    /// Repeats a billed one.
    Repeat,
    /// Kept beside, with a reason.
    SetAside,
    /// Any of them.
    All,
}

/// A word that is no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of billed, void, repeat, set_aside, all")]
pub struct EventStateError;

impl EventState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Billed => "billed",
            Self::Void => "void",
            Self::Repeat => "repeat",
            Self::SetAside => "set_aside",
            Self::All => "all",
        }
    }
}

impl fmt::Display for EventState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for EventState {
    type Err = EventStateError;

    fn from_str(text: &str) -> Result<Self, EventStateError> {
        let states = [Self::Billed, Self::Void, Self::Repeat, Self::SetAside, Self::All];
        states.into_iter().find(|state| state.as_str() == text).ok_or(EventStateError)
    }
}
