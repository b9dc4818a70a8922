//! The room for what is appended, as one value that everybody asks: appends, the keeper, and readiness.
//!
//! It is taken from the log under its mutex and looks at memory only.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::AppendError;
use crate::frame::{EpochMark, OpenId, Start, frame_bytes};
use crate::segment::{DATA, Segment};

/// The part of a segment that its beginning may take.
const OPENING_SHARE: u64 = 4;

/// The wish of an append: the room of its frame, and what is open and reserved once it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomClaim {
    pub(crate) frame: u64,
    pub(crate) open: usize,
    pub(crate) reserved: u64,
}

/// The beginning of a new segment: how the epochs stand, and where the open intents lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentOpening {
    pub(crate) epochs: usize,
    /// Open intents that one frame lists.
    pub(crate) ids_max: usize,
}

impl SegmentOpening {
    /// The bytes of it when so many intents are open.
    pub(crate) fn bytes(self, open: usize) -> u64 {
        let lists = open.div_ceil(self.ids_max) as u64 * frame_bytes(0) + (open * OpenId::BYTES) as u64;
        frame_bytes(Start::BYTES) + self.epochs as u64 * frame_bytes(EpochMark::BYTES) + lists
    }
}

/// The room at one moment.
pub(crate) struct Room<'a> {
    /// Left in the active segment.
    pub(crate) active: u64,
    pub(crate) spares: &'a VecDeque<Arc<Segment>>,
    pub(crate) opening: SegmentOpening,
    /// Intents that are open now.
    pub(crate) open: usize,
    /// The largest frame. So much may be lost at the end of a segment because the next frame does not fit.
    pub(crate) frame_max: u64,
    pub(crate) segment_bytes: u64,
    /// True if the stage takes another frame.
    pub(crate) stage_has_room: bool,
    /// The reason there is no further spare.
    pub(crate) obstacle: Option<AppendError>,
}

impl Room<'_> {
    /// The room that would be left for further reservations once this is appended; the promise holds then.
    pub(crate) fn after(&self, claim: RoomClaim) -> Result<u64, AppendError> {
        let RoomClaim { frame, open, reserved } = claim;
        if !self.stage_has_room {
            return Err(AppendError::Behind);
        }
        let room = if frame <= self.active {
            (self.active - frame).saturating_sub(self.frame_max) + self.in_spares(0, open)
        } else if let Some(first) = self.spares.front() {
            let opened = self.in_spare(first, self.open);
            let left = opened.checked_sub(frame).ok_or(AppendError::Full)?;
            left.saturating_sub(self.frame_max) + self.in_spares(1, open)
        } else {
            return Err(self.none());
        };
        // The list of what is open must leave a new segment most of its room.
        if open > self.open && self.opening.bytes(open) > self.segment_bytes / OPENING_SHARE {
            return Err(AppendError::Full);
        }
        room.checked_sub(reserved).ok_or_else(|| self.none())
    }

    /// The room there is for settlements of what is open.
    pub(crate) fn for_settlements(&self) -> u64 {
        self.active.saturating_sub(self.frame_max) + self.in_spares(0, self.open)
    }

    /// Returns the reason there is no room.
    pub(crate) fn none(&self) -> AppendError {
        self.obstacle.unwrap_or(AppendError::Behind)
    }

    fn in_spares(&self, skip: usize, open: usize) -> u64 {
        self.spares.iter().skip(skip).map(|spare| self.in_spare(spare, open).saturating_sub(self.frame_max)).sum()
    }

    fn in_spare(&self, spare: &Segment, open: usize) -> u64 {
        (spare.header.capacity - DATA).saturating_sub(self.opening.bytes(open))
    }
}
