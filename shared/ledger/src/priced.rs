//! The rate cards as a worker holds them, and the newest one's mark by which it learns that they are no longer all.
//!
//! Rows are priced here, not in the inserting statement: a look-up of the narrowest card there costs more than all the rest.
//! It is exact all the same. The last statement of a transaction compares the newest card's mark; another one rolls it back,
//! and it runs again with the cards read anew.

use std::sync::{Arc, PoisonError, RwLock};

use goldleaves_cards::Newest;
use goldleaves_domain::UsageEvent;
use goldleaves_pricing::{Place, RateCard, RateCards};

use crate::LedgerError;

/// The card version of a row, and what the row costs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Priced {
    pub(crate) rate_version: i64,
    pub(crate) cost_cents: i64,
}

/// All rate cards of one moment.
#[derive(Debug, Default)]
pub(crate) struct PricedCards {
    cards: RateCards,
    newest: Option<Newest>,
}

impl PricedCards {
    /// The cards of one moment, and the newest of them.
    pub(crate) fn new(cards: Vec<RateCard>, newest: Option<Newest>) -> Self {
        Self { cards: RateCards::new(cards), newest }
    }

    /// Prices a row.
    pub(crate) fn price(&self, event: &UsageEvent) -> Result<Priced, LedgerError> {
        let place =
            Place { tenant_id: event.tenant_id.as_str(), route: event.route.as_str(), action: event.action.as_str() };
        let card = self.cards.choose(place, event.ts).ok_or(LedgerError::NoRate)?;
        let cents = card.pricing.cost(event.units.micro().into());
        // Informative, so that a card beyond all reason may be cut.
        Ok(Priced { rate_version: card.version, cost_cents: i64::try_from(cents.0).unwrap_or(i64::MAX) })
    }

    /// The newest of them.
    pub(crate) const fn newest(&self) -> Option<Newest> {
        self.newest
    }
}

/// The cards that were read last, shared by the clones of a ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cache(Arc<RwLock<Option<Arc<PricedCards>>>>);

impl Cache {
    pub(crate) fn get(&self) -> Option<Arc<PricedCards>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, cards: Option<Arc<PricedCards>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = cards;
    }
}
