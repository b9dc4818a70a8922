//! Units: exact decimals.

use goldleaves_domain::{DecimalError, Units};
use proptest::prelude::*;

use crate::common;

proptest! {
    #[test]
    fn units_are_read_as_they_are_written(units in common::any_units()) {
        let text = units.to_string();
        prop_assert_eq!(text.parse::<Units>(), Ok(units));
        prop_assert!(!text.contains('.') || !text.ends_with('0'), "shortest form: {}", text);
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
}
