//! From what somebody asks for to sequences: which part of the stream it is, and whether the stream still holds it.

use std::fmt;
use std::str::FromStr;

use goldleaves_domain::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::ReadError;
use crate::api::{Api, ApiError, MESSAGE_NOT_FOUND};
use crate::topology::{STREAM, StreamState, TopologyError, find_stream};

/// A place in the stream, as people name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The oldest message the stream still holds.
    First,
    /// The message of this sequence.
    Sequence(u64),
    /// The messages that the stream stored at this moment or after it; as an end, those that it stored before.
    Time(Timestamp),
}

/// The reason a text is no place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "none of: a sequence such as 120000, a time such as 2026-01-31T12:00:00Z, a date such as 2026-01-31 (its first \
     moment in UTC), the word first"
)]
pub struct PositionError;

/// A message's place and when it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its sequence.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored: Timestamp,
}

/// Sequences from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first to be read.
    pub first: u64,
    /// The last to be read.
    pub last: u64,
}

/// The two ends of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamEnds {
    first: Mark,
    last: Mark,
}

impl Span {
    /// Returns the number of sequences it has.
    pub const fn len(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }

    /// Returns whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `None`: there is nothing in it.
    pub(super) async fn find(api: &Api, from: Position, to: Option<Position>) -> Result<Option<Self>, ReadError> {
        let stream = find_stream(api).await.map_err(unavailable)?.ok_or(ReadError::NoStream)?;
        let Some(held) = StreamEnds::of(&stream.state)? else {
            return match from {
                Position::Sequence(_) => Err(ReadError::Empty { next: stream.state.last_seq + 1 }),
                Position::First | Position::Time(_) => Ok(None),
            };
        };
        let first = held.start(api, from).await?;
        let last = held.end(api, to).await?;
        match (from, to) {
            (Position::Sequence(_), Some(Position::Sequence(_))) if first > last => {
                Err(ReadError::Reversed { from, to: Position::Sequence(last) })
            }
            (Position::Time(start), Some(Position::Time(end))) if start >= end => {
                Err(ReadError::Reversed { from, to: Position::Time(end) })
            }
            _ => Ok((first <= last).then_some(Self { first, last })),
        }
    }
}

impl StreamEnds {
    fn of(state: &StreamState) -> Result<Option<Self>, ReadError> {
        if state.messages == 0 {
            return Ok(None);
        }
        let mark = |sequence, stored: &str| Ok(Mark { sequence, stored: time(stored)? });
        let (first, last) = (mark(state.first_seq, &state.first_ts)?, mark(state.last_seq, &state.last_ts)?);
        Ok(Some(Self { first, last }))
    }

    /// The first sequence that is meant.
    async fn start(&self, api: &Api, from: Position) -> Result<u64, ReadError> {
        match from {
            Position::First => Ok(self.first.sequence),
            Position::Sequence(_) => self.known(from),
            Position::Time(at) => {
                self.reaches_back_to(from, at)?;
                self.first_since(api, at).await
            }
        }
    }

    /// The last sequence that is meant.
    async fn end(&self, api: &Api, to: Option<Position>) -> Result<u64, ReadError> {
        match to {
            None => Ok(self.last.sequence),
            Some(Position::First) => Ok(self.first.sequence),
            Some(to @ Position::Sequence(_)) => self.known(to),
            Some(to @ Position::Time(at)) => {
                self.reaches_back_to(to, at)?;
                Ok(self.first_since(api, at).await? - 1)
            }
        }
    }

    fn known(&self, asked: Position) -> Result<u64, ReadError> {
        match asked {
            Position::Sequence(sequence) if sequence < self.first.sequence => {
                Err(ReadError::Expired { asked, first: self.first })
            }
            Position::Sequence(sequence) if sequence > self.last.sequence => {
                Err(ReadError::Beyond { asked, last: self.last })
            }
            Position::Sequence(sequence) => Ok(sequence),
            Position::First | Position::Time(_) => Ok(self.first.sequence),
        }
    }

    /// Before its first message a stream that lost none held nothing; another one may have held anything.
    fn reaches_back_to(&self, asked: Position, at: Timestamp) -> Result<(), ReadError> {
        if at < self.first.stored && self.first.sequence > 1 {
            return Err(ReadError::Expired { asked, first: self.first });
        }
        Ok(())
    }

    /// The first sequence stored at this moment or after it; the one after the last when there is none.
    async fn first_since(&self, api: &Api, at: Timestamp) -> Result<u64, ReadError> {
        if at > self.last.stored {
            return Ok(self.last.sequence + 1);
        }
        let (mut low, mut high) = (self.first.sequence, self.last.sequence);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = message_from(api, middle).await?;
            if found.stored >= at {
                high = middle;
            } else {
                low = found.sequence + 1;
            }
        }
        Ok(low)
    }
}

/// The first message of this sequence or a higher one.
async fn message_from(api: &Api, sequence: u64) -> Result<Mark, ReadError> {
    #[derive(Deserialize)]
    struct SpanAnswer {
        message: Stored,
    }
    #[derive(Deserialize)]
    struct Stored {
        seq: u64,
        time: String,
    }
    let asked = json!({ "seq": sequence, "next_by_subj": ">" });
    match api.ask::<SpanAnswer>(&format!("STREAM.MSG.GET.{STREAM}"), &asked).await {
        Ok(SpanAnswer { message }) => Ok(Mark { sequence: message.seq, stored: time(&message.time)? }),
        // The rest of the stream expired while it was looked at.
        Err(error) if error.code() == Some(MESSAGE_NOT_FOUND) => Err(ReadError::Changed),
        Err(error) => Err(ReadError::of(error)),
    }
}

fn unavailable(error: TopologyError) -> ReadError {
    match error {
        TopologyError::Unavailable(source) | TopologyError::Refused { source, .. } => ReadError::of(source),
        TopologyError::Incompatible { .. } => ReadError::Changed,
    }
}

fn time(text: &str) -> Result<Timestamp, ReadError> {
    let unreadable = || ApiError::unavailable(format!("{text:?} is no time"));
    text.parse().map_err(|_| ReadError::Unavailable(unreadable()))
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        if text == "first" {
            return Ok(Self::First);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().filter(|sequence| *sequence > 0).map(Self::Sequence).ok_or(PositionError);
        }
        text.parse().map(Self::Time).map_err(|_| PositionError)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => out.write_str("the first message"),
            Self::Sequence(sequence) => write!(out, "sequence {sequence}"),
            Self::Time(at) => write!(out, "{at}"),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sequence {}, stored {}", self.sequence, self.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_sequence_a_time_a_date_or_the_first() {
        let time = |text: &str| Ok(Position::Time(text.parse().unwrap()));
        assert_eq!("first".parse(), Ok(Position::First));
        assert_eq!("120000".parse(), Ok(Position::Sequence(120_000)));
        assert_eq!("2026-01-31".parse(), time("2026-01-31T00:00:00Z"));
        assert_eq!("2026-01-31T13:00:00+01:00".parse(), time("2026-01-31T12:00:00Z"));
        for wrong in ["", "0", "-1", "last", "yesterday", "2026-13-01", "18446744073709551616", "1.5"] {
            assert_eq!(wrong.parse::<Position>(), Err(PositionError), "{wrong}");
        }
    }
}
