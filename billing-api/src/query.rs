//! A query's parameters: each known one at most once, readable, or a clear 400 that names what is known.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use goldleaves_domain::{Period, PeriodError, Timestamp};
use goldleaves_pricing::{CalendarError, Day, Month, TimeZone};

use crate::answer::ApiError;

/// The longest range of what is told item by item; one sum takes any range.
const RANGE_MICROS_MAX: i64 = 400 * Timestamp::DAY_MICROS;
/// Items of a page, unless said, and at most.
const PAGE_ITEMS: u32 = 100;
const PAGE_ITEMS_MAX: u32 = 1_000;

/// The parameters of a query.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query that may have these parameters.
    pub(crate) fn parse(query: &str, known: &[&str]) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        let wrong = |name: &str, what: &str| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(ApiError::Parameter(format!("{name:?} {what}; known parameters: {known}")))
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return wrong(&name, "is unknown");
            }
            if value.chars().any(|char| char.is_control() || char == char::REPLACEMENT_CHARACTER) {
                return wrong(&name, "has a character that is none of a text");
            }
            if parameters.insert(name.as_ref().to_owned(), value.into_owned()).is_some() {
                return wrong(&name, "is given more than once");
            }
        }
        Ok(Self(parameters))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter as what it stands for.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let read = |text: &str| text.parse().map_err(|error| ApiError::Parameter(format!("{name} is {error}")));
        self.get(name).map(read).transpose()
    }

    /// All parameters, by their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The most items of the page that is asked for.
    pub(crate) fn limit(&self) -> Result<u32, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(PAGE_ITEMS) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse().ok().filter(|limit| digits && (1..=PAGE_ITEMS_MAX).contains(limit));
        limit.ok_or_else(|| ApiError::Parameter(format!("limit must be a number from 1 to {PAGE_ITEMS_MAX}")))
    }

    /// The range that is asked for; what is missing is taken from `now`'s month. Dates are days of the zone.
    pub(crate) fn range(&self, zone: TimeZone, now: Timestamp) -> Result<Period, ApiError> {
        let (start, end) = (self.get("start_date"), self.get("end_date"));
        let range = match self.parsed::<Month>("month")? {
            Some(_) if start.is_some() || end.is_some() => {
                return Err(ApiError::Parameter("month goes with neither start_date nor end_date".to_owned()));
            }
            Some(month) => zone.month(month).map_err(|error| ApiError::Parameter(format!("month is {error}")))?,
            None => range(zone, start, end, now)?,
        };
        Ok(range)
    }
}

/// Refuses a range that is too long for a list, or for groups.
pub(crate) fn check_length(range: &Period) -> Result<(), ApiError> {
    if range.end().unix_micros() - range.start().unix_micros() > RANGE_MICROS_MAX {
        let detail = "start_date and end_date may lie at most 400 days apart here; usage-summary, and usage-report without \
             group_by, take any range";
        return Err(ApiError::Parameter(detail.to_owned()));
    }
    Ok(())
}

/// The range between two texts. A missing start is the first of `now`'s month, a missing end the first of the next.
pub(crate) fn range(
    zone: TimeZone,
    start: Option<&str>,
    end: Option<&str>,
    now: Timestamp,
) -> Result<Period, ApiError> {
    let outside = |error: CalendarError| ApiError::Parameter(format!("the range is {error}"));
    let month = zone.month_of(now).and_then(|month| zone.month(month)).map_err(outside)?;
    let start = start.map_or(Ok(month.start()), |text| moment(zone, "start_date", text))?;
    let end = end.map_or(Ok(month.end()), |text| moment(zone, "end_date", text))?;
    Period::new(start, end).map_err(|error: PeriodError| ApiError::Parameter(error.to_string()))
}

/// A moment, or the first one of a day of the zone.
pub(crate) fn moment(zone: TimeZone, name: &str, text: &str) -> Result<Timestamp, ApiError> {
    let wrong = |error: &dyn Display| ApiError::Parameter(format!("{name} is {error}"));
    match text.parse::<Day>() {
        Ok(day) => zone.start_of_day(day).map_err(|error| wrong(&error)),
        Err(_) => text.parse::<Timestamp>().map_err(|error| wrong(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: [&str; 4] = ["start_date", "end_date", "month", "time_zone"];
    const PAGE: [&str; 2] = ["limit", "cursor"];
    const NOW: &str = "2026-05-05T00:00:00Z";

    fn refusal(query: &str) -> String {
        let known = [&RANGE[..], &PAGE].concat();
        let query = match Query::parse(query, &known) {
            Err(ApiError::Parameter(text)) => return text,
            Err(other) => panic!("{other:?}"),
            Ok(query) => query,
        };
        let failed = [
            query.parsed::<TimeZone>("time_zone").map(drop),
            query.range(TimeZone::UTC, NOW.parse().unwrap()).and_then(|range| check_length(&range)),
            query.limit().map(drop),
        ];
        match failed.into_iter().find_map(Result::err) {
            Some(ApiError::Parameter(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_known() {
        for (query, words) in [
            ("start=2026-01-01", "\"start\" is unknown; known parameters: start_date, end_date"),
            ("start_date=2026-01-01&start_date=2026-01-01", "\"start_date\" is given more than once"),
            ("end_date=&end_date=", "\"end_date\" is given more than once"),
            ("start_date=yesterday", "start_date is neither a date"),
            ("end_date=", "end_date is neither a date"),
            ("start_date=2026-06-01&end_date=2026-06-01", "end_date must lie after start_date"),
            ("month=2026-13", "month is not a month such as 2026-01"),
            ("month=2026-01&start_date=2026-01-01", "month goes with neither"),
            ("start_date=2024-01-01&end_date=2026-01-01", "400 days"),
            ("time_zone=Mars", "time_zone is no time zone"),
            ("limit=0", "limit must be a number from 1 to 1000"),
            ("limit=+5", "limit must be"),
            ("month=2026%00", "\"month\" has a character"),
        ] {
            let text = refusal(query);
            assert!(text.contains(words), "{query}: {text}");
        }
    }

    #[test]
    fn dates_are_days_of_the_zone() {
        let berlin: TimeZone = "Europe/Berlin".parse().unwrap();
        let query = Query::parse("month=2026-03", &RANGE).unwrap();
        let range = query.range(berlin, NOW.parse().unwrap()).unwrap();
        assert_eq!(range.start().to_string(), "2026-02-28T23:00:00.000000Z");
        assert_eq!(range.end().to_string(), "2026-03-31T22:00:00.000000Z");
        let query = Query::parse("start_date=2026-05-02&end_date=2026-05-02T12:00:00%2B01:00", &RANGE).unwrap();
        let range = query.range(berlin, NOW.parse().unwrap()).unwrap();
        assert_eq!(range.start().to_string(), "2026-05-01T22:00:00.000000Z");
        assert_eq!(range.end().to_string(), "2026-05-02T11:00:00.000000Z");
    }
}
