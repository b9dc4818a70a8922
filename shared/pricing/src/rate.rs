//! Rates and cents: exact decimals in, whole cents out.

use std::fmt;
use std::str::FromStr;

use goldleaves_domain::{DecimalError, Micro, parse_micro};

/// Cents per unit: 0 to 10^6, at most six places, held in millionths of a cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// Free.
    pub const ZERO: Self = Self(0);
    /// The highest rate, in whole cents per unit.
    pub const WHOLE_MAX: u64 = 1_000_000;

    /// From millionths of a cent, `None` above 10^6 cents.
    pub const fn from_micro_cents(micro: u64) -> Option<Self> {
        if micro <= Self::WHOLE_MAX * 1_000_000 { Some(Self(micro)) } else { None }
    }

    /// In millionths of a cent; always fits `i64`.
    pub const fn micro_cents(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        parse_micro(text, Self::WHOLE_MAX).map(Self)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Micro(self.0).fmt(out)
    }
}

/// Whole cents. Wide enough for any sum of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cents(pub i128);

impl fmt::Display for Cents {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl std::iter::Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(lines: I) -> Self {
        Self(lines.map(|line| line.0).sum())
    }
}
