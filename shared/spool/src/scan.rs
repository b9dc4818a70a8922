//! Reading frames in LSN order, over damage: what both the live reader and recovery walk with.
//!
//! An LSN names one content for ever. So where two segments hold the same LSN (one was written anew after a failed sync),
//! whichever has a good frame there is right, and each LSN is handed out once. Bounded memory: one window.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::frame::{ALIGN, FrameHead, HEAD, PAYLOAD_BYTES_MAX, u64_at};
use crate::fs::read_patiently;
use crate::segment::{PAGE, Segment};

const WINDOW: u64 = 256 * 1024;
const _: () = assert!(WINDOW > (PAYLOAD_BYTES_MAX + HEAD) as u64 * 2);

/// A frame as read.
#[derive(Debug, Clone)]
pub(crate) struct ScannedFrame {
    pub(crate) head: FrameHead,
    pub(crate) epoch: Uuid,
    pub(crate) payload: Bytes,
}

/// Bytes without a good frame, `from..to`, in `segment`.
#[derive(Debug)]
pub(crate) struct Gap {
    pub(crate) segment: Arc<Segment>,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

pub(crate) enum ScanStep {
    Frame(ScannedFrame),
    Gap(Gap),
    End,
}

/// The rule for bytes that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnReadError {
    /// Tell the caller, who tries again.
    Fail,
    /// Take them for zeros, page by page.
    Skip,
}

/// A position and a window of bytes.
pub(crate) struct Scan {
    pos: u64,
    window: Option<ScanWindow>,
    on_error: OnReadError,
    /// Segments with pages that were taken for zeros because they could not be read, by number.
    unreadable: BTreeSet<u64>,
}

struct ScanWindow {
    segment: Arc<Segment>,
    start: u64,
    bytes: Bytes,
}

impl Scan {
    pub(crate) fn new(pos: u64, on_error: OnReadError) -> Self {
        Self { pos, window: None, on_error, unreadable: BTreeSet::new() }
    }

    pub(crate) fn pos(&self) -> u64 {
        self.pos
    }

    pub(crate) fn unreadable(self) -> BTreeSet<u64> {
        self.unreadable
    }

    pub(crate) fn go_to(&mut self, pos: u64) {
        self.pos = pos;
    }

    pub(crate) fn set_on_error(&mut self, on_error: OnReadError) {
        self.on_error = on_error;
    }

    /// The next thing before `limit`. `segments` are in order of their first LSN.
    pub(crate) fn step(&mut self, segments: &[Arc<Segment>], limit: u64) -> io::Result<ScanStep> {
        loop {
            if self.pos >= limit {
                return Ok(ScanStep::End);
            }
            let window = self.window.as_ref().filter(|window| window.segment.covers(self.pos));
            if let Some(frame) = window.and_then(|window| window.frame(self.pos, limit.min(window.segment.end()))) {
                self.pos = frame.head.end();
                return Ok(ScanStep::Frame(frame));
            }
            let candidates = self.candidates(segments);
            for segment in &candidates {
                if let Some(frame) = self.frame_in(segment, self.pos, limit)? {
                    self.pos = frame.head.end();
                    return Ok(ScanStep::Frame(frame));
                }
            }
            let mut next =
                segments.iter().map(|segment| segment.first()).find(|first| *first > self.pos && *first < limit);
            for segment in &candidates {
                let found = self.resync(segment, next.unwrap_or(u64::MAX).min(limit))?;
                next = found.or(next);
            }
            let from = self.pos;
            let Some(segment) = candidates.into_iter().next() else {
                // Nothing lies before the limit, so the end of the last segment is not to be looked at again and again.
                let Some(next) = next else {
                    self.pos = limit;
                    return Ok(ScanStep::End);
                };
                self.pos = next;
                continue;
            };
            self.pos = next.unwrap_or_else(|| segment.end().min(limit));
            let to = self.pos.min(segment.end());
            return Ok(ScanStep::Gap(Gap { segment, from, to }));
        }
    }

    /// The segments that may hold the position, newest first.
    fn candidates(&self, segments: &[Arc<Segment>]) -> Vec<Arc<Segment>> {
        let mut covering: Vec<_> = segments.iter().filter(|segment| segment.covers(self.pos)).cloned().collect();
        covering.sort_by_key(|segment| std::cmp::Reverse(segment.header.number));
        covering
    }

