//! How full the stream is, for how long its size lasts, and the purge of history that the ledger has.
//!
//! What may go is for the caller to say: nothing here knows what is billed.

use std::time::Duration;

use goldleaves_domain::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{STREAM, StreamFound, TopologyError, find_stream};
use crate::api::ApiError;
use crate::connection::Connection;

/// History gives way above this part of the stream's size, …
const FULL_PERCENT: u64 = 80;
/// … down to this one.
const ROOMY_PERCENT: u64 = 70;

/// The bytes and messages of the stream, and how many it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRoom {
    /// When the stream was made, in JetStream's own words.
    pub created: String,
    /// Bytes of its messages, as JetStream counts them.
    pub bytes: u64,
    /// The most it may have; `None`: no limit.
    pub bytes_max: Option<u64>,
    /// The time for which it keeps a message at the most; `None`: for ever.
    pub age_max: Option<Duration>,
    /// Messages.
    pub messages: u64,
    /// The oldest message's sequence; the next one's when there is none.
    pub first_sequence: u64,
    /// The newest message's sequence; 0 when there never was one.
    pub last_sequence: u64,
    /// When the oldest message was stored.
    pub oldest: Option<Timestamp>,
    /// When the newest message was stored.
    pub newest: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Purged {
    #[serde(default)]
    purged: u64,
}

impl StreamRoom {
    /// Asks the server. `None`: there is no stream.
    ///
    /// # Errors
    /// JetStream can't be asked now.
    pub async fn read(connection: &Connection) -> Result<Option<Self>, TopologyError> {
        Ok(find_stream(&connection.api()).await?.map(|found| Self::of(&found)))
    }

    fn of(found: &StreamFound) -> Self {
        let state = &found.state;
        // An empty stream says the year 1.
        let stored = |text: &str| text.parse().ok().filter(|_| state.messages > 0);
        Self {
            created: found.created.clone(),
            bytes: state.bytes,
            bytes_max: found.bytes_max(),
            age_max: found.age_max(),
            messages: state.messages,
            first_sequence: state.first_seq,
            last_sequence: state.last_seq,
            oldest: stored(&state.first_ts),
            newest: stored(&state.last_ts),
        }
    }

    /// From the first to the last message of those it holds.
    fn span(&self) -> Option<Duration> {
        let micros = self.newest?.unix_micros().checked_sub(self.oldest?.unix_micros())?;
        u64::try_from(micros).ok().filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// Messages per second, on average over what it holds; `None` while it holds less than two.
    pub fn messages_per_second(&self) -> Option<f64> {
        Some(self.messages as f64 / self.span()?.as_secs_f64())
    }

    /// For how long its size lasts at the rate of what it holds; `None` where there is no size or no rate.
    pub fn lasts(&self) -> Option<Duration> {
        let seconds = self.span()?.as_secs_f64() * self.bytes_max? as f64 / self.bytes.max(1) as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Returns whether new messages are, or soon will be, refused.
    pub fn is_full(&self) -> bool {
        self.is_above(98)
    }

    fn is_above(&self, percent: u64) -> bool {
        self.bytes_max.is_some_and(|most| u128::from(self.bytes) * 100 > u128::from(most) * u128::from(percent))
    }

    /// The sequence before which messages have to go; `None` while there is room enough. Messages differ in size, so that it
    /// may take several looks.
    pub fn excess_before(&self) -> Option<u64> {
        if !self.is_above(FULL_PERCENT) {
            return None;
        }
        let wanted = u128::from(self.bytes_max?) * u128::from(ROOMY_PERCENT) / 100;
        let over = u128::from(self.bytes).saturating_sub(wanted);
        let sequences = u128::from((self.last_sequence + 1).saturating_sub(self.first_sequence));
        let part = (over * sequences).div_ceil(u128::from(self.bytes.max(1))).min(sequences);
        Some(self.first_sequence + u64::try_from(part).unwrap_or(0))
    }

    /// Deletes every message before this sequence. How many that were.
    ///
    /// # Errors
    /// JetStream can't be asked now, or refuses: the login may not purge, or the stream was made with `deny_purge`.
    pub async fn purge(connection: &Connection, before: u64) -> Result<u64, ApiError> {
        let api = connection.api();
        let purged: Purged = api.ask(&format!("STREAM.PURGE.{STREAM}"), &json!({ "seq": before })).await?;
        Ok(purged.purged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes: u64, messages: u64) -> StreamRoom {
        StreamRoom {
            created: String::new(),
            bytes,
            bytes_max: Some(1_000_000),
            age_max: None,
            messages,
            first_sequence: 101,
            last_sequence: 100 + messages,
            oldest: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            newest: Some("2026-01-02T00:00:00Z".parse().unwrap()),
        }
    }

    #[test]
    fn history_gives_way_above_eighty_percent_down_to_seventy() {
        assert_eq!(room(800_000, 800).excess_before(), None);
        assert_eq!(room(801_000, 801).excess_before(), Some(101 + 101));
        assert_eq!(room(1_000_000, 1_000).excess_before(), Some(101 + 300));
        assert_eq!(room(900_000, 1).excess_before(), Some(102), "one message");
        let unlimited = StreamRoom { bytes_max: None, ..room(900_000, 900) };
        assert_eq!(unlimited.excess_before(), None);
        assert_eq!(unlimited.lasts(), None);
        assert!(!unlimited.is_full());
    }

    #[test]
    fn a_size_lasts_as_long_as_the_rate_says() {
        assert_eq!(room(100_000, 100).lasts(), Some(Duration::from_secs(10 * 86_400)));
        let per_second = room(100_000, 86_400).messages_per_second().unwrap();
        assert!((per_second - 1.0).abs() < 1e-9, "{per_second}");
        let one = StreamRoom { newest: room(1, 1).oldest, ..room(1_000, 1) };
        assert_eq!(one.lasts(), None);
        assert_eq!(one.messages_per_second(), None);
    }
}
