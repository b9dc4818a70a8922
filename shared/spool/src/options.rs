//! How a spool is kept: its place, its size, its pauses. Below everything that works by them.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::OpenError;

/// A segment is at least this large.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;

/// The way a spool is kept.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// Where. Made if missing.
    pub directory: PathBuf,
    /// All files together stay below this; at least four segments.
    pub bytes_max: u64,
    /// The time for which acknowledged segments are kept for a rewind, unless room is needed.
    pub retain: Duration,
    /// The time in which a receiver may still lose what it acknowledged, to a power cut: each start hands that on once
    /// more, and until then it is retained, unless room is needed. Zero = what is acknowledged is never lost.
    pub settle_after: Duration,
    /// Size of a segment, at least [`SEGMENT_BYTES_MIN`], a multiple of 4096.
    pub segment_bytes: u64,
    /// Pause before a sync that nobody waits for; zero = sync at once.
    pub sync_pause: Duration,
    /// A settlement's payload is at most its intent's payload and so many bytes; room for that is reserved.
    pub settlement_slack: usize,
    /// A folder on a tmpfs that outlives the process: appended bytes wait there for the disk. `None`, or one that cannot be
    /// used: an append writes to the disk itself, and waits when that stands still.
    pub stage_directory: Option<PathBuf>,
    /// The most bytes that may wait there.
    pub stage_bytes: usize,
}

/// Where a stage lies unless something else is said.
pub const STAGE_DIRECTORY: &str = "/dev/shm";

impl SpoolOptions {
    /// 8 GiB, 24 hours, nothing acknowledged is ever lost, segments of 16 MiB, a pause of 5 ms, 1 KiB of slack, a stage of
    /// 8 MiB in [`STAGE_DIRECTORY`].
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            bytes_max: 8 << 30,
            retain: Duration::from_secs(24 * 3600),
            settle_after: Duration::ZERO,
            segment_bytes: 16 << 20,
            sync_pause: Duration::from_millis(5),
            settlement_slack: 1024,
            stage_directory: Some(PathBuf::from(STAGE_DIRECTORY)),
            stage_bytes: 8 << 20,
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let problem = if self.segment_bytes < SEGMENT_BYTES_MIN || !self.segment_bytes.is_multiple_of(4096) {
            format!("segment_bytes is {}; a multiple of 4096, at least {SEGMENT_BYTES_MIN}", self.segment_bytes)
        } else if self.bytes_max < 4 * self.segment_bytes {
            format!("bytes_max is {}; at least four segments, {}", self.bytes_max, 4 * self.segment_bytes)
        } else {
            return Ok(());
        };
        Err(OpenError::Options { problem })
    }
}
