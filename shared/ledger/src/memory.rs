//! The cards that usage was priced by, remembered beside the ledger: one that was restored from a backup may have lost some of
//! them, and would price the same events otherwise.
//!
//! Nothing is priced while a remembered card is not there. What this does not do: it asks nobody but a file what was
//! remembered before (whoever has another place beside the ledger calls `Ledger::recall`), and asks no ledger.

use std::collections::BTreeSet;
use std::sync::Arc;

use goldleaves_cards::{CardsFile, CardsFileError};
use goldleaves_pricing::RateCard;
use tokio::sync::{Mutex, OnceCell, watch};

use crate::LedgerError;
use crate::priced::PricedCards;
use crate::remembered::{LackingCards, RememberedCards};

/// The memory of this process. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: watch::Sender<RememberedCards>,
    lacking: watch::Sender<Option<LackingCards>>,
    /// Where they outlive the process, and whether it was read.
    file: Option<CardsFile>,
    was_read: OnceCell<()>,
    writing: Mutex<()>,
}

impl Memory {
    /// A memory that outlives the process.
    pub(crate) fn in_file(file: CardsFile) -> Self {
        Self(Arc::new(Shared { file: Some(file), ..Shared::default() }))
    }

    /// True where what is lacking may be brought back at once: whoever has the file owns the ledger.
    pub(crate) fn has_file(&self) -> bool {
        self.0.file.is_some()
    }

    pub(crate) fn known(&self) -> &watch::Sender<RememberedCards> {
        &self.0.known
    }

    pub(crate) fn said_lacking(&self) -> watch::Receiver<Option<LackingCards>> {
        self.0.lacking.subscribe()
    }

    /// Recalls what the file holds, if that was not done.
    pub(crate) async fn read_file(&self) -> Result<(), LedgerError> {
        let Some(file) = self.0.file.clone() else { return Ok(()) };
        let read = self.0.was_read.get_or_try_init(async || {
            let cards = blocking(move || file.read()).await?;
            self.join(&cards.into_iter().collect());
            Ok(())
        });
        read.await.copied()
    }

    /// Adds to what is known. Returns whether that changed anything.
    pub(crate) fn join(&self, cards: &RememberedCards) -> bool {
        self.0.known.send_if_modified(|known| known.join(cards))
    }

    /// Says what is lacking, once, and remembers it for who follows it.
    pub(crate) fn say(&self, lacking: Option<&LackingCards>) {
        self.0.lacking.send_if_modified(|said| {
            if said.as_ref() == lacking {
                return false;
            }
            match (lacking, &self.0.file) {
                (None, _) => tracing::info!("the ledger has again all rate cards that usage was priced by"),
                (Some(lacking), None) => tracing::error!(
                    "{lacking}; nothing is priced until it has them: migrate brings them back, or goldleaves rate-cards \
                     import with the file that was exported"
                ),
                (Some(lacking), Some(file)) => tracing::error!(
                    "{lacking}; nothing is priced until the ledger has the cards of {file}. Restore another backup, or, if \
                     the ledger's own cards are the right ones, stop, remove that file and start again",
                    file = file.path().display()
                ),
            }
            *said = lacking.cloned();
            true
        });
    }

    /// Returns whether a card of this version is remembered.
    pub(crate) fn knows(&self, card: &RateCard) -> bool {
        self.0.known.borrow().has(card.version)
    }

    /// Returns whether nothing is to be remembered once usage was priced by these versions.
    pub(crate) fn is_known(&self, cards: &PricedCards, used: &BTreeSet<i64>) -> bool {
        cards.is_remembered() && used.iter().all(|version| self.0.known.borrow().has(*version))
    }

    /// The cards among these that are to be remembered and are not yet, once usage was priced by versions of them.
    pub(crate) fn unknown(&self, cards: &PricedCards, used: &BTreeSet<i64>) -> RememberedCards {
        let known = self.0.known.borrow();
        cards.to_remember(used).filter(|card| !known.has(card.version)).cloned().collect()
    }

    /// Usage is priced by these cards. When this returns they are remembered, on the disk where there is a file.
    pub(crate) async fn remember(&self, cards: &RememberedCards) -> Result<(), LedgerError> {
        if let Some(file) = self.0.file.clone() {
            let _turn = self.0.writing.lock().await;
            let mut all = self.0.known.borrow().clone();
            if all.join(cards) {
                let write = move || {
                    all.join(&file.read()?.into_iter().collect());
                    file.write(&all.cards())
                };
                blocking(write).await?;
            }
            self.join(cards);
        } else {
            self.join(cards);
        }
        Ok(())
    }
}

/// Runs what may wait for a disk where it keeps nothing else waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CardsFileError> + Send + 'static,
) -> Result<T, LedgerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        // The runtime ends.
        Err(_) => Err(LedgerError::Contended),
    }
}
