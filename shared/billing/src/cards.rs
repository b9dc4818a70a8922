//! Rate cards as bills need them: how a version prices, and which default is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use goldleaves_cards::{Which, read_pricing, select};
use goldleaves_domain::Timestamp;
use goldleaves_pricing::Pricing;
use goldleaves_store::{Dialect, Params, Rows, read};
use sea_orm::QueryResult;

use crate::BillingError;
use crate::source::Source;

/// One version, and how it prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Names the card.
    pub version: i64,
    /// The way it prices; shared by all lines that it prices.
    pub pricing: Arc<Pricing>,
    /// Valid for events from this moment on.
    pub effective_from: Timestamp,
}

/// The cards of these versions, every one of them: what a missing card priced would else be missing from a bill.
///
/// # Errors
/// [`BillingError::MissingCard`], or a database that is away or refuses.
pub(crate) async fn of_versions(
    source: Source<'_>,
    versions: impl Iterator<Item = i64>,
) -> Result<BTreeMap<i64, Card>, BillingError> {
    let versions: BTreeSet<i64> = versions.collect();
    if versions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let dialect = source.dialect();
    let mut params = Params::default();
    let wanted = Rows::new(dialect).column("wanted", versions.iter().copied()).query(&mut params);
    let sql = format!(
        "SELECT c.version, c.rate_micro_cents, c.pricing, c.effective_from \
         FROM ({wanted}) AS v JOIN rate_cards AS c ON c.version = v.wanted"
    );
    let rows = source.query(&sql, params).await?;
    let cards: BTreeMap<i64, Card> =
        rows.iter().map(|row| card(dialect, row).map(|card| (card.version, card))).collect::<Result<_, _>>()?;
    match versions.into_iter().find(|version| !cards.contains_key(version)) {
        Some(version) => Err(BillingError::MissingCard { version }),
        None => Ok(cards),
    }
}

/// The default card in force at a moment.
///
/// # Errors
/// [`BillingError::NoRate`] before the first was set.
pub(crate) async fn default_at(source: Source<'_>, moment: Timestamp) -> Result<Card, BillingError> {
    let (dialect, mut params) = (source.dialect(), Params::default());
    let rows = source.query(&select(dialect, Which::DefaultAt(moment), &mut params), params).await?;
    rows.first().map_or(Err(BillingError::NoRate), |row| card(dialect, row))
}

fn card(dialect: Dialect, row: &QueryResult) -> Result<Card, BillingError> {
    let effective_from = dialect.read_time(row, "effective_from")?;
    Ok(Card { version: read(row, "version")?, pricing: Arc::new(read_pricing(row)?), effective_from })
}
