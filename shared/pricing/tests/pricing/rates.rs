//! Rates and per-unit lines: exact decimals in, whole cents out, rounded once a line and half to even.

use goldleaves_domain::DecimalError;
use goldleaves_pricing::{Cents, Pricing, Rate};
use proptest::prelude::*;

/// 10^12: millionths of units times millionths of cents.
const SCALE: i128 = 1_000_000_000_000;

fn cost(units_micro: i128, micro_cents: u64) -> Cents {
    Pricing::PerUnit(Rate::from_micro_cents(micro_cents).unwrap()).cost(units_micro)
}

fn rate(text: &str) -> u64 {
    text.parse::<Rate>().unwrap().micro_cents()
}

#[test]
fn lines_are_rounded_half_to_even() {
    let cases = [
        (500_000, "1", 0),
        (1_500_000, "1", 2),
        (2_500_000, "1", 2),
        (3_500_000, "1", 4),
        (499_999, "1", 0),
        (500_001, "1", 1),
        (1_000_000, "25", 25),
        (20_000, "25", 0),
        (60_000, "25", 2),
        (100_000, "25", 2),
        (140_000, "25", 4),
        (1, "0.000001", 0),
        (0, "1000000", 0),
        (-1_000_000, "25", 0),
        (1_000_000, "0", 0),
        (1_000_000_000_000_000, "1000000", 1_000_000_000_000_000),
    ];
    for (micro, per_unit, cents) in cases {
        assert_eq!(cost(micro, rate(per_unit)), Cents(cents), "{micro} millionths at {per_unit}");
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    assert_eq!(cost(i128::MAX, 1_000_000_000_000), Cents(i128::MAX), "10^6 cents a unit are one cent a millionth");
    // 20,000 rows of 10^9 units, as on both databases.
    assert_eq!(cost(20_000 * 1_000_000_000_000_000, rate("25")), Cents(500_000_000_000_000));
}

proptest! {
    #[test]
    fn a_line_is_the_nearest_cent_and_the_even_one_of_two(
        units in 0_i128..=10_i128.pow(24),
        micro_cents in 0_u64..=1_000_000_000_000,
    ) {
        let cents = cost(units, micro_cents).0;
        let exact = units * i128::from(micro_cents);
        let twice_off = (exact - cents * SCALE).abs() * 2;
        prop_assert!(twice_off <= SCALE);
        prop_assert!(twice_off < SCALE || cents % 2 == 0);
    }

    #[test]
    fn rates_are_read_as_they_are_written(micro in 0_u64..=1_000_000_000_000) {
        let rate = Rate::from_micro_cents(micro).unwrap();
        prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
    }
}

#[test]
fn a_rate_has_a_highest_value() {
    assert_eq!("1000000.000001".parse::<Rate>(), Err(DecimalError::TooLarge { max: 1_000_000 }));
    assert_eq!(Rate::from_micro_cents(1_000_000_000_001), None);
}