    fn frame_in(&mut self, segment: &Arc<Segment>, lsn: u64, limit: u64) -> io::Result<Option<ScannedFrame>> {
        let limit = limit.min(segment.end());
        self.load(segment, lsn, limit)?;
        Ok(self.window.as_ref().and_then(|window| window.frame(lsn, limit)))
    }

    fn load(&mut self, segment: &Arc<Segment>, lsn: u64, limit: u64) -> io::Result<()> {
        let wanted = usize::try_from(limit.saturating_sub(lsn).min(WINDOW)).unwrap_or_default();
        let mut buffer = vec![0; wanted];
        let offset = segment.offset(lsn);
        let filled = match segment.file.read_at(offset, &mut buffer) {
            Err(_) if self.on_error == OnReadError::Skip => {
                let (filled, complete) = read_pages(segment, offset, &mut buffer);
                if !complete {
                    self.unreadable.insert(segment.header.number);
                }
                filled
            }
            read => read?,
        };
        buffer.truncate(filled);
        self.window = Some(ScanWindow { segment: Arc::clone(segment), start: lsn, bytes: buffer.into() });
        Ok(())
    }

    /// The first good frame of `segment` after the position and before `limit`.
    fn resync(&mut self, segment: &Arc<Segment>, limit: u64) -> io::Result<Option<u64>> {
        let limit = limit.min(segment.end());
        let mut lsn = self.pos + ALIGN;
        while lsn < limit {
            self.load(segment, lsn, limit)?;
            let Some(window) = self.window.as_ref().filter(|window| !window.bytes.is_empty()) else { break };
            let Some(found) = window.plausible(lsn) else {
                // The last bytes of a window may begin a head that the next one ends.
                lsn += (window.bytes.len() as u64).saturating_sub(HEAD as u64).max(ALIGN) / ALIGN * ALIGN;
                continue;
            };
            if self.frame_in(segment, found, limit)?.is_some() {
                return Ok(Some(found));
            }
            lsn = found + ALIGN;
        }
        Ok(None)
    }
}

impl ScanWindow {
    fn slice(&self, lsn: u64) -> &[u8] {
        usize::try_from(lsn.wrapping_sub(self.start)).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    fn frame(&self, lsn: u64, limit: u64) -> Option<ScannedFrame> {
        let bytes = self.slice(lsn);
        let head = FrameHead::decode(bytes, lsn).filter(|head| head.end() <= limit)?;
        let start = usize::try_from(lsn - self.start).ok()? + HEAD;
        let payload = self.bytes.slice(start..start + head.payload_bytes as usize);
        Some(ScannedFrame { head, epoch: self.segment.header.epoch, payload })
    }

    /// Where from `lsn` on a head says it was written for its place.
    fn plausible(&self, lsn: u64) -> Option<u64> {
        let step = usize::try_from(ALIGN).ok()?;
        let found = self.slice(lsn).windows(HEAD).step_by(step).zip((lsn..).step_by(step));
        found.into_iter().find(|(head, at)| u64_at(head, 8) == Some(*at)).map(|(_, at)| at)
    }
}

/// Reads what can be read; a page that cannot stays zero. How many bytes there were, and whether all could be read.
fn read_pages(segment: &Segment, offset: u64, buffer: &mut [u8]) -> (usize, bool) {
    let mut at = offset;
    let mut rest = &mut buffer[..];
    let (mut filled, mut complete) = (0, true);
    while !rest.is_empty() {
        let count = usize::try_from(PAGE - at % PAGE).unwrap_or(rest.len()).min(rest.len());
        let (page, behind) = std::mem::take(&mut rest).split_at_mut(count);
        match read_patiently(&*segment.file, at, page) {
            Ok(read) if read < page.len() => return (filled + read, complete),
            Ok(_) => {}
            Err(error) => {
                page.fill(0);
                complete = false;
                tracing::error!(path = %segment.path.display(), offset = at, %error, "a page of the spool cannot be read");
            }
        }
        filled += count;
        at += count as u64;
        rest = behind;
    }
    (filled, complete)
}
