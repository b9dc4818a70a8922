//! Exact decimals with at most six places, held as integer millionths. No sign, no exponent, no float.

use crate::json::Append;

/// Places after the point that units and rates may have.
const PLACES: usize = 6;
/// One, in millionths.
pub(crate) const ONE: u64 = 1_000_000;

/// The reason a text is not an exact decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Anything but digits with at most one point between digits.
    #[error("not a decimal number such as 3 or 0.5")]
    Malformed,
    /// More than six places.
    #[error("more than {PLACES} places after the point")]
    TooPrecise,
    /// Above the largest value allowed.
    #[error("above the largest value allowed, {max}")]
    TooLarge {
        /// The largest value allowed, in whole numbers.
        max: u64,
    },
}

/// Parses `text` into millionths, at most `max` whole ones.
///
/// # Errors
/// No decimal, too many places, or above `max`.
pub fn parse_micro(text: &str, max: u64) -> Result<u64, DecimalError> {
    let value = parse_micro_any(text).map_err(|error| match error {
        DecimalError::TooLarge { .. } => DecimalError::TooLarge { max },
        other => other,
    })?;
    if value > max.saturating_mul(ONE) { Err(DecimalError::TooLarge { max }) } else { Ok(value) }
}

/// Parses `text` into as many millionths as there can be.
pub(crate) fn parse_micro_any(text: &str) -> Result<u64, DecimalError> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return Err(DecimalError::Malformed),
        Some((whole, fraction)) => (whole, fraction),
        None => (text, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::Malformed);
    }
    if fraction.len() > PLACES {
        return Err(DecimalError::TooPrecise);
    }
    let too_large = || DecimalError::TooLarge { max: u64::MAX / ONE };
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    // At most six digits, and what is not written is zero.
    let digits = fraction.bytes().map(|digit| u64::from(digit - b'0')).chain(std::iter::repeat(0)).take(PLACES);
    let micro = digits.fold(0, |micro, digit| micro * 10 + digit);
    whole.checked_mul(ONE).and_then(|value| value.checked_add(micro)).ok_or_else(too_large)
}

impl Append for Micro {
    fn append(&self, text: &mut String) {
        (self.0 / ONE).append(text);
        let mut fraction = self.0 % ONE;
        if fraction == 0 {
            return;
        }
        let mut digits = [b'0'; PLACES];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        text.push('.');
        let places = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        text.extend(digits.into_iter().take(places).map(char::from));
    }
}

/// Millionths that show themselves as the shortest exact decimal.
#[derive(Debug, Clone, Copy)]
pub struct Micro(pub u64);

impl std::fmt::Display for Micro {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::with_capacity(24);
        self.append(&mut text);
        out.write_str(&text)
    }
}
