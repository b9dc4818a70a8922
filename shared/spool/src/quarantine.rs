//! Where bytes go that are no record: kept for people to look at, out of the way of everything else.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::fs::{FileSystem, OpenMode};
use crate::scan::Gap;
use crate::segment::Segment;

const DIRECTORY: &str = "quarantine";
/// Beyond this many files only the log says what was found.
const FILES_MAX: usize = 1000;
const STEP: u64 = 64 * 1024;

/// Collects during one recovery.
pub(crate) struct Quarantine<'a> {
    fs: &'a dyn FileSystem,
    directory: &'a Path,
    /// Stretches of bytes that hold no good record and are not all zeros.
    pub(crate) regions: u64,
    pub(crate) bytes: u64,
    /// Segments whose unreadable bytes could not be copied: they must not be cut.
    pub(crate) kept: Vec<u64>,
}

impl<'a> Quarantine<'a> {
    pub(crate) fn new(fs: &'a dyn FileSystem, directory: &'a Path) -> Self {
        Self { fs, directory, regions: 0, bytes: 0, kept: Vec::new() }
    }

    /// Looks at a gap: zeros are room that was never written (or pages a power cut took), all else is set aside.
    pub(crate) fn look(&mut self, gap: &Gap) {
        let (from, to) = (gap.segment.offset(gap.from), gap.segment.offset(gap.to));
        let Some((from, to)) = written_within(&gap.segment, from, to) else { return };
        let path = &gap.segment.path;
        match self.copy(&gap.segment, from, to) {
            // An earlier recovery counted them.
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "unreadable bytes could not be copied and stay where they are");
                self.kept.push(gap.segment.header.number);
            }
        }
        tracing::error!(path = %path.display(), offset = from, bytes = to - from, "unreadable bytes in the spool are quarantined");
        self.regions += 1;
        self.bytes += to - from;
    }

    /// Returns whether they were not copied before.
    fn copy(&self, segment: &Segment, from: u64, to: u64) -> io::Result<bool> {
        let directory = self.ready()?;
        let path = directory.join(format!("{:016x}-{from:08x}.bin", segment.header.number));
        let (file, new) = match self.fs.open(&path, OpenMode::Create) {
            // Perhaps cut short by a crash: written again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (self.fs.open(&path, OpenMode::Write)?, false)
            }
            opened => (opened?, true),
        };
        let mut at = from;
        while at < to {
            let mut buffer = vec![0; usize::try_from((to - at).min(STEP)).unwrap_or_default()];
            let count = segment.file.read_at(at, &mut buffer)?;
            if count == 0 {
                break;
            }
            file.write_at(at - from, buffer.get(..count).unwrap_or_default())?;
            at += count as u64;
        }
        file.sync_data()?;
        self.fs.sync_dir(&directory)?;
        Ok(new)
    }

    /// A whole file whose header says nothing.
    pub(crate) fn file(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.ready()?;
        let Some(name) = path.file_name() else { return Ok(()) };
        self.fs.rename(path, &directory.join(name))?;
        self.fs.sync_dir(&directory)?;
        self.regions += 1;
        tracing::error!(path = %path.display(), "a spool segment without a readable header is quarantined whole");
        Ok(())
    }

    fn ready(&self) -> io::Result<std::path::PathBuf> {
        let directory = self.directory.join(DIRECTORY);
        self.fs.create_dir(&directory)?;
        if self.fs.list(&directory)?.len() >= FILES_MAX {
            return Err(io::Error::other("the quarantine is full"));
        }
        Ok(directory)
    }
}

/// Returns the number of files that are set aside in a spool's directory.
pub(crate) fn files(fs: &dyn FileSystem, directory: &Path) -> usize {
    fs.list(&directory.join(DIRECTORY)).map_or(0, |names| names.len())
}

/// Returns whether a gap is more than room that was never written.
pub(crate) fn is_damage(gap: &Gap) -> bool {
    written_within(&gap.segment, gap.segment.offset(gap.from), gap.segment.offset(gap.to)).is_some()
}

/// The part of `from..to` that is not zeros at either end; `None` when there is none or it cannot be read.
fn written_within(segment: &Arc<Segment>, from: u64, to: u64) -> Option<(u64, u64)> {
    let mut written: Option<(u64, u64)> = None;
    let mut at = from;
    while at < to {
        let mut buffer = vec![0; usize::try_from((to - at).min(STEP)).unwrap_or_default()];
        let count = segment.file.read_at(at, &mut buffer).unwrap_or(buffer.len());
        if count == 0 {
            break;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Some(first) = bytes.iter().position(|byte| *byte != 0) {
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(first);
            let start = written.map_or(at + first as u64, |(start, _)| start);
            written = Some((start, at + last as u64 + 1));
        }
        at += count as u64;
    }
    written
}

/// Returns whether a file holds nothing but zeros.
pub(crate) fn is_blank(fs: &dyn FileSystem, path: &Path) -> io::Result<bool> {
    let file = fs.open(path, OpenMode::Read)?;
    let mut at = 0;
    loop {
        let mut buffer = vec![0; usize::try_from(STEP).unwrap_or_default()];
        let count = file.read_at(at, &mut buffer)?;
        if buffer.iter().take(count).any(|byte| *byte != 0) {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
        at += count as u64;
    }
}
