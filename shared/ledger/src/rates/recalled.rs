//! A ledger beside what is remembered of its cards: compares, brings back what can be brought back, and remembers what
//! usage is priced by.

use std::collections::BTreeSet;
use std::error::Error;

use goldleaves_cards::{ImportError, Imported, Newest, StoredCard, Which};
use goldleaves_pricing::RateCard;
use goldleaves_store::Params;
use tokio::sync::watch;

use crate::priced::PricedCards;
use crate::remembered::{LackingCards, RememberedCards};
use crate::{Ledger, LedgerError};

/// The number of the setting's newest cards of which is asked whether usage was priced by them. A backup lacks the newest.
const ASKED_OF: usize = 2;

impl Ledger {
    /// Recalls what was remembered elsewhere. Until the ledger has all these cards nothing is priced.
    pub fn recall(&self, cards: &RememberedCards) {
        if self.memory().join(cards) {
            self.forget_cards();
        }
    }

    /// Follows what is to be remembered.
    pub fn remembered_cards(&self) -> watch::Receiver<RememberedCards> {
        self.memory().known().subscribe()
    }

    /// Follows which remembered cards the ledger does not have, as of the last reading.
    pub fn lacking_cards(&self) -> watch::Receiver<Option<LackingCards>> {
        self.memory().said_lacking()
    }

    /// Looks whether the ledger has all cards that usage was priced by, as who prices does, and remembers those that an
    /// earlier release priced by.
    ///
    /// # Errors
    /// [`LedgerError::CardsWentBack`], cards that can't be kept, or a database that is away or refuses.
    pub async fn check_cards(&self) -> Result<(), LedgerError> {
        let newest = self.store().snapshot(async |transaction| Newest::read(transaction).await).await?;
        if self.cache().get().is_none_or(|cards| cards.newest() != newest) {
            self.forget_cards();
        }
        let cards = self.cards().await?;
        self.remember_earlier(&cards).await
    }

    /// Returns which remembered cards the ledger does not have now.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn lacks_cards(&self) -> Result<Option<LackingCards>, LedgerError> {
        self.memory().read_file().await?;
        Ok(self.lacks(&self.rate_cards().await?))
    }

    /// Imports the remembered cards that the ledger lacks; nothing where it lacks none.
    ///
    /// # Errors
    /// [`LedgerError::CardsWentBack`] with what is in the way, or a database that is away or refuses.
    pub async fn bring_back_cards(&self) -> Result<Imported, LedgerError> {
        match self.lacks_cards().await? {
            Some(lacking) => self.import_remembered(lacking).await,
            None => Ok(Imported::default()),
        }
    }

    /// Returns which remembered cards are not among these.
    pub(super) fn lacks(&self, cards: &[RateCard]) -> Option<LackingCards> {
        self.memory().known().borrow().lacking(cards)
    }

    /// Imports what is remembered into a ledger that lacks some of it.
    pub(super) async fn import_remembered(&self, lacking: LackingCards) -> Result<Imported, LedgerError> {
        let known = self.memory().known().borrow().clone();
        let refused =
            |obstacle: String| LedgerError::CardsWentBack(LackingCards { obstacle: Some(obstacle), ..lacking.clone() });
        if !known.is_all_that(&lacking) {
            let obstacle = "it may lack older cards as well, of which nothing is noted; goldleaves rate-cards import brings \
                            them all back from the file that was exported";
            return Err(refused(obstacle.to_owned()));
        }
        let imported = match self.import_rate_cards(&known.cards()).await {
            Ok(imported) => imported,
            Err(ImportError::Store(error)) if error.is_transient() => return Err(error.into()),
            Err(error) => return Err(refused(said(&error))),
        };
        for card in &imported.replaced {
            tracing::warn!("the rate card {card} gives way to one that usage was priced by");
        }
        for card in &imported.added {
            tracing::warn!("the ledger lacked the rate card {card}, by which usage was priced; it is there again");
        }
        self.forget_cards();
        Ok(imported)
    }

    /// Remembers by which cards usage is priced by a transaction that is about to be committed.
    pub(crate) async fn keep(&self, cards: &PricedCards, used: &BTreeSet<i64>) -> Result<(), LedgerError> {
        if used.is_empty() || self.memory().is_known(cards, used) {
            return Ok(());
        }
        let new = self.memory().unknown(cards, used);
        self.memory().remember(&new).await?;
        cards.set_remembered();
        Ok(())
    }

    /// Remembers what the ledger priced by before anybody did: once for each reading of its cards.
    async fn remember_earlier(&self, cards: &PricedCards) -> Result<(), LedgerError> {
        if cards.is_looked_at() {
            return Ok(());
        }
        let asked: Vec<RateCard> = cards.of_setting().rev().take(ASKED_OF).cloned().collect();
        let mut used = BTreeSet::new();
        for card in &asked {
            if !self.memory().knows(card) && self.has_usage(Some(card)).await? {
                used.insert(card.version);
            }
        }
        if !used.is_empty() || self.has_usage(None).await? {
            self.memory().remember(&self.memory().unknown(cards, &used)).await?;
        }
        cards.set_looked_at();
        Ok(())
    }

    /// Returns whether anything was billed, or anything by this card.
    async fn has_usage(&self, by: Option<&RateCard>) -> Result<bool, LedgerError> {
        let mut params = Params::default();
        let condition = match by {
            Some(card) => {
                let hour = params.bind(self.dialect().time(card.effective_from.hour()));
                format!("WHERE hour >= {hour} AND rate_version = {}", params.bind(card.version))
            }
            None => String::new(),
        };
        let sql = format!("SELECT 1 AS used FROM usage_rollups {condition} LIMIT 1");
        Ok(!self.read(&sql, params).await?.is_empty())
    }

    /// The cards that are stored, once they are all that usage was priced by.
    pub(super) async fn cards_that_are_all(&self) -> Result<Vec<StoredCard>, LedgerError> {
        self.memory().read_file().await?;
        let mut brought_back = false;
        loop {
            let stored = self.read_cards(Which::All).await?;
            let cards: Vec<RateCard> = stored.iter().map(|stored| stored.card.clone()).collect();
            let Some(lacking) = self.lacks(&cards) else {
                self.memory().say(None);
                return Ok(stored);
            };
            if brought_back || !self.memory().has_file() {
                self.memory().say(Some(&lacking));
                return Err(LedgerError::CardsWentBack(lacking));
            }
            if let Err(error) = self.import_remembered(lacking).await {
                if let LedgerError::CardsWentBack(lacking) = &error {
                    self.memory().say(Some(lacking));
                }
                return Err(error);
            }
            brought_back = true;
        }
    }
}

/// An error with its causes, in a line.
fn said(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
