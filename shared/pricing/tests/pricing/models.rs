//! The five models: what units cost, how a pricing is written, and what is wrong with what is none.

use goldleaves_pricing::{Cents, Pricing, Tiers};
use proptest::prelude::*;
use serde_json::json;

fn pricing(text: &str) -> Pricing {
    Pricing::from_text(text).unwrap()
}

/// Returns what a number of whole units costs.
fn cents(pricing: &Pricing, units: i128) -> i128 {
    pricing.cost(units * 1_000_000).0
}

const LADDER: &str = r#""tiers":[{"up_to":"1000","cents_per_unit":"0"},{"up_to":"2000","cents_per_unit":"25"},
    {"up_to":null,"cents_per_unit":"0.4"}]}"#;

#[test]
fn each_model_has_its_own_sum() {
    let graduated = pricing(&format!(r#"{{"model":"graduated",{LADDER}"#));
    let volume = pricing(&format!(r#"{{"model":"volume",{LADDER}"#));
    let package = pricing(r#"{"model":"package","package_units":"100","cents_per_package":"500","free_units":"50"}"#);
    for (units, of_graduated, of_volume, of_package) in [
        (0, 0, 0, 0),
        (-5, 0, 0, 0),
        (1, 0, 0, 0),
        (51, 0, 0, 500),
        (150, 0, 0, 500),
        (151, 0, 0, 1_000),
        (1_000, 0, 0, 5_000),
        (1_001, 25, 25_025, 5_000),
        (2_000, 25_000, 50_000, 10_000),
        (2_001, 25_000, 800, 10_000),
        (2_100, 25_040, 840, 10_500),
    ] {
        assert_eq!(cents(&graduated, units), of_graduated, "{units} graduated");
        assert_eq!(cents(&volume, units), of_volume, "{units} by volume");
        assert_eq!(cents(&package, units), of_package, "{units} by package");
    }
    // A limit belongs to its tier to the last millionth, and a millionth above is in the next.
    assert_eq!(volume.cost(1_000_000_000), Cents(0));
    assert_eq!(volume.cost(1_000_000_001), Cents(25_000));
    assert_eq!(package.cost(50_000_001), Cents(500));
    assert_eq!(cents(&pricing(r#"{"model":"inherit"}"#), 1_000), 0);
}

#[test]
fn a_pricing_is_written_as_it_is_read() {
    for text in [
        r#"{"model":"per_unit","cents_per_unit":"0.4"}"#.to_owned(),
        format!(r#"{{"model":"graduated",{LADDER}"#),
        format!(r#"{{"model":"volume",{LADDER}"#),
        r#"{"model":"package","package_units":"0.5","cents_per_package":"500","free_units":"0"}"#.to_owned(),
        r#"{"model":"inherit"}"#.to_owned(),
    ] {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let read = Pricing::from_json(&value).unwrap();
        assert_eq!(read.to_json(), value);
        assert_eq!(Pricing::from_text(&read.to_json().to_string()), Ok(read));
    }
    let highest = |text: &str| pricing(text).highest_rate().to_string();
    assert_eq!(highest(&format!(r#"{{"model":"volume",{LADDER}"#)), "25");
    assert_eq!(
        highest(r#"{"model":"package","package_units":"100","cents_per_package":"500","free_units":"0"}"#),
        "500"
    );
    assert_eq!(highest(r#"{"model":"inherit"}"#), "0");
}

#[test]
fn the_longest_ladder_fits_its_column() {
    let tier =
        |at: u64| json!({"up_to": format!("{}.000001", 100_000_000_000 + at), "cents_per_unit": "999999.999999"});
    let mut tiers: Vec<_> = (0..Tiers::MAX as u64 - 1).map(tier).collect();
    tiers.push(json!({"up_to": null, "cents_per_unit": "999999.999999"}));
    let ladder = Pricing::from_json(&json!({"model": "graduated", "tiers": tiers})).unwrap();
    assert!(ladder.to_json().to_string().len() <= 4_000);
    tiers.insert(0, json!({"up_to": "1", "cents_per_unit": "0"}));
    let error = Pricing::from_json(&json!({"model": "graduated", "tiers": tiers})).unwrap_err();
    assert_eq!(error.to_string(), "pricing.tiers must be 1 to 50 tiers");
}

#[test]
fn what_is_wrong_is_named_with_its_member() {
    let tier = |up_to: &str, rate: &str| format!(r#"{{"up_to":{up_to},"cents_per_unit":{rate}}}"#);
    let ladder = |tiers: &[String]| format!(r#"{{"model":"volume","tiers":[{}]}}"#, tiers.join(","));
    for (text, words) in [
        ("[]".to_owned(), "pricing must be an object"),
        ("{}".to_owned(), "pricing.model is missing"),
        (r#"{"model":1}"#.to_owned(), "pricing.model must be a string"),
        (r#"{"model":"flat"}"#.to_owned(), "pricing.model is \"flat\"; there are per_unit, graduated, volume"),
        (r#"{"model":"per_unit"}"#.to_owned(), "pricing.cents_per_unit is missing"),
        (r#"{"model":"per_unit","cents_per_unit":25}"#.to_owned(), "pricing.cents_per_unit must be a string"),
        (r#"{"model":"per_unit","cents_per_unit":"-1"}"#.to_owned(), "pricing.cents_per_unit is not a decimal"),
        (
            r#"{"model":"per_unit","cents_per_unit":"1000001"}"#.to_owned(),
            "pricing.cents_per_unit is above the largest value allowed, 1000000",
        ),
        (
            r#"{"model":"per_unit","cents_per_unit":"1","tiers":[]}"#.to_owned(),
            "pricing.tiers is unknown here; known are model, cents_per_unit",
        ),
        (r#"{"model":"inherit","more":1}"#.to_owned(), "pricing.more is unknown here"),
        (ladder(&[]), "pricing.tiers must be 1 to 50 tiers"),
        (ladder(&["1".to_owned()]), "pricing.tiers[0] must be an object"),
        (ladder(&[tier("null", "\"1\""), tier("null", "\"1\"")]), "pricing.tiers must end with the only tier"),
        (ladder(&[tier("\"1\"", "\"1\"")]), "pricing.tiers must end with the only tier"),
        (
            ladder(&[tier("\"2\"", "\"1\""), tier("\"2\"", "\"1\""), tier("null", "\"1\"")]),
            "pricing.tiers must have limits that grow: up_to of tier 2",
        ),
        (ladder(&[tier("\"0\"", "\"1\""), tier("null", "\"1\"")]), "pricing.tiers must have limits that grow"),
        (ladder(&[tier("\"x\"", "\"1\""), tier("null", "\"1\"")]), "pricing.tiers[0].up_to is not a decimal"),
        (ladder(&[tier("\"1\"", "\"1\""), tier("null", "null")]), "pricing.tiers[1].cents_per_unit must be a string"),
        (ladder(&[r#"{"cents_per_unit":"1"}"#.to_owned()]), "pricing.tiers[0].up_to is missing"),
        (
            r#"{"model":"package","package_units":"0","cents_per_package":"1","free_units":"0"}"#.to_owned(),
            "pricing.package_units must be above 0",
        ),
        (
            r#"{"model":"package","package_units":"1","cents_per_package":"1"}"#.to_owned(),
            "pricing.free_units is missing",
        ),
        ("{".to_owned(), "pricing is no JSON"),
    ] {
        let error = Pricing::from_text(&text).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}, not {words}\n{text}");
    }
}

proptest! {
    /// More units never cost less, but by volume, where a lower tier's end may.
    #[test]
    fn more_units_never_cost_less(less in 0_i128..10_i128.pow(13), more in 0_i128..10_i128.pow(13)) {
        for text in [
            format!(r#"{{"model":"graduated",{LADDER}"#),
            r#"{"model":"package","package_units":"0.3","cents_per_package":"0.7","free_units":"7"}"#.to_owned(),
        ] {
            let pricing = pricing(&text);
            prop_assert!(pricing.cost(less) <= pricing.cost(less + more));
        }
    }
}
