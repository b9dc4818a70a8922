//! Rate cards: immutable versions, each valid from a moment on. A row's version is looked up by its time.

mod import;
mod text;

use goldleaves_domain::Timestamp;
use goldleaves_pricing::Rate;
use goldleaves_store::{Dialect, Params, Transaction, read};
use sea_orm::QueryResult;
use time::OffsetDateTime;

use crate::{Ledger, LedgerError};

pub use import::{ImportError, Imported};
pub use text::{RateCardsError, read_rate_cards, write_rate_cards};

/// The first moment there is: the first card is valid from here, which is before every event.
const BEGINNING_MICROS: i64 = -62_135_596_800_000_000;

/// One version of the default rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateCard {
    /// Counts from 1.
    pub version: i64,
    /// Cents a unit.
    pub rate: Rate,
    /// Valid for events from this moment on, until the next version is.
    pub effective_from: Timestamp,
}

impl Ledger {
    /// Makes a new version valid from `effective_from` when `rate` differs from the latest version's; the very first is
    /// valid for everything before, too. Never changes a version, and never makes one valid before another that is older.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn set_rate(&self, rate: Rate, effective_from: Timestamp) -> Result<RateCard, LedgerError> {
        self.write(async |transaction| set_rate(transaction, rate, effective_from).await).await
    }

    /// Every version of the default rate, oldest first.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn rate_cards(&self) -> Result<Vec<RateCard>, LedgerError> {
        let rows = self.read(&select_cards(""), Params::default()).await?;
        rows.iter().map(|row| card(self.dialect(), row)).collect()
    }

    /// The rate in force now, `None` before the first was set.
    pub(crate) async fn current_rate(&self) -> Result<Option<Rate>, LedgerError> {
        let now = now()?;
        let cards = self.rate_cards().await?;
        Ok(cards.iter().rfind(|card| card.effective_from <= now).map(|card| card.rate))
    }
}

impl std::fmt::Display for RateCard {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "version {}, {} cents a unit from {}", self.version, self.rate, self.effective_from)
    }
}

async fn set_rate(transaction: &Transaction, rate: Rate, from: Timestamp) -> Result<RateCard, LedgerError> {
    let dialect = transaction.dialect();
    if dialect == Dialect::Postgres {
        // Writers go on reading; only a second call waits, and then sees what the first one made.
        transaction.execute("LOCK TABLE rate_cards IN SHARE ROW EXCLUSIVE MODE", Params::default()).await?;
    }
    let rows = transaction.query(&select_cards(" DESC LIMIT 1"), Params::default()).await?;
    let latest = rows.first().map(|row| card(dialect, row)).transpose()?;
    let new = match latest {
        Some(latest) if latest.rate == rate => return Ok(latest),
        Some(latest) => RateCard { version: latest.version + 1, rate, effective_from: from.max(latest.effective_from) },
        None => RateCard { version: 1, rate, effective_from: beginning()? },
    };
    insert_card(transaction, &new).await?;
    Ok(new)
}

async fn insert_card(transaction: &Transaction, card: &RateCard) -> Result<(), LedgerError> {
    let mut params = Params::default();
    let version = params.bind(card.version);
    let micro = params.bind(micro_cents(card.rate));
    let from = params.bind(transaction.dialect().time(card.effective_from));
    let insert = format!(
        "INSERT INTO rate_cards (version, rate_micro_cents, effective_from) VALUES ({version}, {micro}, {from})"
    );
    transaction.execute(&insert, params).await?;
    Ok(())
}

/// Versions count up and never become valid before older ones, so their number is their order.
fn select_cards(order: &str) -> String {
    format!(
        "SELECT version, rate_micro_cents, effective_from FROM rate_cards WHERE card = 'default' ORDER BY version{order}"
    )
}

fn card(dialect: Dialect, row: &QueryResult) -> Result<RateCard, LedgerError> {
    Ok(RateCard {
        version: read(row, "version")?,
        rate: read_rate(row, "rate_micro_cents")?,
        effective_from: dialect.read_time(row, "effective_from")?,
    })
}

pub(crate) fn read_rate(row: &QueryResult, column: &str) -> Result<Rate, LedgerError> {
    let micro: i64 = read(row, column)?;
    u64::try_from(micro)
        .ok()
        .and_then(Rate::from_micro_cents)
        .ok_or_else(|| LedgerError::unreadable(column, "outside the range of rates"))
}

fn micro_cents(rate: Rate) -> i64 {
    i64::try_from(rate.micro_cents()).unwrap_or(i64::MAX)
}

fn beginning() -> Result<Timestamp, LedgerError> {
    Timestamp::from_unix_micros(BEGINNING_MICROS).map_err(|error| LedgerError::unreadable("effective_from", error))
}

fn now() -> Result<Timestamp, LedgerError> {
    Timestamp::from_date_time(OffsetDateTime::now_utc()).map_err(|error| LedgerError::unreadable("now", error))
}
