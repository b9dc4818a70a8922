//! When which part of the log was appended, to the second, so that the age of what waits is known without reading a disk.
//!
//! Bounded: when there are too many marks, every second one goes.

use std::collections::VecDeque;

const MARKS_MAX: usize = 8_192;

/// Marks in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Times {
    marks: VecDeque<TimeMark>,
}

#[derive(Debug, Clone, Copy)]
struct TimeMark {
    lsn: u64,
    unix_secs: u64,
}

impl Times {
    /// A relayed record was appended.
    pub(crate) fn note(&mut self, lsn: u64, unix_secs: u64) {
        if self.marks.back().is_some_and(|last| last.unix_secs == unix_secs) {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            let mut is_kept = false;
            self.marks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.marks.push_back(TimeMark { lsn, unix_secs });
    }

    /// When the first relayed record at or after `lsn` was appended, or a little before. `None`: there is none.
    pub(crate) fn at(&self, lsn: u64) -> Option<u64> {
        let after = self.marks.partition_point(|mark| mark.lsn <= lsn);
        let mark = self.marks.get(after.saturating_sub(1))?;
        Some(mark.unix_secs)
    }

    /// Forgets what lies before `lsn`, which is not asked for any more.
    pub(crate) fn forget_before(&mut self, lsn: u64) {
        while self.marks.get(1).is_some_and(|second| second.lsn <= lsn) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_as_old_as_the_last_mark_before_it() {
        let mut times = Times::default();
        assert_eq!(times.at(5), None);
        for (lsn, unix_secs) in [(10, 100), (20, 100), (30, 101), (40, 105)] {
            times.note(lsn, unix_secs);
        }
        assert_eq!([5, 10, 25, 30, 39, 40, 99].map(|lsn| times.at(lsn)), [100, 100, 100, 101, 101, 105, 105].map(Some));
        times.forget_before(35);
        assert_eq!([5, 39, 40].map(|lsn| times.at(lsn)), [101, 101, 105].map(Some));
    }

    #[test]
    fn memory_is_bounded() {
        let mut times = Times::default();
        for second in 0..10 * MARKS_MAX as u64 {
            times.note(second * 8, second);
        }
        assert!(times.marks.len() <= MARKS_MAX);
        assert_eq!(times.at(0), Some(0));
    }
}
