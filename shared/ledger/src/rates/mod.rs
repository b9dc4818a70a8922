//! Rate cards as workers use them: held in memory, and made by the setting of the price.

mod cache;
mod recalled;
mod setting;

use std::collections::HashMap;

use chrono::Utc;
use goldleaves_cards::{ImportError, Imported, StoredCard, Which, select};
use goldleaves_domain::Timestamp;
use goldleaves_pricing::RateCard;
use goldleaves_store::Params;

use crate::{Ledger, LedgerError};

pub use setting::{Leap, RateChange};

impl Ledger {
    /// Every card, oldest version first.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn rate_cards(&self) -> Result<Vec<RateCard>, LedgerError> {
        Ok(self.read_cards(Which::All).await?.into_iter().map(|stored| stored.card).collect())
    }

    /// The default card in force now, `None` before there is one.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn default_card(&self) -> Result<Option<RateCard>, LedgerError> {
        Ok(self.read_cards(Which::DefaultAt(now()?)).await?.into_iter().next().map(|stored| stored.card))
    }

    /// Makes these cards the ledger's, as [`goldleaves_cards::import`] does.
    ///
    /// # Errors
    /// Cards that contradict what was priced, or a database that is away or refuses.
    pub async fn import_rate_cards(&self, cards: &[RateCard]) -> Result<Imported, ImportError> {
        self.store()
            .write(async |transaction| goldleaves_cards::import(transaction, cards, &HashMap::new()).await)
            .await
    }

    async fn read_cards(&self, which: Which<'_>) -> Result<Vec<StoredCard>, LedgerError> {
        let mut params = Params::default();
        let sql = select(self.dialect(), which, &mut params);
        Ok(StoredCard::read_all(self.dialect(), &self.read(&sql, params).await?)?)
    }
}

fn now() -> Result<Timestamp, LedgerError> {
    Timestamp::from_date_time(Utc::now()).map_err(|error| LedgerError::unreadable("now", error))
}
