//! Units, rates and cents. Integers only; rounded once a line, half to even.

use std::fmt;
use std::str::FromStr;

use crate::decimal::{self, DecimalError};

/// What one call was worth: 0 to 10^9, at most six places, held in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(u64);

impl Units {
    /// Nothing: what was cut off by the upstream or of unknown end.
    pub const ZERO: Self = Self(0);
    /// One unit: what a call is worth when the upstream says nothing.
    pub const ONE: Self = Self(decimal::ONE);
    /// The most a call may be worth, in whole units.
    pub const WHOLE_MAX: u64 = 1_000_000_000;

    /// From millionths, `None` above 10^9 units.
    pub const fn from_micro(micro: u64) -> Option<Self> {
        if micro <= Self::WHOLE_MAX * decimal::ONE { Some(Self(micro)) } else { None }
    }

    /// In millionths; always fits `i64`.
    pub const fn micro(self) -> u64 {
        self.0
    }
}

impl FromStr for Units {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        decimal::parse_micro(text, Self::WHOLE_MAX).map(Self)
    }
}

impl fmt::Display for Units {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal::format_micro(self.0.into(), out)
    }
}

/// Cents a unit: 0 to 10^6, at most six places, held in millionths of a cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// The highest rate, in whole cents a unit.
    pub const WHOLE_MAX: u64 = 1_000_000;

    /// From millionths of a cent, `None` above 10^6 cents.
    pub const fn from_micro_cents(micro: u64) -> Option<Self> {
        if micro <= Self::WHOLE_MAX * decimal::ONE { Some(Self(micro)) } else { None }
    }

    /// In millionths of a cent; always fits `i64`.
    pub const fn micro_cents(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        decimal::parse_micro(text, Self::WHOLE_MAX).map(Self)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal::format_micro(self.0.into(), out)
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

/// What `units_micro` (millionths of units, summed) cost at `rate`: rounded once, half to even. Exact for every sum an
/// `i128` holds.
pub fn line_cost(units_micro: i128, rate: Rate) -> Cents {
    const SCALE: i128 = decimal::ONE as i128 * decimal::ONE as i128;
    let rate = i128::from(rate.0);
    // Multiplied as a whole, the largest sums would overflow; the rest is below SCALE * 10^12.
    let (whole, rest) = (units_micro.div_euclid(SCALE), units_micro.rem_euclid(SCALE) * rate);
    let (cents, rest) = (whole * rate + rest.div_euclid(SCALE), rest.rem_euclid(SCALE));
    let up = match (rest * 2).cmp(&SCALE) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => cents % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    Cents(cents + i128::from(up))
}
