//! The state behind the cursor: what the relay has handed out and what was acknowledged. Reading is in `reader.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::unix_secs;
use crate::past::Past;

/// Where the reader is and what was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct CursorState {
    pub(crate) position: u64,
    pub(crate) acknowledged: u64,
    /// The memo that is kept with the cursor.
    pub(crate) memo: Bytes,
    /// The number of relayed records of the whole log that lie before `acknowledged`.
    pub(crate) acknowledged_records: u64,
    /// Ends of what was handed out and not acknowledged.
    pub(crate) delivered: VecDeque<u64>,
    pub(crate) generation: u64,
    pub(crate) past: Past,
}

impl CursorState {
    /// Every relayed record before this LSN was acknowledged. With nothing in flight that is all that was read, also
    /// where the last thing read was not a relayed record.
    pub(crate) fn cursor(&self) -> u64 {
        if self.delivered.is_empty() { self.position.max(self.acknowledged) } else { self.acknowledged }
    }

    pub(crate) fn advance(&mut self, next: u64, memo: Option<Bytes>) -> bool {
        if let Some(memo) = memo {
            self.memo = memo;
        }
        let next = next.min(self.position);
        if next <= self.acknowledged {
            return false;
        }
        self.acknowledged = next;
        while self.delivered.front().is_some_and(|end| *end <= next) {
            self.delivered.pop_front();
            self.acknowledged_records += 1;
        }
        true
    }

    pub(crate) fn back_to(&mut self, lsn: u64, records_before: u64) {
        self.position = lsn;
        self.acknowledged = lsn;
        self.acknowledged_records = records_before;
        self.delivered.clear();
        self.generation += 1;
    }

    /// Every relayed record before this LSN was acknowledged so long ago that no receiver loses it any more.
    pub(crate) fn settled(&mut self, after: Duration) -> Past {
        let cursor = self.cursor();
        self.past.follow(cursor, unix_secs(), after.as_secs());
        self.past
    }
}
