//! Reads the rate cards that rows are priced by, and forgets them when there are newer ones.

use std::sync::Arc;

use goldleaves_cards::Newest;

use crate::priced::PricedCards;
use crate::{Ledger, LedgerError};

impl Ledger {
    /// The cards, as they were when they were read last. There are none while the ledger lacks some that usage was priced by.
    pub(crate) async fn cards(&self) -> Result<Arc<PricedCards>, LedgerError> {
        if let Some(cards) = self.cache().get() {
            return Ok(cards);
        }
        let stored = self.cards_that_are_all().await?;
        let newest = stored.last().map(|stored| Newest { version: stored.card.version, created_at: stored.created_at });
        let cards = Arc::new(PricedCards::new(stored.into_iter().map(|stored| stored.card).collect(), newest));
        // A ledger without a card gets one soon, and what asks meanwhile is told so.
        if newest.is_some() {
            self.cache().set(Some(Arc::clone(&cards)));
        }
        Ok(cards)
    }

    /// The next one who asks for the cards reads them.
    pub(crate) fn forget_cards(&self) {
        self.cache().set(None);
    }
}
