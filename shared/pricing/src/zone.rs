//! Days and months of a time zone, as instants. The rules of the zones are those of the IANA database that is built in.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, TimeDelta, TimeZone as _};
use chrono_tz::Tz;
use goldleaves_domain::{Period, Timestamp};

/// The version of the IANA database that is built in.
pub const TZDB_VERSION: &str = chrono_tz::IANA_TZDB_VERSION;

/// A time zone of the IANA database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeZone(Tz);

/// A text that names no time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no time zone of the IANA database, such as UTC or Europe/Berlin")]
pub struct TimeZoneError;

/// A day of the calendar: `2026-01-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(NaiveDate);

/// A month of the calendar: `2026-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(NaiveDate);

/// A text that is no day, or no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// No day.
    #[error("not a date such as 2026-01-31")]
    Day,
    /// No month.
    #[error("not a month such as 2026-01")]
    Month,
    /// Outside the years that a moment can be in.
    #[error("outside the years 1 to 9999")]
    OutOfRange,
}

/// A local day, cut to a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDay {
    /// The day.
    pub day: Day,
    /// The part of the range that lies in it.
    pub period: Period,
}

impl TimeZone {
    /// The zone without rules.
    pub const UTC: Self = Self(Tz::UTC);

    /// The zone's name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The first moment of a day: midnight, or what comes first where the clocks skip it.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn start_of_day(self, day: Day) -> Result<Timestamp, CalendarError> {
        let midnight = day.0.and_time(chrono::NaiveTime::MIN);
        // A whole day may be missing, where a place went to the other side of the date line.
        for minutes in 0..=24 * 60 {
            let local = midnight.checked_add_signed(TimeDelta::minutes(minutes)).ok_or(CalendarError::OutOfRange)?;
            if let MappedLocalTime::Single(moment) | MappedLocalTime::Ambiguous(moment, _) =
                self.0.from_local_datetime(&local)
            {
                let micros = moment.timestamp_micros();
                return Timestamp::from_unix_micros(micros).map_err(|_| CalendarError::OutOfRange);
            }
        }
        Err(CalendarError::OutOfRange)
    }

    /// The month as a range of instants.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn month(self, month: Month) -> Result<Period, CalendarError> {
        let start = self.start_of_day(Day(month.0))?;
        let end = self.start_of_day(Day(month.next()?.0))?;
        Period::new(start, end).map_err(|_| CalendarError::OutOfRange)
    }

    /// The month that a moment lies in.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn month_of(self, moment: Timestamp) -> Result<Month, CalendarError> {
        self.day_of(moment)?.0.with_day(1).map(Month).ok_or(CalendarError::OutOfRange)
    }

    /// The day that a moment lies in.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub(crate) fn day_of(self, moment: Timestamp) -> Result<Day, CalendarError> {
        let utc = DateTime::from_timestamp_micros(moment.unix_micros()).ok_or(CalendarError::OutOfRange)?;
        Ok(Day(utc.with_timezone(&self.0).date_naive()))
    }

    /// The days of a range, in their order, the first and the last one cut.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn days(self, range: &Period) -> Result<Vec<LocalDay>, CalendarError> {
        let mut days = Vec::new();
        let (mut day, mut start) = (self.day_of(range.start())?, range.start());
        while start < range.end() {
            let next = day.next()?;
            let end = self.start_of_day(next)?.min(range.end());
            if let Ok(period) = Period::new(start, end) {
                days.push(LocalDay { day, period });
            }
            (day, start) = (next, end.max(start));
        }
        Ok(days)
    }
}

impl FromStr for TimeZone {
    type Err = TimeZoneError;

