//! Tests of which card prices a row, for every selector and every order of cards.

use goldleaves_domain::Timestamp;
use goldleaves_pricing::{Origin, Pricing, RateCard, RateCards, Selector};
use proptest::prelude::*;

fn selector(tenant: &str, route: &str, action: &str) -> Selector {
    Selector { tenant_id: tenant.to_owned(), route: route.to_owned(), action: action.to_owned() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
}

fn card(version: i64, selector: Selector, effective_from: i64) -> RateCard {
    RateCard {
        version,
        id: None,
        selector,
        pricing: Pricing::PerUnit("1".parse().unwrap()),
        effective_from: at(effective_from),
        origin: Origin::Setting,
        actor: None,
        reason: None,
    }
}

fn inherit(card: RateCard) -> RateCard {
    RateCard { pricing: Pricing::Inherit, ..card }
}

#[test]
fn the_narrowest_selector_prices_a_row() {
    let row = selector("t", "/r", "a");
    // From the narrowest to the widest: tenant counts 4, route 2, action 1.
    let order = [
        selector("t", "/r", "a"),
        selector("t", "/r", ""),
        selector("t", "", "a"),
        selector("t", "", ""),
        selector("", "/r", "a"),
        selector("", "/r", ""),
        selector("", "", "a"),
        selector("", "", ""),
    ];
    for first in 0..order.len() {
        let cards = order.iter().enumerate().skip(first);
        let cards: Vec<_> = cards.map(|(at, selector)| card(at as i64 + 1, selector.clone(), 0)).collect();
        assert_eq!(RateCards::new(cards).choose(row.place(), at(5)).unwrap().version, first as i64 + 1);
    }
    let others = ["t", "x"].map(|tenant| card(1, selector(tenant, "/x", ""), 0)).to_vec();
    assert_eq!(RateCards::new(others).choose(row.place(), at(5)), None);
}

#[test]
fn inherit_ends_an_override() {
    let row = selector("t", "/r", "a");
    let cards = RateCards::new(vec![
        card(1, Selector::default(), 0),
        card(2, selector("t", "", ""), 10),
        inherit(card(3, selector("t", "", ""), 20)),
        card(4, selector("t", "", ""), 30),
        // Of one moment the higher version.
        card(5, selector("t", "", ""), 40),
        inherit(card(6, selector("t", "", ""), 40)),
    ]);
    for (time, version) in [(9, 1), (10, 2), (19, 2), (20, 1), (29, 1), (30, 4), (40, 1), (99, 1)] {
        assert_eq!(cards.choose(row.place(), at(time)).unwrap().version, version, "at {time}");
    }
    assert_eq!(cards.default_at(at(99)).unwrap().version, 1);
    assert_eq!(cards.default_at(at(-1)), None);
}

#[test]
fn a_card_that_would_be_is_in_force_at_all_times() {
    let cards = RateCards::new(vec![card(1, Selector::default(), 0), card(2, selector("t", "", ""), 10)]);
    let narrower = card(7, selector("t", "/r", ""), 99);
    let (row, other) = (selector("t", "/r", "a"), selector("t", "/x", "a"));
    assert_eq!(cards.choose_with(row.place(), at(5), &narrower).unwrap().version, 7);
    assert_eq!(cards.choose_with(other.place(), at(15), &narrower).unwrap().version, 2);
    let ended = inherit(card(8, selector("t", "", ""), 99));
    assert_eq!(cards.choose_with(row.place(), at(15), &ended).unwrap().version, 1);
    let wider = card(9, Selector::default(), 99);
    assert_eq!(cards.choose_with(row.place(), at(15), &wider).unwrap().version, 2);
}

#[test]
fn a_card_is_shown_with_what_it_is_for() {
    assert_eq!(
        card(3, selector("acme", "", "read"), 0).to_string(),
        "version 3, 1 cents per unit for tenant acme, action read from 1970-01-01T00:00:00.000000Z"
    );
}

proptest! {
    /// The rule as it is written down, word for word, against the index.
    #[test]
    fn the_index_follows_the_rule(
        cards in prop::collection::vec((0_u8..3, 0_u8..3, 0_u8..3, 0_i64..6, any::<bool>()), 0..40),
        rows in prop::collection::vec((1_u8..4, 1_u8..4, 1_u8..4, 0_i64..8), 1..20),
    ) {
        let part = |number: u8| if number == 0 { String::new() } else { format!("p{number}") };
        let cards: Vec<RateCard> = cards
            .into_iter()
            .zip(1..)
            .map(|((tenant, route, action, from, inherits), version)| {
                let card = card(version, selector(&part(tenant), &part(route), &part(action)), from);
                if inherits { inherit(card) } else { card }
            })
            .collect();
        let index = RateCards::new(cards.clone());
        for (tenant, route, action, ts) in rows {
            let row = selector(&part(tenant), &part(route), &part(action));
            let mut chosen = None;
            for weight in (0..8).rev() {
                let wanted = |bit: u8, part: &str| if weight & bit == 0 { String::new() } else { part.to_owned() };
                let place = selector(&wanted(4, &row.tenant_id), &wanted(2, &row.route), &wanted(1, &row.action));
                let in_force = cards.iter().filter(|card| card.selector == place && card.effective_from <= at(ts));
                let in_force = in_force.max_by_key(|card| (card.effective_from, card.version));
                if let Some(card) = in_force.filter(|card| card.pricing != Pricing::Inherit) {
                    chosen = Some(card.version);
                    break;
                }
            }
            prop_assert_eq!(index.choose(row.place(), at(ts)).map(|card| card.version), chosen);
        }
    }
}
