//! Going back by hand: which retained records may be handed on once more, and a way to ask for it from outside.
//!
//! The wish is a file in the directory, so that it reaches the process that owns the spool, or waits for the next one. It
//! holds one line, `since` and seconds since 1970. Asking changes nothing else; it is taken once and then gone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::clock::unix_secs;
use crate::error::OpenError;
use crate::frame::{FrameKind, Start};
use crate::fs::{FileSystem, OpenMode, RealFileSystem, read_patiently};
use crate::ids::Lsn;
use crate::past::Past;
use crate::scan::{OnReadError, Scan, ScanStep};
use crate::segment::Segment;
use crate::shared::SpoolShared;
use crate::{state, survey};

const NAME: &str = "resend";
const NAME_NEW: &str = "resend.new";
const WORD: &str = "since ";
const BYTES_MAX: usize = 64;
/// The segments that may say of themselves that they began before the records of an earlier one were written.
const MADE_AHEAD: usize = 3;

/// Asks whoever owns the spool in a directory, or will, to hand on once more what was appended since then (seconds since
/// 1970; 0 = everything retained). [`is_resend_asked`] says whether it was taken.
///
/// # Errors
/// The wish can't be written.
pub fn ask_resend(directory: &Path, since: u64) -> io::Result<()> {
    ask_in(&RealFileSystem, directory, since)
}

/// Returns whether a wish waits to be taken.
#[must_use]
pub fn is_resend_asked(directory: &Path) -> bool {
    directory.join(NAME).exists()
}

pub(crate) fn ask_in(fs: &dyn FileSystem, directory: &Path, since: u64) -> io::Result<()> {
    let new = directory.join(NAME_NEW);
    match fs.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.open(&new, OpenMode::Create)?;
    file.write_at(0, format!("{WORD}{since}\n").as_bytes())?;
    file.sync_data()?;
    fs.rename(&new, &directory.join(NAME))?;
    fs.sync_dir(directory)
}

/// `None`: nothing is asked.
fn asked(fs: &dyn FileSystem, directory: &Path) -> io::Result<Option<u64>> {
    let file = match fs.open(&directory.join(NAME), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = [0; BYTES_MAX];
    let length = read_patiently(&*file, 0, &mut text)?;
    let text = std::str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
    let since = text.trim().strip_prefix(WORD).and_then(|secs| secs.parse().ok());
    since.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file resend names no time"))
}

/// Where reading again may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ResendPlace {
    pub(crate) lsn: u64,
    /// The number of relayed records the log held before it.
    pub(crate) records_before: u64,
    /// When the first record there was appended, seconds since 1970; `None`: there is none.
    pub(crate) unix_secs: Option<u32>,
}

/// The first relayed record that was appended at `since` or later, seconds since 1970.
pub(crate) fn place(segments: &[Arc<Segment>], limit: u64, since: u64) -> io::Result<ResendPlace> {
    let young = segments.iter().position(|segment| survey::began(segment) >= since);
    let from = young.unwrap_or(segments.len()).saturating_sub(MADE_AHEAD);
    let first = segments.get(from).map_or(limit, |segment| segment.first());
    let mut scan = Scan::new(first, OnReadError::Skip);
    let mut found = ResendPlace { lsn: first, ..ResendPlace::default() };
    loop {
        match scan.step(segments, limit)? {
            ScanStep::Frame(frame) if frame.head.kind == FrameKind::Start => {
                let start = Start::decode(&frame.payload);
                found.records_before = start.map_or(found.records_before, |start| start.relayed);
            }
            ScanStep::Frame(frame) if frame.head.kind.is_relayed() => {
                let head = frame.head;
                if u64::from(head.unix_secs) >= since {
                    return Ok(ResendPlace { lsn: head.lsn, unix_secs: Some(head.unix_secs), ..found });
                }
                found.records_before += 1;
            }
            ScanStep::Frame(_) | ScanStep::Gap(_) => {}
            ScanStep::End => return Ok(ResendPlace { lsn: scan.pos(), ..found }),
        }
    }
}

impl SpoolShared {
    /// Sends the reader back to the first record appended at `since` or later, durably; never ahead. How many acknowledged
    /// records are handed on again.
    pub(crate) fn go_back(&self, since: u64) -> Result<(Lsn, u64), OpenError> {
        let _persisting = self.persisting.lock();
        let directory = &self.options.directory;
        let (segments, durable) = {
            let log = self.log.lock();
            (Arc::clone(&log.segments), log.durable)
        };
        let found = place(&segments, durable, since).map_err(OpenError::io("read", directory))?;
        let (lsn, past, again) = {
            let mut relay = self.relay.lock();
            let (cursor, acknowledged) = (relay.cursor(), relay.acknowledged_records);
            let (lsn, before) =
                if found.lsn < cursor { (found.lsn, found.records_before) } else { (cursor, acknowledged) };
            relay.back_to(lsn, before);
            relay.past = Past::at(lsn, unix_secs());
            (lsn, relay.past, acknowledged.saturating_sub(before))
        };
        self.syncing.rewound();
        state::persist(&self.state, |state| (state.cursor, state.past) = (lsn, past))
            .map_err(OpenError::io("write the state in", directory))?;
        Ok((Lsn(lsn), again))
    }

    /// Does what somebody asked for with [`ask_resend`].
    pub(crate) fn heed_resend(&self) {
        let directory = &self.options.directory;
        let since = match asked(&*self.fs, directory) {
            Ok(None) => return,
            Ok(Some(since)) => since,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(path = %directory.display(), %error, "a wish to hand on records again is passed over");
                self.forget_resend();
                return;
            }
            Err(error) => {
                tracing::warn!(path = %directory.display(), %error, "a wish to hand on records again can't be read yet");
                return;
            }
        };
        match self.go_back(since) {
            Ok((lsn, records)) => {
                tracing::info!(records, since, %lsn, "asked to hand on again what was acknowledged, going back");
                self.forget_resend();
            }
            Err(error) => tracing::error!(since, %error, "records can't be sent again yet; retrying"),
        }
    }

    fn forget_resend(&self) {
        let path = self.options.directory.join(NAME);
        if let Err(error) = self.fs.remove(&path) {
            tracing::error!(path = %path.display(), %error, "the wish can't be removed and will be heeded once more");
        }
    }
}
