//! A batch goes in: billable events, then what is set aside, then seals.

mod follow;
mod insert;
mod letters;
mod locks;
mod receipts;
mod repeats;
mod seals;
mod settle;
mod totals;

use std::collections::HashSet;

use goldleaves_store::Transaction;
use uuid::Uuid;

use crate::batch::{Batch, DeadLetter, EventRow, notes, refused_letter};
use crate::priced::PricedCards;
use crate::progress::{self, Note};
use crate::{Incoming, Ledger, LedgerError, Recorded};
use settle::{Written, settle};
use totals::Totals;

/// The number of times a batch runs again when a dead letter of one of its events, or a rate card, appeared in the
/// meantime.
const ATTEMPTS: usize = 5;

impl Ledger {
    /// Records a batch. Each event goes in whole or not at all; calling again with the same messages, in any batch and
    /// any order, changes nothing.
    ///
    /// # Errors
    /// Transient ones, after which the same batch is to be recorded again; all others concern one message of the batch,
    /// which [`Ledger::refuse`] sets aside once it is found.
    pub async fn record(&self, incoming: &[Incoming]) -> Result<Recorded, LedgerError> {
        let mut recorded = Recorded::default();
        self.record_counting(incoming, &mut recorded).await?;
        Ok(recorded)
    }

    /// Works like [`Ledger::record`]. After an error too, what was committed before it is counted in `recorded`.
    ///
    /// # Errors
    /// As [`Ledger::record`].
    pub async fn record_counting(&self, incoming: &[Incoming], recorded: &mut Recorded) -> Result<(), LedgerError> {
        let batch = Batch::sort(incoming)?;
        let notes = notes(incoming);
        let waiting = self.record_events(&batch, &notes, recorded).await?;
        recorded.replays += batch.copies;
        if !waiting.is_empty() || !batch.letters.is_empty() {
            self.record_letters(&batch, &waiting, &notes, recorded).await?;
        }
        if !batch.seals.is_empty() {
            let done = self.write(async |transaction| {
                seals::write(transaction, &batch.seals).await?;
                progress::write(transaction, &notes).await
            });
            done.await?;
            recorded.seals += batch.seals.len() as u64;
        }
        Ok(())
    }

    /// Sets one message aside that [`Ledger::record`] does not take, with the reason `refused`.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn refuse(&self, message: &Incoming, detail: &str) -> Result<Recorded, LedgerError> {
        let detail: String = detail.chars().filter(|char| !char.is_control()).take(500).collect();
        let letter = DeadLetter { arrivals: Vec::new(), ..refused_letter(message, &detail) };
        let batch = Batch { letters: vec![letter], ..Batch::default() };
        let (notes, mut recorded) = (notes(std::slice::from_ref(message)), Recorded::default());
        self.record_letters(&batch, &HashSet::new(), &notes, &mut recorded).await?;
        Ok(recorded)
    }

    /// Records the billable events of a batch, but for those that wait as a dead letter; those are returned. Where nothing
    /// else is left to record, `notes` are written with them.
    async fn record_events(
        &self,
        batch: &Batch<'_>,
        notes: &[Note<'_>],
        recorded: &mut Recorded,
    ) -> Result<HashSet<Uuid>, LedgerError> {
        if batch.events.is_empty() {
            return Ok(HashSet::new());
        }
        let events: Vec<&EventRow<'_>> = batch.events.iter().collect();
        let mut attempts = 1;
        loop {
            let cards = self.cards().await?;
            let done = self.write(async |transaction| {
                let (mut totals, mut recorded) = (Totals::new(self.shard()), Recorded::default());
                let writing = Writing { cards: &cards, totals: &mut totals, recorded: &mut recorded };
                let inserted = insert_events(transaction, &events, writing).await?;
                let used = totals.versions();
                recorded.late_changes = totals.write(transaction).await?;
                if batch.letters.is_empty() && batch.seals.is_empty() && inserted.waiting.is_empty() {
                    progress::write(transaction, notes).await?;
                }
                settle(transaction, &Written { billed: (&inserted.new, &cards), set_aside: &[] }).await?;
                self.keep(&cards, &used).await?;
                Ok((inserted.waiting, recorded))
            });
            match done.await {
                Ok((waiting, done)) => {
                    *recorded += done;
                    return Ok(waiting);
                }
                Err(error) => self.go_on(error, &mut attempts, recorded)?,
            }
        }
    }

    /// Records the events that wait as a dead letter, and what is set aside.
    async fn record_letters(
        &self,
        batch: &Batch<'_>,
        waiting: &HashSet<Uuid>,
        notes: &[Note<'_>],
        recorded: &mut Recorded,
    ) -> Result<(), LedgerError> {
        let events: Vec<&EventRow<'_>> = batch.events.iter().filter(|row| waiting.contains(&row.id())).collect();
        let mut attempts = 1;
        loop {
            let cards = self.cards().await?;
            let done = self.write(async |transaction| {
                let (mut totals, mut recorded) = (Totals::new(self.shard()), Recorded::default());
                let reasons = letters::hold(transaction, &events, &batch.letters).await?;
                letters::delete_outranked(transaction, &events).await?;
                let writing = Writing { cards: &cards, totals: &mut totals, recorded: &mut recorded };
                let inserted = insert_events(transaction, &events, writing).await?;
                if !inserted.waiting.is_empty() {
                    // Another worker set them aside once more.
                    return Err(LedgerError::Contended);
                }
                let set_aside = letters::write(transaction, &batch.letters, &reasons, &mut recorded).await?;
                batch.letters.iter().for_each(|letter| totals.arrived(&letter.arrivals));
                let used = totals.versions();
                recorded.late_changes = totals.write(transaction).await?;
                if batch.seals.is_empty() {
                    progress::write(transaction, notes).await?;
                }
                settle(transaction, &Written { billed: (&inserted.new, &cards), set_aside: &set_aside }).await?;
                self.keep(&cards, &used).await?;
                Ok(recorded)
            });
            match done.await {
                Ok(done) => {
                    *recorded += done;
                    return Ok(());
                }
                Err(error) => self.go_on(error, &mut attempts, recorded)?,
            }
        }
    }

    /// Returns whether a transaction is to run again: a dead letter or a rate card appeared that it did not know of.
    fn go_on(&self, error: LedgerError, attempts: &mut usize, recorded: &mut Recorded) -> Result<(), LedgerError> {
        *attempts += 1;
        match error {
            LedgerError::RatesChanged => {
                self.forget_cards();
                recorded.rate_card_retries += 1;
            }
            LedgerError::Contended => {}
            error => return Err(error),
        }
        if *attempts > ATTEMPTS { Err(error) } else { Ok(()) }
    }
}

/// The transaction that the parts of a batch are written with, and the sums that they are added to.
struct Writing<'a> {
    cards: &'a PricedCards,
    totals: &'a mut Totals,
    recorded: &'a mut Recorded,
}

