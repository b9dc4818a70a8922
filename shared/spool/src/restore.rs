//! Writes what a dead process left in its stage into the segments that lack it, or, for an onlooker, lays it over them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use crate::fs::SpoolFile;
use crate::segment::Segment;
use crate::stage::{Leftover, frames_in};

/// The outcome of a restoring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Bytes that were written.
    pub(crate) bytes: u64,
    /// Bytes that no disk has and that none of the segments here has room for.
    pub(crate) bytes_left: u64,
}

/// Writes into the segments what was appended and did not get there. May be done again.
pub(crate) fn restore(leftover: &Leftover, segments: &[Arc<Segment>]) -> io::Result<Restored> {
    let mut restored = Restored::default();
    for (first, frames) in leftover.chunks() {
        let end = frames_in(first, &frames);
        let frames = frames.get(..end).unwrap_or_default();
        match home(leftover.epoch, first..first + end as u64, segments).and_then(|at| segments.get(at)) {
            _ if end == 0 => {}
            Some(segment) => restored.bytes += restore_frames(segment, first, frames)?,
            None if leftover.durable.is_some_and(|durable| first + end as u64 > durable) => {
                restored.bytes_left += end as u64;
            }
            None => {}
        }
    }
    Ok(restored)
}

fn restore_frames(segment: &Segment, first: u64, frames: &[u8]) -> io::Result<u64> {
    let mut there = vec![0; frames.len()];
    let read = segment.file.read_at(segment.offset(first), &mut there)?;
    if read == frames.len() && there == frames {
        return Ok(0);
    }
    segment.file.write_at(segment.offset(first), frames)?;
    segment.lengthen(first + frames.len() as u64);
    Ok(frames.len() as u64)
}

/// Returns which segment of an epoch frames belong into.
fn home(epoch: Uuid, lsns: Range<u64>, segments: &[Arc<Segment>]) -> Option<usize> {
    let may_hold = |segment: &Segment| {
        segment.header.epoch == epoch && segment.first() <= lsns.start && lsns.end <= segment.limit()
    };
    let all = segments.iter().enumerate().filter(|(_, segment)| may_hold(segment));
    all.max_by_key(|(_, segment)| segment.header.number).map(|(at, _)| at)
}

/// Puts in place of segments such as say what the stage holds of them too; writes nothing.
pub(crate) fn lay_over(leftover: &Leftover, segments: &mut [Arc<Segment>]) {
    let mut staged: BTreeMap<usize, Vec<Piece>> = BTreeMap::new();
    for (first, mut frames) in leftover.chunks() {
        frames.truncate(frames_in(first, &frames));
        if let Some(at) =
            home(leftover.epoch, first..first + frames.len() as u64, segments).filter(|_| !frames.is_empty())
        {
            staged.entry(at).or_default().push(Piece { first, frames });
        }
    }
    for (at, pieces) in staged {
        let Some(segment) = segments.get_mut(at) else { continue };
        let end = pieces.iter().map(|piece| piece.first + piece.frames.len() as u64).max().unwrap_or(0);
        let pieces = pieces.into_iter().map(|piece| (segment.offset(piece.first), piece.frames)).collect();
        let file = StagedFile { file: Arc::clone(&segment.file), pieces };
        *segment = Arc::new(segment.over(Arc::new(file), end));
    }
}

struct Piece {
    first: u64,
    frames: Vec<u8>,
}

/// A segment's file with what lies in a stage laid over it, only to be read.
struct StagedFile {
    file: Arc<dyn SpoolFile>,
    /// Offsets in the file, and bytes.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl SpoolFile for StagedFile {
    fn length(&self) -> io::Result<u64> {
        let ends = self.pieces.iter().map(|(offset, bytes)| offset + bytes.len() as u64);
        Ok(ends.fold(self.file.length()?, u64::max))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = self.file.read_at(offset, buffer)?;
        for (begin, bytes) in &self.pieces {
            let (from, until) = (offset.max(*begin), (offset + buffer.len() as u64).min(begin + bytes.len() as u64));
            if from >= until {
                continue;
            }
            let at = |lsn: u64, base: u64| usize::try_from(lsn - base).unwrap_or(usize::MAX);
            let (into, of) = (at(from, offset)..at(until, offset), at(from, *begin)..at(until, *begin));
            if let (Some(into), Some(of)) = (buffer.get_mut(into.clone()), bytes.get(of)) {
                into.copy_from_slice(of);
            }
            filled = filled.max(into.end);
        }
        Ok(filled)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
