//! The price of `USAGE_RATE_CENTS`: when it makes a new version of the default card, and from which moment.
//!
//! The moment is chosen under the lock that keeps writers out, after everything that was priced so far, so that the same
//! events and cards give the same bill in whatever order they are recorded.

use std::fmt;

use goldleaves_cards::{BEGINNING_MICROS, NewRow, StoredCard, Which, insert, next_version, select};
use goldleaves_domain::Timestamp;
use goldleaves_pricing::{Origin, Pricing, Rate, RateCard, Selector};
use goldleaves_store::{Hold, Params, StoreError, Transaction};

use crate::rates::now;
use crate::{Ledger, LedgerError};

/// The rate of the first card when nobody says one.
const FIRST_RATE_MICRO_CENTS: u64 = 25_000_000;
/// A change by more than this factor, either way, is likely a mistake.
const LEAP: u64 = 4;

/// Says whether a price may change by more than a factor of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leap {
    /// It may: somebody said so.
    Allowed,
    /// It may not.
    Refused,
}

/// The result of setting the price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateChange {
    /// The ledger had no card: this is its first.
    First(RateCard),
    /// Nothing changed.
    Unchanged {
        /// The default card in force.
        in_force: RateCard,
        /// The default card that will be, if one waits.
        scheduled: Option<RateCard>,
    },
    /// There is a new version.
    Changed {
        /// The card that was in force.
        from: RateCard,
        /// The new one.
        to: RateCard,
    },
    /// Nothing changed, because the price would have changed by more than a factor of four.
    TooFar {
        /// The card in force.
        in_force: RateCard,
        /// The rate that was asked for.
        wanted: Rate,
    },
}

/// Writes what became of the price, in a line for the one who set it.
impl fmt::Display for RateChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(card) => write!(out, "price: {}, version {}, the first card", card.pricing, card.version),
            Self::Unchanged { in_force, scheduled } => {
                write!(out, "price unchanged: {}, version {}", in_force.pricing, in_force.version)?;
                match scheduled {
                    Some(card) => write!(out, "; {card} is scheduled and stays"),
                    None => Ok(()),
                }
            }
            Self::Changed { from, to } => {
                let (from, to_rate) = (from.pricing.short(), to.pricing.short());
                write!(out, "price: {from} → {to_rate} from {}, version {}", to.effective_from, to.version)
            }
            Self::TooFar { in_force, wanted } => write!(
                out,
                "price unchanged: {} → {wanted} would be a change by more than a factor of {LEAP}",
                in_force.pricing.short()
            ),
        }
    }
}

