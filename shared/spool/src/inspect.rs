//! A look at a spool from outside: reads only, takes no lock, works beside the process that owns it.
//!
//! Beside a writing process the answer is a snapshot that may be a moment old.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock::unix_secs;
use crate::error::OpenError;
use crate::fs::{FileSystem, OpenMode, RealFileSystem};
use crate::segment::Segment;
use crate::stage::Leftover;
use crate::state::{self, SpoolState};
use crate::survey::{self, Survey};
use crate::{quarantine, resend, restore};

/// The contents of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The spool's id; `None` when nothing was ever written here.
    pub id: Option<Uuid>,
    /// True if a process has it open.
    pub in_use: bool,
    /// Segment files.
    pub segments: usize,
    /// Bytes of the segment files.
    pub bytes: u64,
    /// Records that wait to be handed on.
    pub unsent_records: u64,
    /// Age of the oldest of them.
    pub oldest_unsent_secs: Option<u64>,
    /// Records that were acknowledged and are retained: [`crate::ask_resend`] hands them on once more.
    pub resendable_records: u64,
    /// Age of the oldest record that is retained.
    pub oldest_retained_secs: Option<u64>,
    /// Intents without a settlement.
    pub open_intents: u64,
    /// Epochs nobody closed: id, last seq, unrecorded. A running process's own is among them.
    pub epochs: Vec<(Uuid, u64, u64)>,
    /// Stretches of bytes without a good record (a running process's room ahead is not counted).
    pub damaged_regions: u64,
    /// Files set aside in `quarantine/`, by this or earlier recoveries.
    pub quarantine_files: usize,
}

/// Looks at the spool in a directory.
///
/// # Errors
/// When the directory or its state cannot be read, or a newer version wrote it.
pub fn inspect(directory: &Path) -> Result<Inspection, OpenError> {
    inspect_in(&RealFileSystem, directory, 0)
}

/// Works like [`inspect`]; what may be resent is counted from the first record that was appended at `since` or later, seconds since
/// 1970.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_since(directory: &Path, since: u64) -> Result<Inspection, OpenError> {
    inspect_in(&RealFileSystem, directory, since)
}

pub(crate) fn inspect_in(fs: &dyn FileSystem, directory: &Path, since: u64) -> Result<Inspection, OpenError> {
    let read = state::read(fs, directory).map_err(OpenError::io("read the state in", directory))?;
    let found = survey::find(fs, directory, OpenMode::Read)?;
    let known = found.segments.first().map(|segment| segment.header.spool);
    let id = read.as_ref().map(|state| state.spool).or(known);
    let state = read.unwrap_or_else(|| SpoolState::new(id.unwrap_or_default()));
    let mut segments: Vec<_> = found.segments.into_iter().filter(|segment| segment.limit() > state.floor).collect();
    lay_stages_over(fs, &mut segments);
    let mut damaged_regions = found.damaged.len() as u64;
    let survey = Survey::take(&segments, &state, &mut |gap| {
        damaged_regions += u64::from(quarantine::is_damage(gap));
    });
    let survey = survey.map_err(OpenError::io("read", directory))?;
    let limit = segments.iter().map(|segment| segment.end()).max().unwrap_or(0);
    let retained = resend::place(&segments, limit, since).map_err(OpenError::io("read", directory))?;
    let oldest = survey.oldest_unsent_unix_secs.map(|secs| unix_secs().saturating_sub(u64::from(secs)));
    let unrecorded = |id: Uuid| state.unrecorded.iter().find(|(of, _)| *of == id).map_or(0, |(_, count)| *count);
    Ok(Inspection {
        id,
        in_use: is_in_use(fs, directory),
        segments: segments.len(),
        bytes: segments.iter().map(|segment| segment.bytes()).sum(),
        unsent_records: survey.unsent,
        oldest_unsent_secs: oldest,
        resendable_records: (survey.relayed - survey.unsent.min(survey.relayed))
            .saturating_sub(retained.records_before),
        oldest_retained_secs: retained.unix_secs.map(|secs| unix_secs().saturating_sub(u64::from(secs))),
        open_intents: survey.open.len() as u64,
        epochs: survey.unclosed().map(|mark| (mark.epoch, mark.last_seq, unrecorded(mark.epoch))).collect(),
        damaged_regions,
        quarantine_files: quarantine::files(fs, directory),
    })
}

/// Lets segments say what a stage holds of them: a record that a disk has not got yet waits like any other.
fn lay_stages_over(fs: &dyn FileSystem, segments: &mut [Arc<Segment>]) {
    let noted = segments.iter().filter_map(|segment| Some((segment.header, segment.stage_note()?.path)));
    let stages: BTreeMap<_, _> = noted.map(|(header, path)| (path, header.spool)).collect();
    for (path, spool) in stages {
        let stage = fs.open_stage(&path).ok().and_then(|stage| Leftover::read(path, stage, spool));
        if let Some(leftover) = stage {
            restore::lay_over(&leftover, segments);
        }
    }
}

/// Tries the lock and lets go at once; makes no file.
fn is_in_use(fs: &dyn FileSystem, directory: &Path) -> bool {
    let path = directory.join("lock");
    fs.open(&path, OpenMode::Read).is_ok()
        && fs.lock(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
