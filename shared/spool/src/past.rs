//! Where the cursor was some minutes ago: a receiver that lost power may have lost what it acknowledged since.
//!
//! Two places are enough: one that the cursor passed long enough ago, and one that will be that place next. So what is kept
//! reaches back between once and twice as far as asked, and costs twenty bytes of the state file. It knows no clock.

use crate::frame::u64_at;

/// The bytes it takes in the state file.
const BYTES: usize = 20;

/// Two places that the cursor passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Past {
    /// The cursor passed it at least as long ago as asked.
    settled: u64,
    /// The place that is settled next.
    next: u64,
    /// When the cursor was there, seconds since 1970.
    next_secs: u32,
}

impl Past {
    /// The past of a cursor of which nothing else is known.
    pub(crate) const fn at(cursor: u64, now: u64) -> Self {
        Self { settled: cursor, next: cursor, next_secs: secs(now) }
    }

    /// The past of a reader that goes on from its settled place.
    pub(crate) const fn again(self, now: u64) -> Self {
        Self::at(self.settled, now)
    }

    /// Everything before it was acknowledged so long ago that no receiver loses it any more.
    pub(crate) const fn settled(self) -> u64 {
        self.settled
    }

    /// Follows the cursor: what was acknowledged `after` seconds ago is settled.
    pub(crate) fn follow(&mut self, cursor: u64, now: u64, after: u64) {
        if after == 0 {
            *self = Self::at(cursor, now);
            return;
        }
        // A clock that went back must not keep anything from being settled for longer than it should.
        self.next_secs = self.next_secs.min(secs(now));
        let due = now.saturating_sub(u64::from(self.next_secs)) >= after;
        if due && (self.settled, self.next) != (cursor, cursor) {
            *self = Self { settled: self.next.min(cursor), next: cursor, next_secs: secs(now) };
        }
    }

    pub(crate) fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let fields = self.settled.to_le_bytes().into_iter().chain(self.next.to_le_bytes());
        let fields = fields.chain(self.next_secs.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(slot, byte)| *slot = byte);
        bytes
    }

    /// `None`: nothing was kept.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let next_secs = u32::from_le_bytes(bytes.get(16..BYTES)?.try_into().ok()?);
        (next_secs > 0).then_some(Self { settled: u64_at(bytes, 0)?, next: u64_at(bytes, 8)?, next_secs })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "cut to what fits: until 2106")]
const fn secs(now: u64) -> u32 {
    if now > u32::MAX as u64 { u32::MAX } else { now as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: u64 = 300;

    #[test]
    fn a_place_is_settled_once_it_is_old_enough() {
        let mut past = Past::at(0, 1_000);
        for now in 1_001..1_300 {
            past.follow(now, now, AFTER);
            assert_eq!(past.settled(), 0, "{now}");
        }
        past.follow(1_300, 1_300, AFTER);
        assert_eq!(past.settled(), 0, "the place of the start is the first to be settled");
        past.follow(1_600, 1_600, AFTER);
        assert_eq!(past.settled(), 1_300);
        past.follow(1_600, 2_000, AFTER);
        assert_eq!(past.settled(), 1_600, "also while nothing comes");
        let at_rest = past;
        past.follow(1_600, 9_000, AFTER);
        past.follow(1_600, 9_900, AFTER);
        assert_eq!(past, at_rest, "nothing is written for what did not move");
    }

    #[test]
    fn a_clock_that_went_back_delays_nothing_for_longer_than_asked() {
        let mut past = Past::at(7, 50_000);
        past.follow(8, 10_000, AFTER);
        past.follow(9, 10_300, AFTER);
        past.follow(10, 10_600, AFTER);
        assert_eq!(past.settled(), 9);
    }

    #[test]
    fn it_is_read_as_it_was_written_and_known_from_nothing() {
        let past = Past { settled: 5, next: 9, next_secs: 77 };
        assert_eq!(Past::decode(&past.encode()), Some(past));
        assert_eq!(Past::decode(&[0; 26]), None);
    }
}
