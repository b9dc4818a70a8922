//! How far the stream was acknowledged, for a ledger to compare with what it has.

use crate::connection::Connection;
use crate::topology::{TopologyError, find_consumer, find_stream};

/// The stream, what it still holds, and up to where workers acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footing {
    /// When the stream was made, in JetStream's own words: another text is another stream.
    pub created: String,
    /// The first sequence that it holds.
    pub first: u64,
    /// The last sequence that it gave out.
    pub last: u64,
    /// Up to this sequence everything is acknowledged.
    pub acknowledged: u64,
    /// The text that was noted beside that with [`Topology::note`](crate::Topology::note).
    pub note: Option<String>,
}

impl Footing {
    /// Asks the server. `None`: there is no stream, or no consumer.
    ///
    /// # Errors
    /// JetStream can't be asked now.
    pub async fn read(connection: &Connection) -> Result<Option<Self>, TopologyError> {
        let api = connection.api();
        // In this order: what the stream gave up in between is not missed.
        let Some(consumer) = find_consumer(&api).await? else { return Ok(None) };
        let Some(stream) = find_stream(&api).await? else { return Ok(None) };
        let acknowledged = consumer.ack_floor.stream_seq;
        let note = consumer.note().map(str::to_owned);
        let (first, last) = (stream.state.first_seq.max(1), stream.state.last_seq);
        Ok(Some(Self { created: stream.created, first, last, acknowledged, note }))
    }
}
