//! Moments in UTC to the microsecond, and the periods that bills cover.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, FixedOffset, Months, NaiveDate, NaiveTime, TimeDelta, Timelike, Utc};

use crate::json::Append;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_HOUR: i64 = 3_600 * MICROS_PER_SECOND;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;
/// 0001-01-01T00:00:00Z.
const FIRST_MICROS: i64 = -62_135_596_800 * MICROS_PER_SECOND;
/// 9999-12-31T23:59:59.999999Z.
const LAST_MICROS: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// A moment in UTC, cut to microseconds, of the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The reason a text or a number is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Neither RFC 3339 nor a date.
    #[error("neither a date such as 2026-01-31 nor an RFC 3339 time such as 2026-01-31T12:00:00Z")]
    Malformed,
    /// Outside the years 1 to 9999.
    #[error("outside the years 1 to 9999")]
    OutOfRange,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);
    /// Microseconds in 24 hours.
    pub const DAY_MICROS: i64 = MICROS_PER_DAY;
    /// Microseconds in an hour.
    pub const HOUR_MICROS: i64 = MICROS_PER_HOUR;

    /// From microseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn from_unix_micros(micros: i64) -> Result<Self, TimestampError> {
        if (FIRST_MICROS..=LAST_MICROS).contains(&micros) { Ok(Self(micros)) } else { Err(TimestampError::OutOfRange) }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// The start of the UTC hour this moment lies in.
    pub const fn hour(self) -> Self {
        Self(self.0 - self.0.rem_euclid(MICROS_PER_HOUR))
    }

    /// The moment this many microseconds later (or earlier), `None` outside the years 1 to 9999.
    pub fn plus_micros(self, micros: i64) -> Option<Self> {
        self.0.checked_add(micros).and_then(|sum| Self::from_unix_micros(sum).ok())
    }

    /// The first moment of the UTC month, and of the month after it.
    fn month(self) -> Option<(Self, Self)> {
        let first = self.to_date_time()?.date_naive().with_day(1)?;
        let next = first.checked_add_months(Months::new(1))?;
        Some((Self::midnight(first)?, Self::midnight(next)?))
    }

    fn midnight(date: NaiveDate) -> Option<Self> {
        Self::from_date_time(date.and_time(NaiveTime::MIN).and_utc()).ok()
    }

    /// Cut to microseconds.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn from_date_time(moment: DateTime<Utc>) -> Result<Self, TimestampError> {
        Self::from_unix_micros(moment.timestamp_micros())
    }

    /// Returns it as the calendar's type, which both databases' drivers take.
    pub const fn to_date_time(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0)
    }
}

/// RFC 3339 (any offset), or a date, which means its first moment in UTC.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        if text.len() <= SIGNED_DATE.len() {
            return first_of_day(text);
        }
        // chrono also reads U+2212 as a minus, which RFC 3339 does not know.
        if !text.is_ascii() {
            return Err(TimestampError::Malformed);
        }
        let moment = match DateTime::parse_from_rfc3339(text) {
            Ok(moment) => moment,
            Err(_) => parse_with_separator(text).ok_or(TimestampError::Malformed)?,
        };
        Self::from_date_time(without_leap_second(moment.to_utc())?)
    }
}

/// The longest text that is a date alone.
const SIGNED_DATE: &str = "+2026-01-31";
const TIME_OF_MIDNIGHT: &str = "T00:00:00Z";

/// The first moment of a date; its year may carry a sign.
fn first_of_day(date: &str) -> Result<Timestamp, TimestampError> {
    let is_negative = date.starts_with('-');
    let unsigned = date.strip_prefix(['+', '-']).unwrap_or(date);
    let midnight = DateTime::parse_from_rfc3339(&format!("{unsigned}{TIME_OF_MIDNIGHT}"));
    let midnight = midnight.map_err(|_| TimestampError::Malformed)?;
    if is_negative { Err(TimestampError::OutOfRange) } else { Timestamp::from_date_time(midnight.to_utc()) }
}

/// RFC 3339, section 5.6, lets applications put another character than `T` between date and time.
fn parse_with_separator(text: &str) -> Option<DateTime<FixedOffset>> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    DateTime::parse_from_rfc3339(&format!("{date}T{time}")).ok()
}

/// A leap second (`:60`) is the last microsecond before it, so that it can be stored; it exists at the end of a UTC month
/// alone.
fn without_leap_second(moment: DateTime<Utc>) -> Result<DateTime<Utc>, TimestampError> {
    const NANOS_PER_SECOND: u32 = 1_000_000_000;
    if moment.nanosecond() < NANOS_PER_SECOND {
        return Ok(moment);
    }
    let cut = moment.with_nanosecond(NANOS_PER_SECOND - 1).ok_or(TimestampError::Malformed)?;
    let is_last_of_month = cut
        .checked_add_signed(TimeDelta::nanoseconds(1))
        .is_some_and(|next| next.day() == 1 && next.time() == NaiveTime::MIN);
    if is_last_of_month { Ok(cut) } else { Err(TimestampError::Malformed) }
}

/// Fixed width, so that text sorts as time does: `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(&self.shown()).map_err(|_| fmt::Error)?)
    }
}

impl Append for Timestamp {
    fn append(&self, text: &mut String) {
        text.push_str(std::str::from_utf8(&self.shown()).unwrap_or_default());
    }
}

impl Timestamp {
    fn shown(self) -> [u8; 27] {
        // Always there: the years are those that a moment may have.
        let moment = self.to_date_time().unwrap_or_default();
        let (date, time) = (moment.date_naive(), moment.time());
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let fields = [
            (0..4, date.year().unsigned_abs()),
            (5..7, date.month()),
            (8..10, date.day()),
            (11..13, time.hour()),
            (14..16, time.minute()),
            (17..19, time.second()),
            (20..26, time.nanosecond() / 1_000),
        ];
        for (place, value) in fields {
            put_digits(text.get_mut(place).unwrap_or_default(), value);
        }
        text
    }
}

/// Writes a number's last digits, as many as there is room for. Every event shows its time several times: `write!` with
/// seven numbers takes four times as long.
fn put_digits(room: &mut [u8], mut value: u32) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The time a bill covers: `[start, end)`, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    start: Timestamp,
    end: Timestamp,
}

/// The reason two texts are no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// `start_date` can't be read.
    #[error("start_date is {0}")]
    Start(TimestampError),
    /// `end_date` can't be read.
    #[error("end_date is {0}")]
    End(TimestampError),
    /// The end does not lie after the start.
    #[error("end_date must lie after start_date")]
    Empty,
}

impl Period {
    /// `[start, end)`.
    ///
    /// # Errors
    /// When `end` does not lie after `start`.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, PeriodError> {
        if start < end { Ok(Self { start, end }) } else { Err(PeriodError::Empty) }
    }

    /// From a query's two texts; a missing start is the first of `now`'s month, a missing end the first of the next.
    ///
    /// # Errors
    /// Unreadable texts, or an end that does not lie after the start.
    pub fn parse(start: Option<&str>, end: Option<&str>, now: Timestamp) -> Result<Self, PeriodError> {
        let (first, next) = now.month().ok_or(PeriodError::Start(TimestampError::OutOfRange))?;
        let start = start.map_or(Ok(first), str::parse).map_err(PeriodError::Start)?;
        let end = end.map_or(Ok(next), str::parse).map_err(PeriodError::End)?;
        Self::new(start, end)
    }

    /// The first moment that counts.
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// The first moment that no longer counts.
    pub const fn end(&self) -> Timestamp {
        self.end
    }
}
