//! Lines and shares: one line per rate version, rounded once, its cents shared among the groups that made it up.
//!
//! The only place where money is made. Every breakdown of a bill adds up to the bill, whatever it is grouped by and
//! however its cards price.

use std::collections::BTreeMap;

use crate::exact::multiply_divide;
use crate::{Cents, Pricing};

/// The use of something: how often, and how much in millionths of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Billed events.
    pub events: i64,
    /// Their units in millionths.
    pub units_micro: i128,
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.units_micro += other.units_micro;
    }
}

/// The use of a group, and its share of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Group {
    /// The use of the group.
    pub used: Used,
    /// The cents of the group.
    pub cents: Cents,
}

/// The usage of one range, by rate version and by the finest key that it is told by.
#[derive(Debug, Clone)]
pub struct Bill<K> {
    lines: BTreeMap<i64, BillLine<K>>,
}

#[derive(Debug, Clone)]
struct BillLine<K> {
    pricing: Pricing,
    parts: BTreeMap<K, Used>,
}

impl<K> Default for Bill<K> {
    fn default() -> Self {
        Self { lines: BTreeMap::new() }
    }
}

impl<K: Ord> Bill<K> {
    /// Adds usage to the line of a rate version, which has this pricing.
    pub fn add(&mut self, version: i64, pricing: &Pricing, key: K, used: Used) {
        let line = || BillLine { pricing: pricing.clone(), parts: BTreeMap::new() };
        *self.lines.entry(version).or_insert_with(line).parts.entry(key).or_default() += used;
    }

    /// Returns what was used.
    pub fn used(&self) -> Used {
        let mut sum = Used::default();
        self.lines.values().flat_map(|line| line.parts.values()).for_each(|used| sum += *used);
        sum
    }

    /// The sum of the lines.
    pub fn total(&self) -> Cents {
        self.lines.values().map(BillLine::cents).sum()
    }

    /// Returns what each group used and costs: of every line its share. The shares of all groups add up to [`Bill::total`].
    pub fn groups<'a, G: Ord + Clone>(&'a self, group_of: impl Fn(&'a K) -> G) -> BTreeMap<G, Group> {
        let mut groups: BTreeMap<G, Group> = BTreeMap::new();
        for ((_, group), part) in self.line_groups(group_of) {
            let sum = groups.entry(group).or_default();
            sum.used += part.used;
            sum.cents.0 += part.cents.0;
        }
        groups
    }

    /// Works like [`Bill::groups`], with the lines of each rate version apart.
    pub fn line_groups<'a, G: Ord + Clone>(&'a self, group_of: impl Fn(&'a K) -> G) -> BTreeMap<(i64, G), Group> {
        let mut groups = BTreeMap::new();
        for (version, line) in &self.lines {
            let mut used: BTreeMap<G, Used> = BTreeMap::new();
            line.parts.iter().for_each(|(key, part)| *used.entry(group_of(key)).or_default() += *part);
            let units = used.iter().map(|(group, used)| (group.clone(), used.units_micro)).collect();
            let mut shares = share(line.cents(), &units);
            for (group, used) in used {
                let cents = shares.remove(&group).unwrap_or_default();
                groups.insert((*version, group), Group { used, cents });
            }
        }
        groups
    }
}

impl<K> BillLine<K> {
    fn cents(&self) -> Cents {
        self.pricing.cost(self.parts.values().map(|used| used.units_micro).sum())
    }
}

/// Shares a line's cents by units, to the last cent: each group its part rounded down, what is left one cent each to the
/// largest remainders, of equal ones to the first key. Where nothing was used nothing is shared.
pub fn share<G: Ord + Clone>(cents: Cents, units: &BTreeMap<G, i128>) -> BTreeMap<G, Cents> {
    let total: i128 = units.values().sum();
    if total <= 0 {
        return units.keys().map(|group| (group.clone(), Cents::default())).collect();
    }
    let mut parts: Vec<(&G, i128, i128)> = units
        .iter()
        .map(|(group, units)| {
            let (cents, rest) = multiply_divide(cents.0, *units, total);
            (group, cents, rest)
        })
        .collect();
    let left = cents.0 - parts.iter().map(|(_, cents, _)| cents).sum::<i128>();
    // Stable, so that equal remainders stay in the order of their keys.
    parts.sort_by_key(|(_, _, rest)| std::cmp::Reverse(*rest));
    let shares = parts.into_iter().zip(0_i128..);
    shares.map(|((group, cents, _), at)| (group.clone(), Cents(cents + i128::from(at < left)))).collect()
}
