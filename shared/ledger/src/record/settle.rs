//! The end of a transaction that billed something or set something aside, after its last write: nothing else of it waits for anybody.
//!
//! Two things must not be true at its commit: that an event is in two tables, and that a price was not the one in force. Neither is
//! seen from within, as another transaction may not have committed yet. So whoever comes here holds the writers' lock from
//! its look to its commit: those who billed share it, whoever set something aside holds it alone. Of two who met over an event the
//! later one finds what the earlier one wrote, and runs again.

use goldleaves_cards::{NEWEST, Newest};
use goldleaves_store::{Dialect, Hold, Params, Rows, Transaction, read};
use uuid::Uuid;

use crate::LedgerError;
use crate::priced::PricedCards;
use crate::record::letters;

/// The rows that a transaction wrote.
pub(super) struct Written<'a> {
    /// Events that it billed or found to be repeats, and the cards they were priced by.
    pub(super) billed: (&'a [Uuid], &'a PricedCards),
    /// Events that it set aside.
    pub(super) set_aside: &'a [Uuid],
}

/// Makes sure that what was written is right beside what others committed meanwhile.
pub(super) async fn settle(transaction: &Transaction, written: &Written<'_>) -> Result<(), LedgerError> {
    let (billed, cards) = written.billed;
    if transaction.dialect() == Dialect::Sqlite {
        // Nobody else wrote meanwhile.
        return if billed.is_empty() { Ok(()) } else { check_newest(Newest::read(transaction).await?, cards.newest()) };
    }
    if billed.is_empty() && written.set_aside.is_empty() {
        return Ok(());
    }
    let hold = if written.set_aside.is_empty() { Hold::Shared } else { Hold::Alone };
    // In a statement of its own: the look is to see what was committed before the lock was had.
    hold.take(transaction).await?;
    look(transaction, written).await
}

async fn look(transaction: &Transaction, written: &Written<'_>) -> Result<(), LedgerError> {
    let (billed, cards) = written.billed;
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let mut met = Vec::new();
    if !billed.is_empty() {
        let ids = Rows::new(dialect).column("id", billed.iter().copied()).query(&mut params);
        met.push(letters::select_ids(dialect, &ids));
    }
    if !written.set_aside.is_empty() {
        let ids = Rows::new(dialect).column("id", written.set_aside.iter().copied()).query(&mut params);
        met.push(format!(
            "SELECT '' FROM ({ids}) AS r WHERE EXISTS (SELECT 1 FROM usage_events AS e WHERE e.id = r.id) \
             OR EXISTS (SELECT 1 FROM usage_duplicates AS d WHERE d.id = r.id)"
        ));
    }
    let sql = format!(
        "SELECT (SELECT COUNT(*) FROM ({met}) AS m) AS met, c.version, c.created_at \
         FROM (VALUES (1)) AS one LEFT JOIN ({NEWEST}) AS c ON true",
        met = met.join(" UNION ALL "),
    );
    let rows = transaction.query(&sql, params).await?;
    let row = rows.first().ok_or(LedgerError::Contended)?;
    if read::<i64>(row, "met")? > 0 {
        return Err(LedgerError::Contended);
    }
    if billed.is_empty() {
        return Ok(());
    }
    let newest = match read::<Option<i64>>(row, "version")? {
        Some(version) => Some(Newest { version, created_at: dialect.read_time(row, "created_at")? }),
        None => None,
    };
    check_newest(newest, cards.newest())
}

fn check_newest(found: Option<Newest>, known: Option<Newest>) -> Result<(), LedgerError> {
    if found == known { Ok(()) } else { Err(LedgerError::RatesChanged) }
}
