//! Rate cards, and which of them prices a row: a pure function of the cards, the row's tenant, route and action, and its time.

use std::collections::HashMap;
use std::fmt;

use goldleaves_domain::Timestamp;
use uuid::Uuid;

use crate::Pricing;

/// The usage that a card prices. An empty part is for all there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector {
    /// The tenant.
    pub tenant_id: String,
    /// The route, as an event has it.
    pub route: String,
    /// The action.
    pub action: String,
}

impl Selector {
    /// The row that it would fit exactly.
    pub fn place(&self) -> Place<'_> {
        Place { tenant_id: &self.tenant_id, route: &self.route, action: &self.action }
    }

    /// Returns how narrow it is: a tenant counts 4, a route 2, an action 1.
    pub fn weight(&self) -> u8 {
        let parts = [(4, &self.tenant_id), (2, &self.route), (1, &self.action)];
        parts.into_iter().filter(|(_, part)| !part.is_empty()).map(|(weight, _)| weight).sum()
    }

    /// Returns whether a row is among those that it is for.
    pub fn fits(&self, row: Place<'_>) -> bool {
        let parts = [(&self.tenant_id, row.tenant_id), (&self.route, row.route), (&self.action, row.action)];
        parts.into_iter().all(|(part, of_row)| part.is_empty() || part == of_row)
    }

    /// Returns whether it is for everybody and everything: the selector of the default card.
    pub fn is_default(&self) -> bool {
        self.tenant_id.is_empty() && self.route.is_empty() && self.action.is_empty()
    }
}

/// The tenant, route and action of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place<'a> {
    /// The tenant.
    pub tenant_id: &'a str,
    /// The route.
    pub route: &'a str,
    /// The action.
    pub action: &'a str,
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() {
            return out.write_str("the default");
        }
        let parts = [("tenant", &self.tenant_id), ("route", &self.route), ("action", &self.action)];
        let mut between = "";
        for (name, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            write!(out, "{between}{name} {value}")?;
            between = ", ";
        }
        Ok(())
    }
}

/// The origin of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From `USAGE_RATE_CENTS`.
    Setting,
    /// By a call of the billing API.
    Api,
}

impl Origin {
    /// Returns the text that a column holds.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Api => "api",
        }
    }

    /// The origin of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Setting, Self::Api].into_iter().find(|origin| origin.as_str() == name)
    }
}

/// One version of a price. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateCard {
    /// Counts from 1, over all cards.
    pub version: i64,
    /// The caller's id, for cards that were made by the API.
    pub id: Option<Uuid>,
    /// The usage that it prices.
    pub selector: Selector,
    /// The price.
    pub pricing: Pricing,
    /// It prices events from this moment on, until another card of its selector does.
    pub effective_from: Timestamp,
    /// The origin of it.
    pub origin: Origin,
    /// The user who made it by the API.
    pub actor: Option<String>,
    /// The reason.
    pub reason: Option<String>,
}

impl fmt::Display for RateCard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "version {}, {}", self.version, self.pricing)?;
        if !self.selector.is_default() {
            write!(out, " for {}", self.selector)?;
        }
        write!(out, " from {}", self.effective_from)
    }
}

/// All cards, so that a row's card is found in a moment, however many tenants have their own.
#[derive(Debug, Default)]
pub struct RateCards {
    cards: Vec<RateCard>,
    /// By tenant, route and action, each with '' for any: the places of the cards of one selector, latest last.
    places: HashMap<String, HashMap<String, HashMap<String, Vec<usize>>>>,
}

impl RateCards {
    /// These cards, in any order.
    pub fn new(mut cards: Vec<RateCard>) -> Self {
        cards.sort_by_key(|card| (card.effective_from, card.version));
        let mut places: HashMap<String, HashMap<String, HashMap<String, Vec<usize>>>> = HashMap::new();
        for (at, card) in cards.iter().enumerate() {
            let Selector { tenant_id, route, action } = card.selector.clone();
            places.entry(tenant_id).or_default().entry(route).or_default().entry(action).or_default().push(at);
        }
        Self { cards, places }
    }

    /// Every card, in the order in which they became valid.
    pub fn all(&self) -> &[RateCard] {
        &self.cards
    }

    /// The card that prices a row of this tenant, route and action at this time. Of the selectors that fit, that with the
    /// tenant comes first, then that with the route, then that with the action; the first whose card in force is no
    /// [`Pricing::Inherit`] prices the row. `None`: there is not even a default card.
    pub fn choose(&self, row: Place<'_>, ts: Timestamp) -> Option<&RateCard> {
        self.choose_but_for(row, ts, None)
    }

    /// Works like [`RateCards::choose`], with one further card in force at all times, for a question of what would be.
    pub fn choose_with<'a>(&'a self, row: Place<'_>, ts: Timestamp, with: &'a RateCard) -> Option<&'a RateCard> {
        self.choose_but_for(row, ts, Some(with))
    }

    fn choose_but_for<'a>(&'a self, row: Place<'_>, ts: Timestamp, with: Option<&'a RateCard>) -> Option<&'a RateCard> {
        for tenant in either(row.tenant_id) {
            let routes = self.places.get(tenant);
            for route in either(row.route) {
                let actions = routes.and_then(|routes| routes.get(route));
                for action in either(row.action) {
                    let is_place = |selector: &Selector| {
                        selector.tenant_id == tenant && selector.route == route && selector.action == action
                    };
                    let card = match with {
                        Some(card) if is_place(&card.selector) => Some(card),
                        _ => actions.and_then(|actions| actions.get(action)).and_then(|at| self.in_force(at, ts)),
                    };
                    if let Some(card) = card.filter(|card| card.pricing != Pricing::Inherit) {
                        return Some(card);
                    }
                }
            }
        }
        None
    }

    /// The default card in force at this time.
    pub fn default_at(&self, ts: Timestamp) -> Option<&RateCard> {
        self.choose(Place::default(), ts)
    }

    fn in_force(&self, places: &[usize], ts: Timestamp) -> Option<&RateCard> {
        let in_force = |place: &usize| self.cards.get(*place).filter(|card| card.effective_from <= ts);
        places.iter().rev().find_map(in_force)
    }
}

/// A part of a selector and the part that is for all, unless they are the same.
fn either(part: &str) -> impl Iterator<Item = &str> {
    std::iter::once(part).chain((!part.is_empty()).then_some(""))
}
