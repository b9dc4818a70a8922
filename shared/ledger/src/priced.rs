//! The rate cards as a worker holds them, and the newest one's mark by which it learns that they are no longer all.
//!
//! Rows are priced here, not in the inserting statement: a look-up of the narrowest card there costs more than all the rest.
//! It is exact all the same. The last statement of a transaction compares the newest card's mark; another one rolls it back,
//! and it runs again with the cards read anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use goldleaves_cards::Newest;
use goldleaves_domain::UsageEvent;
use goldleaves_pricing::{Origin, Place, RateCard, RateCards};

use crate::LedgerError;
use crate::remembered::is_first;

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
    /// True once those that are remembered whatever usage is priced by are.
    remembered: AtomicBool,
    /// True once the ledger was asked which of them it priced by before.
    looked_at: AtomicBool,
}

impl PricedCards {
    /// The cards of one moment, and the newest of them.
    pub(crate) fn new(cards: Vec<RateCard>, newest: Option<Newest>) -> Self {
        Self { cards: RateCards::new(cards), newest, ..Self::default() }
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

    /// Returns those that are to be remembered once usage was priced by these versions: a card of the setting that priced nothing may
    /// give way to an import, and what a person made may not.
    pub(crate) fn to_remember(&self, used: &BTreeSet<i64>) -> impl Iterator<Item = &RateCard> {
        let stays = |card: &&RateCard| card.origin != Origin::Setting || is_first(card);
        self.cards.all().iter().filter(move |card| stays(card) || used.contains(&card.version))
    }

    /// Returns those of the setting, in the order in which they became valid.
    pub(crate) fn of_setting(&self) -> impl DoubleEndedIterator<Item = &RateCard> {
        self.cards.all().iter().filter(|card| card.origin == Origin::Setting)
    }

    pub(crate) fn is_remembered(&self) -> bool {
        self.remembered.load(Ordering::Relaxed)
    }

    pub(crate) fn set_remembered(&self) {
        self.remembered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_looked_at(&self) -> bool {
        self.looked_at.load(Ordering::Relaxed)
    }

    pub(crate) fn set_looked_at(&self) {
        self.looked_at.store(true, Ordering::Relaxed);
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
