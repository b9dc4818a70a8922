//! Finds out whether the stream still is what the ledger recorded: one that was put back to what it was gives out the same sequences
//! again, for other messages. What the ledger says it has of them is of messages that are gone.
//!
//! Asked is when the stream stored the newest message that the ledger has. Another time is another message.

use anyhow::Result;
use goldleaves_domain::Timestamp;
use goldleaves_ledger::{Landmark, Ledger, Sequences, StreamCourse};

use super::{Connection, Position, ReadError, Reader, ReaderOptions};

/// Messages that the ledger has and the stream lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// The newest of them.
    pub(super) landmark: Landmark,
    /// The first sequence that the stream gave out, or will give out, once more.
    pub(super) first: u64,
}

/// Finds messages that the ledger has and that the stream, which holds `held`, does not have at their sequences. What
/// the stream gave up since can't be compared, and counts as the same.
pub(super) async fn lost(
    connection: &Connection,
    ledger: &Ledger,
    course: &StreamCourse,
    held: Sequences,
) -> Result<Vec<Lost>> {
    let mut lost = Vec::new();
    for landmark in ledger.landmarks(course).await? {
        if landmark.sequence < held.first {
            continue;
        }
        // Not compared with the last one: the ledger may have got it since the stream was asked.
        if stored(connection, landmark.sequence).await? != Some(landmark.stored) {
            let first = fork(connection, landmark, held).await?;
            lost.push(Lost { landmark, first });
        }
    }
    Ok(lost)
}

/// A worker's login makes consumers, and deletes none.
pub(super) fn reading() -> ReaderOptions {
    ReaderOptions { may_delete: false, ..ReaderOptions::default() }
}

/// Returns when the stream stored this message; `None`: it has none there.
async fn stored(connection: &Connection, sequence: u64) -> Result<Option<Timestamp>> {
    let at = Position::Sequence(sequence);
    let mut reader = match Reader::open(connection, at, Some(at), reading()).await {
        Ok(Some(reader)) => reader,
        Ok(None) | Err(ReadError::Beyond { .. } | ReadError::Expired { .. } | ReadError::Empty { .. }) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let batch = reader.next().await?.unwrap_or_default();
    Ok(batch.first().map(|message| message.stored))
}

/// The first sequence whose message was stored after the one that is lost: what came before that is what it was.
async fn fork(connection: &Connection, landmark: Landmark, held: Sequences) -> Result<u64> {
    let (mut low, mut high) = (held.first, held.last.min(landmark.sequence) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        // One that is gone lies before all that are there.
        if stored(connection, middle).await?.is_some_and(|stored| stored > landmark.stored) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}
