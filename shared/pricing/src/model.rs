//! The five ways to price, and what a number of units costs under each.

use std::fmt;
use std::str::FromStr;

use goldleaves_domain::{DecimalError, Micro, parse_micro};

use crate::exact::{Exact, multiply_divide};
use crate::{Cents, Rate};

/// A number of units in a price: 0 to 10^12, at most six places, held in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(u64);

impl Quantity {
    /// None.
    pub const ZERO: Self = Self(0);
    /// The largest quantity, in whole units.
    pub const WHOLE_MAX: u64 = 1_000_000_000_000;

    /// In millionths of a unit; always fits `i64`.
    pub const fn micro(self) -> u64 {
        self.0
    }
}

impl FromStr for Quantity {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        parse_micro(text, Self::WHOLE_MAX).map(Self)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Micro(self.0).fmt(out)
    }
}

/// The way units are priced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pricing {
    /// Each unit at the same rate.
    PerUnit(Rate),
    /// Each unit at the rate of the tier that it falls into.
    Graduated(Tiers),
    /// All units at the rate of the tier that their number falls into.
    Volume(Tiers),
    /// By packages, begun ones in full.
    Package(Package),
    /// By a card with a wider selector: the end of an override.
    Inherit,
}

/// One tier of a ladder: the units above the tier before it and up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The last unit of the tier, `None` for the last tier.
    pub up_to: Option<Quantity>,
    /// The price of a unit of the tier.
    pub rate: Rate,
}

/// A ladder of 1 to 50 tiers: their limits grow, and only the last one has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers(Vec<Tier>);

/// The reason tiers are no ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TiersError {
    /// None, or too many.
    #[error("must be 1 to {} tiers", Tiers::MAX)]
    Number,
    /// A limit that is not above the one before.
    #[error("must have limits that grow: up_to of tier {tier} is not above the one before it")]
    Order {
        /// Counts from 1.
        tier: usize,
    },
    /// A limit on the last tier, or none on another.
    #[error("must end with the only tier whose up_to is null")]
    End,
}

impl Tiers {
    /// The most tiers there can be.
    pub const MAX: usize = 50;

    /// From tiers in their order.
    ///
    /// # Errors
    /// Too many or too few, limits that do not grow, or a last tier with a limit.
    pub fn new(tiers: Vec<Tier>) -> Result<Self, TiersError> {
        if tiers.is_empty() || tiers.len() > Self::MAX {
            return Err(TiersError::Number);
        }
        let mut before = Quantity::ZERO;
        for (at, tier) in tiers.iter().enumerate() {
            let is_last = at + 1 == tiers.len();
            match tier.up_to {
                Some(up_to) if !is_last && up_to > before => before = up_to,
                Some(_) if !is_last => return Err(TiersError::Order { tier: at + 1 }),
                None if is_last => {}
                _ => return Err(TiersError::End),
            }
        }
        Ok(Self(tiers))
    }

    /// The tiers in their order.
    pub fn as_slice(&self) -> &[Tier] {
        &self.0
    }

    fn graduated(&self, units_micro: i128) -> Exact {
        let (mut sum, mut below) = (Exact::default(), 0);
        for tier in &self.0 {
            let until = tier.up_to.map_or(units_micro, |up_to| units_micro.min(up_to.micro().into()));
            if until > below {
                sum = sum.plus(Exact::product(until - below, tier.rate));
                below = until;
            }
        }
        sum
    }

    fn volume(&self, units_micro: i128) -> Exact {
        let holds = |tier: &&Tier| tier.up_to.is_none_or(|up_to| units_micro <= up_to.micro().into());
        self.0.iter().find(holds).map_or_else(Exact::default, |tier| Exact::product(units_micro, tier.rate))
    }

    fn highest(&self) -> Rate {
        self.0.iter().map(|tier| tier.rate).max().unwrap_or(Rate::ZERO)
    }
}

/// Packages of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    units: Quantity,
    rate: Rate,
    free: Quantity,
}

impl Package {
    /// Packages of so many units, each for so many cents, after so many free units; `None` for packages of nothing.
    pub fn new(units: Quantity, cents: Rate, free: Quantity) -> Option<Self> {
        (units > Quantity::ZERO).then_some(Self { units, rate: cents, free })
    }

    /// The units of a package.
    pub const fn units(&self) -> Quantity {
        self.units
    }

    /// The cents of a package.
    pub const fn cents(&self) -> Rate {
        self.rate
    }

    /// The units before the first package.
    pub const fn free(&self) -> Quantity {
        self.free
    }

    fn cost(&self, units_micro: i128) -> Exact {
        let size = i128::from(self.units.micro());
        let (packages, begun) = multiply_divide(units_micro - i128::from(self.free.micro()), 1, size);
        let packages = packages.saturating_add(i128::from(begun > 0)).max(0);
        Exact::product(packages.saturating_mul(1_000_000), self.rate)
    }
}

impl Pricing {
    /// The cost of `units_micro` (millionths of units, summed): exact until it is rounded once, half to even. Nothing, or
    /// less than nothing, costs nothing, and so does [`Pricing::Inherit`], which prices no row.
    pub fn cost(&self, units_micro: i128) -> Cents {
        if units_micro <= 0 {
            return Cents::default();
        }
        let exact = match self {
            Self::PerUnit(rate) => Exact::product(units_micro, *rate),
            Self::Graduated(tiers) => tiers.graduated(units_micro),
            Self::Volume(tiers) => tiers.volume(units_micro),
            Self::Package(package) => package.cost(units_micro),
            Self::Inherit => Exact::default(),
        };
        exact.rounded()
    }

    /// The highest rate that a unit can cost: of a package, its price.
    pub fn highest_rate(&self) -> Rate {
        match self {
            Self::PerUnit(rate) => *rate,
            Self::Graduated(tiers) | Self::Volume(tiers) => tiers.highest(),
            Self::Package(package) => package.rate,
            Self::Inherit => Rate::ZERO,
        }
    }

    /// The model's name.
    pub const fn model(&self) -> &'static str {
        match self {
            Self::PerUnit(_) => "per_unit",
            Self::Graduated(_) => "graduated",
            Self::Volume(_) => "volume",
            Self::Package(_) => "package",
            Self::Inherit => "inherit",
        }
    }
}
