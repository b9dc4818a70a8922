//! Bills: one line per version, and shares that add up to it for every grouping and every model.

use std::collections::BTreeMap;

use goldleaves_pricing::{Bill, Cents, Pricing, Used, share};
use proptest::prelude::*;

fn used(units_micro: i128) -> Used {
    Used { events: 1, units_micro }
}

fn shares(cents: i128, units: &[(&'static str, i128)]) -> Vec<i128> {
    share(Cents(cents), &units.iter().copied().collect()).into_values().map(|cents| cents.0).collect()
}

#[test]
fn a_hundred_actions_cost_what_one_does() {
    let pricing = Pricing::PerUnit("0.4".parse().unwrap());
    let (mut one, mut many) = (Bill::default(), Bill::default());
    for action in 0..100 {
        one.add(1, &pricing, 0, used(1_000_000));
        many.add(1, &pricing, action, used(1_000_000));
    }
    assert_eq!(one.total(), Cents(40));
    assert_eq!(many.total(), Cents(40));
    // Equal remainders: the first keys have the cents.
    let cents: Vec<i128> = many.groups(|action| *action).values().map(|group| group.cents.0).collect();
    assert_eq!(cents, [[1; 40].as_slice(), &[0; 60]].concat());
}

#[test]
fn a_line_is_shared_by_the_largest_remainder() {
    assert_eq!(shares(10, &[("a", 1), ("b", 1), ("c", 1)]), [4, 3, 3]);
    assert_eq!(shares(10, &[("a", 1), ("b", 2), ("c", 4)]), [1, 3, 6]);
    assert_eq!(shares(0, &[("a", 1), ("b", 2)]), [0, 0]);
    assert_eq!(shares(5, &[("a", 0), ("b", 2)]), [0, 5]);
    assert_eq!(shares(0, &[("a", 0)]), [0]);
    assert_eq!(shares(-10, &[("a", 1), ("b", 1), ("c", 1)]), [-3, -3, -4]);
    assert_eq!(share(Cents(5), &BTreeMap::<u8, i128>::new()), BTreeMap::new());
}

#[test]
fn versions_are_lines_of_their_own() {
    let half = Pricing::PerUnit("0.5".parse().unwrap());
    let mut bill = Bill::default();
    bill.add(1, &half, "a", used(1_000_000));
    bill.add(2, &half, "a", used(1_000_000));
    bill.add(2, &half, "b", used(2_000_000));
    // 0.5 is 0, 1.5 is 2.
    assert_eq!(bill.total(), Cents(2));
    let lines = bill.line_groups(|key| *key);
    let lines: Vec<_> = lines.iter().map(|((version, key), group)| (*version, *key, group.cents.0)).collect();
    assert_eq!(lines, [(1, "a", 0), (2, "a", 1), (2, "b", 1)]);
    assert_eq!(bill.used(), Used { events: 3, units_micro: 4_000_000 });
}

fn any_pricing() -> impl Strategy<Value = Pricing> {
    let ladder = r#""tiers":[{"up_to":"3","cents_per_unit":"0"},{"up_to":"10000","cents_per_unit":"7.3"},
        {"up_to":null,"cents_per_unit":"0.000001"}]}"#;
    prop_oneof![
        (0_u64..=1_000_000_000_000)
            .prop_map(|micro| { Pricing::PerUnit(goldleaves_pricing::Rate::from_micro_cents(micro).unwrap()) }),
        Just(Pricing::from_text(&format!(r#"{{"model":"graduated",{ladder}"#)).unwrap()),
        Just(Pricing::from_text(&format!(r#"{{"model":"volume",{ladder}"#)).unwrap()),
        Just(
            Pricing::from_text(
                r#"{"model":"package","package_units":"7","cents_per_package":"99.5","free_units":"3"}"#
            )
            .unwrap()
        ),
    ]
}

proptest! {
    #[test]
    fn groups_add_up_to_the_total_for_every_grouping(
        parts in prop::collection::vec((1_i64..4, 0_u8..8, 0_u8..8, 0_i128..10_i128.pow(22)), 0..60),
        cards in prop::collection::vec(any_pricing(), 3),
        seed in any::<u64>(),
    ) {
        let bill_of = |parts: &[(i64, u8, u8, i128)]| {
            let mut bill = Bill::default();
            for (version, route, action, units) in parts {
                bill.add(*version, &cards[*version as usize - 1], (*route, *action), used(*units));
            }
            bill
        };
        let bill = bill_of(&parts);
        let sum = |groups: Vec<Cents>| groups.into_iter().sum::<Cents>();
        let total = bill.total();
        prop_assert_eq!(sum(bill.groups(|key| *key).values().map(|group| group.cents).collect()), total);
        prop_assert_eq!(sum(bill.groups(|key| key.0).values().map(|group| group.cents).collect()), total);
        prop_assert_eq!(sum(bill.groups(|key| key.1 % 2).values().map(|group| group.cents).collect()), total);
        prop_assert_eq!(sum(bill.groups(|_| ()).values().map(|group| group.cents).collect()), total);
        // A share is the part rounded down, or a cent more.
        for group in bill.groups(|key| *key).values() {
            prop_assert!(group.cents.0 >= 0);
        }
        // In any order, and in any pieces.
        let mut turned = parts.clone();
        turned.rotate_left(if parts.is_empty() { 0 } else { (seed % parts.len() as u64) as usize });
        prop_assert_eq!(bill_of(&turned).groups(|key| *key), bill.groups(|key| *key));
    }

    #[test]
    fn a_share_is_within_a_cent_of_its_part(
        cents in 0_i128..10_i128.pow(30),
        units in prop::collection::vec(0_i128..10_i128.pow(30), 1..20),
    ) {
        let total: i128 = units.iter().sum();
        prop_assume!(total > 0);
        let by_key: BTreeMap<usize, i128> = units.iter().copied().enumerate().collect();
        let shares = share(Cents(cents), &by_key);
        prop_assert_eq!(shares.values().copied().sum::<Cents>(), Cents(cents));
        for (key, share) in shares {
            let part = cents as f64 * (units[key] as f64 / total as f64);
            prop_assert!((share.0 as f64 - part).abs() <= 1.0 + part * 1e-12);
        }
    }
}
