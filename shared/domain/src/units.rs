//! Units: what a call was worth. What units cost is no matter of this crate.

use std::fmt;
use std::str::FromStr;

use crate::decimal::{self, DecimalError, Micro};

/// The worth of one call: 0 to 10^9, at most six places, held in millionths.
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
        Micro(self.0).fmt(out)
    }
}