/// The fate of the events of a batch, beside what is counted.
#[derive(Debug, Default)]
struct Inserted {
    /// Now billed or repeats: no dead letter may have their ids.
    new: Vec<Uuid>,
    /// A dead letter has their ids, so nothing was done.
    waiting: HashSet<Uuid>,
}

/// Inserts what is new, sends what lost its label the slow way, and leaves replays and dead letters alone.
async fn insert_events(
    transaction: &Transaction,
    events: &[&EventRow<'_>],
    mut writing: Writing<'_>,
) -> Result<Inserted, LedgerError> {
    if events.is_empty() {
        return Ok(Inserted::default());
    }
    let mut new = insert::fast(transaction, events, &mut writing).await?;
    let lost: Vec<&EventRow<'_>> = events.iter().filter(|row| !new.contains(&row.id())).copied().collect();
    let found = insert::find(transaction, &lost).await?;
    writing.recorded.replays += found.replays.len() as u64;
    let lost: Vec<&EventRow<'_>> = lost.into_iter().filter(|row| found.is_unknown(row.id())).collect();
    if !lost.is_empty() {
        new.extend(repeats::record(transaction, &lost, &mut writing).await?);
    }
    for row in events.iter().filter(|row| !found.waiting.contains(&row.id())) {
        writing.totals.arrived(&row.arrivals);
    }
    Ok(Inserted { new: new.into_iter().collect(), waiting: found.waiting })
}

impl std::ops::AddAssign for Recorded {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.duplicates += other.duplicates;
        self.replays += other.replays;
        self.rate_card_retries += other.rate_card_retries;
        self.late_changes += other.late_changes;
        self.displaced += other.displaced;
        for (reason, count) in other.set_aside {
            *self.set_aside.entry(reason).or_default() += count;
        }
        self.seals += other.seals;
        for (route, cents) in other.cost_cents {
            *self.cost_cents.entry(route).or_default() += cents;
        }
    }
}

impl Recorded {
    /// `cents` more, or less, were earned with a route.
    fn earned(&mut self, route: &str, cents: i64) {
        match self.cost_cents.get_mut(route) {
            Some(sum) => *sum += cents,
            None => _ = self.cost_cents.insert(route.to_owned(), cents),
        }
    }
}
