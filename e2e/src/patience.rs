//! How long a test waits for a state before it fails.

use std::time::Duration;

/// The longest time anything that happens by itself may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
