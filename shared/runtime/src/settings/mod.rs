//! Settings: defaults, then `goldleaves.toml`, then the environment; every mistake reported at once.
//!
//! A program asks for what it reads and for nothing else, so that a setting only another program reads never stops it.
//! Nothing here looks at the process environment or at the clock: a [`Values`] is built from what it is given.

mod again;
mod common;
mod entries;
mod file;
mod json;
mod later;
mod mistakes;
mod nearest;
pub mod parse;
pub mod table;
mod values;
mod well_known;

#[cfg(test)]
mod tests;

pub use again::{Again, Fingerprints};
pub use common::{Common, Environment};
pub use entries::{Entry, EntryKey};
pub(crate) use file::CONFIG_FILE;
pub use file::File;
pub use mistakes::{Mistake, Mistakes};
pub use parse::Invalid;
pub use table::{Setting, SettingKind};
pub use values::{Reading, Values};
pub use well_known::fault as secret_fault;

pub(crate) use nearest::edit_distance;

/// The defaults, their documentation and an example at once: a commented `goldleaves.toml`.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The name of the settings file, looked for in the working directory.
pub const FILE_NAME: &str = "goldleaves.toml";
