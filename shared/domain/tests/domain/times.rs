//! Moments and periods.

use goldleaves_domain::{Period, PeriodError, Timestamp, TimestampError};
use proptest::prelude::*;

use crate::common;

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

proptest! {
    #[test]
    fn moments_are_read_as_they_are_written(ts in common::any_timestamp()) {
        let text = ts.to_string();
        prop_assert_eq!(text.len(), "2026-01-31T12:34:56.000789Z".len());
        prop_assert_eq!(text.parse(), Ok(ts));
    }

    #[test]
    fn text_sorts_as_time_does(one in common::any_timestamp(), other in common::any_timestamp()) {
        prop_assert_eq!(one.to_string().cmp(&other.to_string()), one.cmp(&other));
    }

    #[test]
    fn an_hour_starts_before_its_moments(ts in common::any_timestamp()) {
        let hour = ts.hour();
        prop_assert!(hour <= ts && ts.unix_micros() - hour.unix_micros() < Timestamp::HOUR_MICROS);
        prop_assert_eq!(&hour.to_string()[13..], ":00:00.000000Z");
    }
}

#[test]
fn any_offset_and_precision_is_cut_to_utc_microseconds() {
    assert_eq!(moment("2026-01-31T23:30:00.1234569-01:00").to_string(), "2026-02-01T00:30:00.123456Z");
    assert_eq!(moment("2026-01-31").to_string(), "2026-01-31T00:00:00.000000Z");
    assert_eq!("0000-12-31T23:00:00Z".parse::<Timestamp>(), Err(TimestampError::OutOfRange));
    for text in ["", "yesterday", "2026-13-01", "2026-02-30", "2026-01-31T12:00:00", "1769860800"] {
        assert_eq!(text.parse::<Timestamp>(), Err(TimestampError::Malformed), "{text:?}");
    }
}

#[test]
fn a_leap_second_is_the_last_microsecond_before_it() {
    for (text, written) in [
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z"),
        ("2016-12-31T23:59:60.25Z", "2016-12-31T23:59:59.999999Z"),
        ("2017-01-01T00:59:60+01:00", "2016-12-31T23:59:59.999999Z"),
        ("1969-06-30T23:59:60Z", "1969-06-30T23:59:59.999999Z"),
    ] {
        assert_eq!(moment(text).to_string(), written, "{text}");
    }
    for text in ["2016-12-31T12:00:60Z", "2016-12-30T23:59:60Z", "2016-12-31T23:59:60+01:00", "2016-12-31T23:59:61Z"] {
        assert_eq!(text.parse::<Timestamp>(), Err(TimestampError::Malformed), "{text}");
    }
}

#[test]
fn moments_at_the_bounds_are_cut_downwards() {
    for (text, written) in [
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00.0000009Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.9999999999Z", "9999-12-31T23:59:59.999999Z"),
        ("2026-01-31T12:00:00.5+23:59", "2026-01-30T12:01:00.500000Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31_12:00:00-00:00", "2026-01-31T12:00:00.000000Z"),
        ("+2026-01-31", "2026-01-31T00:00:00.000000Z"),
    ] {
        assert_eq!(moment(text).to_string(), written, "{text}");
    }
    for text in ["9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+00:01", "-2026-01-31", "0000-02-29"] {
        assert_eq!(text.parse::<Timestamp>(), Err(TimestampError::OutOfRange), "{text}");
    }
}

#[test]
fn what_is_nearly_rfc_3339_is_none() {
    for text in [
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+0100",
        "2026-01-31T12:00:00\u{2212}01:00",
        "2026-01-31\u{e9}12:00:00Z",
        "2026-01-31T12:00:00Z ",
        "12026-01-31",
        "+12026-01-31T12:00:00Z",
        "2026-1-31",
        "2023-02-29",
        "\u{661}026-01-31",
    ] {
        assert_eq!(text.parse::<Timestamp>(), Err(TimestampError::Malformed), "{text:?}");
    }
}

#[test]
fn a_period_without_bounds_is_the_month() {
    let bounds = |now: &str| {
        let period = Period::parse(None, None, moment(now)).unwrap();
        (period.start().to_string(), period.end().to_string())
    };
    let month = |first: &str, next: &str| (moment(first).to_string(), moment(next).to_string());
    assert_eq!(bounds("2026-02-14T01:02:03Z"), month("2026-02-01", "2026-03-01"));
    assert_eq!(bounds("2026-12-31T23:59:59.999999Z"), month("2026-12-01", "2027-01-01"));
}

#[test]
fn a_period_is_never_empty() {
    let now = moment("2026-02-14");
    let parse = |start, end| Period::parse(Some(start), Some(end), now);
    assert_eq!(parse("2026-02-01", "2026-02-01"), Err(PeriodError::Empty));
    assert_eq!(parse("2026-02-02", "2026-02-01"), Err(PeriodError::Empty));
    assert_eq!(parse("x", "2026-02-01"), Err(PeriodError::Start(TimestampError::Malformed)));
    assert_eq!(parse("2026-02-01", "x"), Err(PeriodError::End(TimestampError::Malformed)));
    assert!(parse("2026-02-01T00:00:00Z", "2026-02-01T00:00:00.000001Z").is_ok());
}