    fn from_str(text: &str) -> Result<Self, TimeZoneError> {
        text.parse().map(Self).map_err(|_| TimeZoneError)
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl Day {
    fn next(self) -> Result<Self, CalendarError> {
        self.0.checked_add_days(Days::new(1)).map(Self).ok_or(CalendarError::OutOfRange)
    }
}

impl FromStr for Day {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let (month, day) = text.rsplit_once('-').filter(|(_, day)| is_digits(day, 2)).ok_or(CalendarError::Day)?;
        let first = month.parse::<Month>().map_err(|_| CalendarError::Day)?.0;
        day.parse().ok().and_then(|day| first.with_day(day)).map(Self).ok_or(CalendarError::Day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

impl Month {
    /// The month after it.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn next(self) -> Result<Self, CalendarError> {
        self.0.checked_add_months(chrono::Months::new(1)).map(Self).ok_or(CalendarError::OutOfRange)
    }
}

impl FromStr for Month {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let (year, month) = text.split_once('-').ok_or(CalendarError::Month)?;
        if !is_digits(year, 4) || !is_digits(month, 2) {
            return Err(CalendarError::Month);
        }
        let (year, month) = (year.parse::<i32>(), month.parse::<u32>());
        let (Ok(year @ 1..), Ok(month)) = (year, month) else { return Err(CalendarError::Month) };
        NaiveDate::from_ymd_opt(year, month, 1).map(Self).ok_or(CalendarError::Month)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

fn is_digits(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        name.parse().unwrap()
    }

    fn start(name: &str, day: &str) -> String {
        zone(name).start_of_day(day.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn midnights_are_local() {
        assert_eq!(start("UTC", "2026-03-01"), "2026-03-01T00:00:00.000000Z");
        assert_eq!(start("Asia/Kolkata", "2026-03-01"), "2026-02-28T18:30:00.000000Z");
        assert_eq!(start("Europe/Berlin", "2026-03-29"), "2026-03-28T23:00:00.000000Z");
        assert_eq!(start("Europe/Berlin", "2026-03-30"), "2026-03-29T22:00:00.000000Z");
        // Clocks went from 00:00 to 01:00, and a day was left out.
        assert_eq!(start("America/Sao_Paulo", "2018-11-04"), "2018-11-04T03:00:00.000000Z");
        assert_eq!(start("Pacific/Apia", "2011-12-30"), start("Pacific/Apia", "2011-12-31"));
        // Midnight was there twice: the day begins with the first one.
        assert_eq!(start("America/Havana", "2026-11-01"), "2026-11-01T04:00:00.000000Z");
    }

    #[test]
    fn days_and_months_are_contiguous() {
        for name in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
        {
            let zone = zone(name);
            let mut month: Month = "2011-01".parse().unwrap();
            let mut end = zone.month(month).unwrap().start();
            for _ in 0..24 {
                let period = zone.month(month).unwrap();
                assert_eq!(period.start(), end, "{name} {month}");
                let days = zone.days(&period).unwrap();
                assert_eq!(days.first().unwrap().period.start(), period.start(), "{name} {month}");
                assert_eq!(days.last().unwrap().period.end(), period.end(), "{name} {month}");
                for pair in days.windows(2) {
                    assert_eq!(pair[0].period.end(), pair[1].period.start(), "{name} {month}");
                    assert!(pair[0].day < pair[1].day);
                }
                assert_eq!(zone.month_of(period.start()).unwrap(), month);
                (end, month) = (period.end(), month.next().unwrap());
            }
        }
    }

    #[test]
    fn what_is_no_date_is_told() {
        for text in ["2026-2-01", "2026-02-30", "02026-02-01", "2026-02-1", "", "2026-02-01T00:00:00Z", "0000-01-01"] {
            assert_eq!(text.parse::<Day>(), Err(CalendarError::Day), "{text}");
        }
        for text in ["2026", "2026-13", "2026-1", "2026-01-01", "+026-01", "0000-01"] {
            assert_eq!(text.parse::<Month>(), Err(CalendarError::Month), "{text}");
        }
        for text in ["", "utc ", "Berlin", "Europe/Nowhere", "+01:00"] {
            assert!(text.parse::<TimeZone>().is_err(), "{text}");
        }
    }
}
