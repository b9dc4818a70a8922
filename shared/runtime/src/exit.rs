//! How a process ends: the exit codes other programs may rely on.

use std::fmt;
use std::process::ExitCode;

/// The end of a process. The numbers are those of `sysexits.h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything finished.
    Done,
    /// 1: nothing failed, and something is still to be done; what.
    Pending(String),
    /// 64: an argument is unknown, or wrong.
    Usage,
    /// 70: a part without which the process cannot go on failed; its name.
    Failed(String),
    /// 75: stopped before these had finished; nothing is lost, a new start goes on with it.
    Unfinished(Vec<String>),
    /// 78: a setting is missing or wrong.
    Settings,
}

impl Exit {
    /// The number the process exits with.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Pending(_) => 1,
            Self::Usage => 64,
            Self::Failed(_) => 70,
            Self::Unfinished(_) => 75,
            Self::Settings => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => out.write_str("everything finished"),
            Self::Pending(what) => write!(out, "still to be done: {what}"),
            Self::Usage => out.write_str("an argument is unknown, or wrong"),
            Self::Failed(name) => write!(out, "stopped because {name} failed"),
            Self::Unfinished(names) => write!(out, "did not finish: {}", names.join(", ")),
            Self::Settings => out.write_str("a setting is missing or wrong"),
        }
    }
}