impl Ledger {
    /// Makes the default card cost `rate`, from this moment on: a new version where it differs from what the setting said
    /// last, and the ledger's first card where there is none. `None`, a setting that is unset, changes no price.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn apply_rate(&self, rate: Option<Rate>, leap: Leap) -> Result<RateChange, LedgerError> {
        self.write(async |transaction| apply(transaction, WantedPrice { rate, leap, not_before: None }).await).await
    }

    /// Works like [`Ledger::apply_rate`] with a price of any size, for a moment of the caller's choice: the card is valid from it
    /// on, or from after what was priced so far. Returns the card that then has this price.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn set_rate(&self, rate: Rate, not_before: Timestamp) -> Result<RateCard, LedgerError> {
        let wanted = WantedPrice { rate: Some(rate), leap: Leap::Allowed, not_before: Some(not_before) };
        let change = self.write(async |transaction| apply(transaction, wanted).await).await?;
        Ok(match change {
            RateChange::First(card) | RateChange::Changed { to: card, .. } => card,
            RateChange::Unchanged { in_force, .. } | RateChange::TooFar { in_force, .. } => in_force,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct WantedPrice {
    rate: Option<Rate>,
    leap: Leap,
    not_before: Option<Timestamp>,
}

async fn apply(transaction: &Transaction, wanted: WantedPrice) -> Result<RateChange, LedgerError> {
    Hold::Alone.take(transaction).await?;
    let (dialect, mut params) = (transaction.dialect(), Params::default());
    let rows = transaction.query(&select(dialect, Which::Default, &mut params), params).await?;
    let stored = StoredCard::read_all(dialect, &rows)?;
    let mut cards: Vec<RateCard> = stored.into_iter().map(|stored| stored.card).collect();
    cards.sort_by_key(|card| (card.effective_from, card.version));
    let now = now()?;
    let Some(in_force) = cards.iter().rfind(|card| card.effective_from <= now).or(cards.first()) else {
        return first(transaction, wanted.rate).await;
    };
    let scheduled = cards.last().filter(|card| card.effective_from > now && *card != in_force).cloned();
    let in_force = in_force.clone();
    let Some(rate) = wanted.rate.filter(|rate| differs(*rate, &cards, now)) else {
        return Ok(RateChange::Unchanged { in_force, scheduled });
    };
    if wanted.leap == Leap::Refused && is_leap(in_force.pricing.highest_rate(), rate) {
        return Ok(RateChange::TooFar { in_force, wanted: rate });
    }
    let after = last_priced(transaction).await?.and_then(|moment| moment.plus_micros(1));
    // Of the setting's own cards the newest is the one that holds.
    let latest = cards.iter().filter(|card| card.origin == Origin::Setting).map(|card| card.effective_from).max();
    let not_before = wanted.not_before.unwrap_or(now);
    let effective_from = [after, latest].into_iter().flatten().fold(not_before, Timestamp::max);
    let to = RateCard { version: next_version(transaction).await?, effective_from, ..of_setting(rate)? };
    insert(transaction, NewRow { card: &to, created_at: None }).await?;
    Ok(RateChange::Changed { from: in_force, to })
}

/// Returns whether the setting says something new: another price than it said last, and than it says now where what it said last
/// is still to come. A card that somebody made by the API, or that waits for its day, is not undone by a restart.
fn differs(rate: Rate, cards: &[RateCard], now: Timestamp) -> bool {
    let ours = || cards.iter().filter(|card| card.origin == Origin::Setting);
    let (latest, in_force) = (ours().next_back(), ours().rfind(|card| card.effective_from <= now));
    ![latest, in_force].into_iter().flatten().any(|card| card.pricing == Pricing::PerUnit(rate))
}

fn is_leap(from: Rate, to: Rate) -> bool {
    let (from, to) = (from.micro_cents(), to.micro_cents());
    to > from * LEAP || to * LEAP < from
}

/// The first card is valid for everything before, too.
async fn first(transaction: &Transaction, rate: Option<Rate>) -> Result<RateChange, LedgerError> {
    let default = Rate::from_micro_cents(FIRST_RATE_MICRO_CENTS).unwrap_or(Rate::ZERO);
    let version = next_version(transaction).await?;
    let card = RateCard { version, ..of_setting(rate.unwrap_or(default))? };
    insert(transaction, NewRow { card: &card, created_at: None }).await?;
    Ok(RateChange::First(card))
}

fn of_setting(rate: Rate) -> Result<RateCard, LedgerError> {
    Ok(RateCard {
        version: 1,
        id: None,
        selector: Selector::default(),
        pricing: Pricing::PerUnit(rate),
        effective_from: beginning()?,
        origin: Origin::Setting,
        actor: None,
        reason: None,
    })
}

/// The last moment of anything that has a price: a billed row, or a repeat, which may be billed later. Nobody writes
/// meanwhile.
async fn last_priced(transaction: &Transaction) -> Result<Option<Timestamp>, LedgerError> {
    // Billed rows lie in the hours of the rollups, so only the tenants of the last hour can have the last one.
    const BILLED: &str = "WITH last AS (SELECT MAX(hour) AS hour FROM usage_rollups) \
        SELECT MAX((SELECT MAX(e.ts) FROM usage_events AS e WHERE e.tenant_id = t.tenant_id AND e.ts >= t.hour)) AS ts \
        FROM (SELECT DISTINCT r.tenant_id, r.hour FROM usage_rollups AS r JOIN last ON r.hour = last.hour) AS t";
    const REPEATS: &str = "SELECT MAX(ts) AS ts FROM usage_duplicates";
    const LAST_HOUR: &str = "SELECT MAX(hour) AS ts FROM usage_rollups";
    let mut last = None;
    for sql in [BILLED, REPEATS, LAST_HOUR] {
        last = last.max(moment(transaction, sql).await?);
    }
    Ok(last)
}

async fn moment(transaction: &Transaction, sql: &str) -> Result<Option<Timestamp>, StoreError> {
    let rows = transaction.query(sql, Params::default()).await?;
    rows.first().map_or(Ok(None), |row| transaction.dialect().read_time_or_null(row, "ts"))
}

fn beginning() -> Result<Timestamp, LedgerError> {
    Timestamp::from_unix_micros(BEGINNING_MICROS).map_err(|error| LedgerError::unreadable("effective_from", error))
}
