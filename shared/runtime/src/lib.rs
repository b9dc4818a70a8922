//! How a Goldleaves process lives: its arguments, settings, logs and metrics, the tasks it runs and how it stops.
//!
//! This crate knows no domain and no HTTP: what a tenant or a billable route is, the programs themselves say, by
//! handing their own parsers to [`settings::Values`].

mod about;
pub mod arguments;
mod backoff;
mod clock;
mod descriptors;
mod exit;
mod files;
mod metrics;
pub mod process;
pub mod reload;
mod secret;
mod shutdown;
mod signals;
mod supervisor;
mod terminal;

pub mod settings;
pub mod telemetry;

pub use arguments::Program;
pub use backoff::{Backoff, Quiet};
pub use clock::{ClockBehind, check_clock};
pub use descriptors::{descriptor_limit, raise_descriptor_limit};
pub use exit::Exit;
pub use files::{NAMED_FILE_BYTES_MAX, create_private, read_file};
pub use metrics::{KnownGauge, LATE_CHANGES, LATE_CHANGES_HELP, Metrics};
pub use secret::Secret;
pub use shutdown::Shutdown;
pub use supervisor::{OnCancel, OnFailure, Stage, Supervisor, TaskRule};
pub use telemetry::{LogOptions, LogSwitch};
