//! Moments in UTC to the microsecond, and the periods that bills cover.

use std::fmt;
use std::str::FromStr;

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, Time};

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
        let micros = u32::try_from(self.0.rem_euclid(MICROS_PER_SECOND)).ok()?;
        let second = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(MICROS_PER_SECOND)).ok()?;
        second.replace_microsecond(micros).ok()
    }
}

/// RFC 3339 (any offset), or a date, which means its first moment in UTC.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // What is longer than a date with a sign is none; most texts are times, and trying is not free.
        if text.len() <= "+2026-01-31".len()
            && let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]"))
        {
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
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let fields = [
            (0..4, date.year().unsigned_abs()),
            (5..7, u8::from(date.month()).into()),
            (8..10, date.day().into()),
            (11..13, time.hour().into()),
            (14..16, time.minute().into()),
            (17..19, time.second().into()),
            (20..26, time.microsecond()),
        ];
        for (place, value) in fields {
            put_digits(text.get_mut(place).unwrap_or_default(), value);
        }
        out.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
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
