//! Moments in UTC to the microsecond, and the periods that bills cover.

use std::fmt;
use std::str::FromStr;

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, Time};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_HOUR: i64 = 3_600 * MICROS_PER_SECOND;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// A moment in UTC, cut to microseconds, of the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text or a number is no moment.
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
        let this = Self(micros);
        match this.to_date_time() {
            Some(moment) if (1..=9999).contains(&moment.year()) => Ok(this),
            _ => Err(TimestampError::OutOfRange),
        }
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
        let today = self.to_date_time()?.date();
        let first = Date::from_calendar_date(today.year(), today.month(), 1).ok()?;
        let next_year = if today.month() == Month::December { today.year() + 1 } else { today.year() };
        let next = Date::from_calendar_date(next_year, today.month().next(), 1).ok()?;
        Some((Self::midnight(first)?, Self::midnight(next)?))
    }

    fn midnight(date: Date) -> Option<Self> {
        Self::from_date_time(date.with_time(Time::MIDNIGHT).assume_utc()).ok()
    }

    /// Cut to microseconds.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn from_date_time(moment: OffsetDateTime) -> Result<Self, TimestampError> {
        let micros = moment.unix_timestamp_nanos().div_euclid(1_000);
        i64::try_from(micros).map_err(|_| TimestampError::OutOfRange).and_then(Self::from_unix_micros)
    }

    /// As the `time` crate's type.
    pub fn to_date_time(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000).ok()
    }
}

/// RFC 3339 (any offset), or a date, which means its first moment in UTC.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
            return Self::midnight(date).ok_or(TimestampError::OutOfRange);
        }
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TimestampError::Malformed).and_then(Self::from_date_time)
    }
}

/// Fixed width, so that text sorts as time does: `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = self.to_date_time().ok_or(fmt::Error)?;
        let (date, time) = (moment.date(), moment.time());
        write!(
            out,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.microsecond()
        )
    }
}

/// The time a bill covers: `[start, end)`, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    start: Timestamp,
    end: Timestamp,
}

/// Why two texts are no period.
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
