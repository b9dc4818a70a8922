//! Parsers of plain values. Each says in its error what was wrong; the setting says what would be right.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Secret;

/// The reason a text is not a value of the kind that was asked for. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(Cow<'static, str>);

impl Invalid {
    /// Says why.
    pub fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

/// Anything with a `FromStr`, blanks around it cut off.
///
/// # Errors
/// Those of the type.
pub fn from_str<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.trim().parse()
}

/// The text as it is, blanks around it cut off.
///
/// # Errors
/// Empty.
pub fn text(text: &str) -> Result<String, Invalid> {
    match text.trim() {
        "" => Err(Invalid::new("is empty")),
        text => Ok(text.to_owned()),
    }
}

/// A secret, byte for byte.
///
/// # Errors
/// Empty.
pub fn secret(text: &str) -> Result<Secret, Invalid> {
    if text.is_empty() { Err(Invalid::new("is empty")) } else { Ok(Secret::new(text.to_owned())) }
}

/// A path.
///
/// # Errors
/// Empty, or with a NUL.
pub fn path(text: &str) -> Result<PathBuf, Invalid> {
    match text.trim() {
        "" => Err(Invalid::new("is empty")),
        text if text.contains('\0') => Err(Invalid::new("holds a NUL")),
        text => Ok(PathBuf::from(text)),
    }
}

/// true, 1, yes, on; false, 0, no, off; in any case.
///
/// # Errors
/// Anything else.
pub fn boolean(text: &str) -> Result<bool, Invalid> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Invalid::new("is neither true nor false")),
    }
}

/// A whole number in a range.
///
/// # Errors
/// Not a whole number, or outside.
pub fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Invalid>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| {
        let number: T = text.trim().parse().map_err(|_| Invalid::new("is not a whole number in range"))?;
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(Invalid::new(format!("is not from {} to {}", range.start(), range.end())))
        }
    }
}

/// Seconds, also with places (`0.5`), from 0 to 86,400.
///
/// # Errors
/// Not such a number.
pub(crate) fn seconds_or_zero(text: &str) -> Result<Duration, Invalid> {
    let seconds: f64 = text.trim().parse().map_err(|_| Invalid::new("is not a number of seconds"))?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(Invalid::new("is not from 0 to 86400 seconds"))
    }
}

/// Seconds, also with places (`0.5`), above 0 and up to 86,400.
///
/// # Errors
/// Not such a number.
pub fn seconds(text: &str) -> Result<Duration, Invalid> {
    match seconds_or_zero(text)? {
        Duration::ZERO => Err(Invalid::new("is 0 seconds")),
        some => Ok(some),
    }
}

/// Hours, also with places, from 0 to a year.
///
/// # Errors
/// Not such a number.
pub fn hours(text: &str) -> Result<Duration, Invalid> {
    let hours: f64 = text.trim().parse().map_err(|_| Invalid::new("is not a number of hours"))?;
    if (0.0..=8_760.0).contains(&hours) {
        Ok(Duration::from_secs_f64(hours * 3_600.0))
    } else {
        Err(Invalid::new("is not from 0 to 8760 hours"))
    }
}

/// Whole days, from 1 to ten years.
///
/// # Errors
/// Not such a number.
pub fn days(text: &str) -> Result<Duration, Invalid> {
    whole(1..=3_650_u64)(text).map(|days| Duration::from_secs(days * 86_400))
}

/// Bytes: a whole number, alone or with B, KiB, MiB, GiB, TiB (powers of 1,024) or kB, MB, GB, TB (powers of 1,000).
///
/// # Errors
/// Anything else, or more than 2^63 - 1 bytes.
pub fn byte_size(text: &str) -> Result<u64, Invalid> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| Invalid::new("does not start with a whole number"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(Invalid::new("has a unit that is none of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB")),
    };
    match number.checked_mul(factor) {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(Invalid::new("is more bytes than there can be")),
    }
}

/// Bytes as [`byte_size`], in a range.
///
/// # Errors
/// Not bytes, or outside.
pub fn byte_size_in(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, Invalid> {
    move |text| {
        let bytes = byte_size(text)?;
        if range.contains(&bytes) {
            Ok(bytes)
        } else {
            Err(Invalid::new(format!("is not from {} to {} bytes", range.start(), range.end())))
        }
    }
}

/// An IP address and a port: `127.0.0.1:8080`, `[::1]:8080`. `localhost:8080` is 127.0.0.1 and `:8080` is 0.0.0.0.
///
/// # Errors
/// Anything else: names are not looked up.
pub fn socket_address(text: &str) -> Result<SocketAddr, Invalid> {
    let text = text.trim();
    let written = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("0.0.0.0{text}"),
        None => text.to_owned(),
    };
    written.parse().map_err(|_| Invalid::new("is not an IP address and a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("8589934592", 8 << 30),
            ("8GiB", 8 << 30),
            (" 8 gib ", 8 << 30),
            ("8G", 8 << 30),
            ("1kB", 1_000),
            ("2MB", 2_000_000),
            ("3TiB", 3 << 40),
            ("7b", 7),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(byte_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "8GiX", "9223372036854775808", "99999999999TiB", "1 2"] {
            assert!(byte_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("30"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(hours("24"), Ok(Duration::from_secs(86_400)));
        assert_eq!(hours("0"), Ok(Duration::ZERO));
        for text in ["", "0", "-1", "NaN", "inf", "1e9", "10s", "86401"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        for text in ["", "-1", "NaN", "8761", "1h"] {
            assert!(hours(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (text, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            (":8080", "0.0.0.0:8080"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(socket_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", "8080", "host:8080", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:"] {
            assert!(socket_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_and_ranges() {
        assert_eq!(boolean("TRUE"), Ok(true));
        assert_eq!(boolean("off"), Ok(false));
        assert_eq!(boolean("1"), Ok(true));
        assert!(boolean("maybe").is_err() && boolean("").is_err());
        assert_eq!(whole(1..=10)("10"), Ok(10));
        assert!(whole(1..=10)("11").is_err() && whole(1..=10)("1.5").is_err() && whole(1..=10u8)("-1").is_err());
    }
}
