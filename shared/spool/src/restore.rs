//! Writes what a dead process left in its stage into the segments that lack it.

use std::io;
use std::sync::Arc;

use crate::frame::FrameHead;
use crate::segment::Segment;
use crate::stage::Leftover;

/// Writes into the segments what was appended and did not get there. May be done again.
pub(crate) fn restore(leftover: &Leftover, segments: &[Arc<Segment>]) -> io::Result<u64> {
    let mut restored = 0;
    for (first, frames) in leftover.chunks() {
        let mut end = 0;
        // What lies behind was appended before the chunk was used again, at another place: it says so itself.
        while let Some(head) = frames.get(end..).and_then(|frame| FrameHead::decode(frame, first + end as u64)) {
            end += usize::try_from(head.frame_bytes()).unwrap_or(frames.len());
        }
        let frames = frames.get(..end).unwrap_or_default();
        let may_hold = |segment: &&Arc<Segment>| {
            segment.header.epoch == leftover.epoch && segment.first() <= first && first + end as u64 <= segment.limit()
        };
        let newest = segments.iter().filter(may_hold).max_by_key(|segment| segment.header.number);
        if let Some(segment) = newest.filter(|_| end > 0) {
            restored += restore_frames(segment, first, frames)?;
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
