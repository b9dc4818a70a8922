//! Sums in 10^-12 cents, rounded once at the end, and products that need more than 128 bits.

use crate::{Cents, Rate};

/// The parts of a cent in which products are summed: millionths of units times millionths of cents.
const SCALE: i128 = 1_000_000_000_000;

/// An amount of money, exact: whole cents and what is left, in 10^-12 cents, from 0 to below one cent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Exact {
    cents: i128,
    rest: i128,
}

impl Exact {
    /// The cost of `units_micro` at `rate`. Exact for every number an `i128` holds.
    pub(crate) fn product(units_micro: i128, rate: Rate) -> Self {
        let rate = i128::from(rate.micro_cents());
        // Multiplied as a whole, the largest sums would overflow; the rest is below SCALE * 10^12.
        let (whole, rest) = (units_micro.div_euclid(SCALE), units_micro.rem_euclid(SCALE) * rate);
        Self { cents: whole * rate + rest.div_euclid(SCALE), rest: rest.rem_euclid(SCALE) }
    }

    /// The sum of both; the largest number there is stands for what lies beyond it.
    pub(crate) fn plus(self, other: Self) -> Self {
        let rest = self.rest + other.rest;
        Self { cents: self.cents.saturating_add(other.cents).saturating_add(rest / SCALE), rest: rest % SCALE }
    }

    /// The nearest cent, of two the even one.
    pub(crate) fn rounded(self) -> Cents {
        let up = match (self.rest * 2).cmp(&SCALE) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => self.cents % 2 != 0,
            std::cmp::Ordering::Greater => true,
        };
        Cents(self.cents.saturating_add(i128::from(up)))
    }
}

/// `factor * times / by`: how often `by` goes into the product, rounded down, and the remainder, which is 0 or more.
pub(crate) fn multiply_divide(factor: i128, times: i128, by: i128) -> (i128, i128) {
    if let Some(product) = factor.checked_mul(times) {
        return (product.div_euclid(by), product.rem_euclid(by));
    }
    // The long way, a bit of `times` at a time, on what is below `by`.
    let (whole, rest) = (factor.div_euclid(by), factor.rem_euclid(by).unsigned_abs());
    let (mut quotient, mut left) = (0_u128, 0_u128);
    for bit in (0..i128::BITS).rev() {
        (quotient, left) = divided(quotient * 2, left * 2, by.unsigned_abs());
        if (times.unsigned_abs() >> bit) & 1 == 1 {
            (quotient, left) = divided(quotient, left + rest, by.unsigned_abs());
        }
    }
    let (quotient, left) = (quotient as i128, left as i128);
    let (quotient, left) = match (times < 0, left) {
        (false, left) => (quotient, left),
        (true, 0) => (-quotient, 0),
        (true, left) => (-quotient - 1, by - left),
    };
    (whole.saturating_mul(times).saturating_add(quotient), left)
}

/// Takes `divisor` out of what is left, where it goes in once.
const fn divided(quotient: u128, left: u128, divisor: u128) -> (u128, u128) {
    if left >= divisor { (quotient + 1, left - divisor) } else { (quotient, left) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_long_way_is_the_short_way(a in any::<i64>(), b in any::<i64>(), by in 1_i64..) {
            let (a, b, by) = (i128::from(a), i128::from(b), i128::from(by));
            // Made longer by a common factor, which divides out again.
            let factor = 1_i128 << 61;
            let (quotient, rest) = multiply_divide(a * factor, b, by * factor);
            prop_assert_eq!((quotient, rest / factor), ((a * b).div_euclid(by), (a * b).rem_euclid(by)));
            prop_assert_eq!(rest % factor, 0);
        }
    }
}
