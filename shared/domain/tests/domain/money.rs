//! Units, rates and what they cost: exact decimals in, whole cents out, rounded once a line and half to even.

use goldleaves_domain::{Cents, DecimalError, Rate, Units, line_cost};
use proptest::prelude::*;

use crate::common;

/// 10^12: millionths of units times millionths of cents.
const SCALE: i128 = 1_000_000_000_000;

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
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
        (1_000_000, "0", 0),
        (1_000_000_000_000_000, "1000000", 1_000_000_000_000_000),
    ];
    for (micro, per_unit, cents) in cases {
        assert_eq!(line_cost(micro, rate(per_unit)), Cents(cents), "{micro} millionths at {per_unit}");
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    let cost = line_cost(i128::MAX, Rate::from_micro_cents(1_000_000_000_000).unwrap());
    assert_eq!(cost, Cents(i128::MAX), "10^6 cents a unit are one cent a millionth");
    // 20,000 rows of 10^9 units, as on both databases.
    assert_eq!(line_cost(20_000 * 1_000_000_000_000_000, rate("25")), Cents(500_000_000_000_000));
}

proptest! {
    #[test]
    fn a_line_is_the_nearest_cent_and_the_even_one_of_two(
        units in 0_i128..=10_i128.pow(24),
        micro_cents in 0_u64..=1_000_000_000_000,
    ) {
        let cents = line_cost(units, Rate::from_micro_cents(micro_cents).unwrap()).0;
        let exact = units * i128::from(micro_cents);
        let twice_off = (exact - cents * SCALE).abs() * 2;
        prop_assert!(twice_off <= SCALE);
        prop_assert!(twice_off < SCALE || cents % 2 == 0);
    }

    #[test]
    fn a_line_depends_on_the_sum_alone(
        rows in prop::collection::vec(common::any_units(), 0..40),
        micro_cents in 0_u64..=1_000_000_000_000,
        seed in any::<usize>(),
    ) {
        let rate = Rate::from_micro_cents(micro_cents).unwrap();
        let sum = |rows: &[Units]| rows.iter().map(|units| i128::from(units.micro())).sum::<i128>();
        let (mut left, mut right) = (rows.clone(), Vec::new());
        // However the rows are shared out among workers, the sum of their sums costs the same.
        while left.len() > seed % (rows.len() + 1) {
            right.extend(left.pop());
        }
        prop_assert_eq!(line_cost(sum(&rows), rate), line_cost(sum(&left) + sum(&right), rate));
    }

    #[test]
    fn a_total_is_the_sum_of_its_lines(lines in prop::collection::vec(0_i128..10_i128.pow(20), 0..20)) {
        let rate = rate("0.333333");
        let cents: Vec<Cents> = lines.iter().map(|units| line_cost(*units, rate)).collect();
        prop_assert_eq!(cents.iter().copied().sum::<Cents>().0, cents.iter().map(|line| line.0).sum::<i128>());
    }

    #[test]
    fn units_are_read_as_they_are_written(units in common::any_units()) {
        let text = units.to_string();
        prop_assert_eq!(text.parse::<Units>(), Ok(units));
        prop_assert!(!text.contains('.') || !text.ends_with('0'), "shortest form: {}", text);
    }

    #[test]
    fn rates_are_read_as_they_are_written(micro in 0_u64..=1_000_000_000_000) {
        let rate = Rate::from_micro_cents(micro).unwrap();
        prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
    }

    #[test]
    fn a_decimal_is_whole_and_fraction(whole in 0_u64..1_000_000_000, fraction in "[0-9]{1,6}") {
        let units: Units = format!("{whole}.{fraction}").parse().unwrap();
        let padded: u64 = format!("{fraction:0<6}").parse().unwrap();
        prop_assert_eq!(units.micro(), whole * 1_000_000 + padded);
    }

    #[test]
    fn what_is_no_decimal_is_refused(text in "[0-9.+eE, -]{0,12}") {
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
        let legal = !whole.is_empty() && digits(whole) && !fraction.is_empty() && digits(fraction);
        let parsed = text.parse::<Units>();
        prop_assert_eq!(matches!(parsed, Err(DecimalError::Malformed)), !legal, "{:?}: {:?}", text, parsed);
    }
}

#[test]
fn decimals_have_one_spelling_of_each_mistake() {
    let micro = |text: &str| text.parse::<Units>().map(Units::micro);
    assert_eq!(micro("1000000000"), Ok(1_000_000_000_000_000));
    assert_eq!(micro("007.50"), Ok(7_500_000));
    assert_eq!(micro("1000000000.000001"), Err(DecimalError::TooLarge { max: 1_000_000_000 }));
    assert_eq!(micro("99999999999999999999999"), Err(DecimalError::TooLarge { max: 1_000_000_000 }));
    assert_eq!(micro("0.1234567"), Err(DecimalError::TooPrecise));
    for text in ["", " 1", "1 ", "+1", "-1", "1.", ".5", "1.2.3", "1e3", "1,5", "٣", "NaN", "inf", "0x10"] {
        assert_eq!(micro(text), Err(DecimalError::Malformed), "{text:?}");
    }
    assert_eq!("1000000.000001".parse::<Rate>(), Err(DecimalError::TooLarge { max: 1_000_000 }));
}
