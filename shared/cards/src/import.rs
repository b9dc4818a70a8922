//! Rate cards from another ledger, so that a rebuilt one prices every event as that did.

use std::collections::{BTreeSet, HashMap};

use goldleaves_domain::Timestamp;
use goldleaves_pricing::{Origin, RateCard};
use goldleaves_store::{Dialect, Hold, Params, Rows, StoreError, Transaction, read};

use crate::table::{self, NewRow, StoredCard, Which, select};
use crate::text::follows;

const HOUR_MICROS: i64 = 3_600_000_000;

/// The result of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Cards that were there already.
    pub there: Vec<RateCard>,
    /// Cards that are new.
    pub added: Vec<RateCard>,
    /// Cards that priced nothing and gave way.
    pub replaced: Vec<RateCard>,
}

/// The reason nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A version can't be two cards, and this ledger has used its own.
    #[error("the ledger has usage that is priced by other cards: it has {there}; the file has {given}")]
    Conflict {
        /// The card that the ledger has.
        there: Box<RateCard>,
        /// The card that it was given.
        given: Box<RateCard>,
    },
    /// The usage that is there was priced without it.
    #[error("the ledger has usage of {} or later, priced without the file's {given}", given.effective_from)]
    TooLate {
        /// The card that it was given.
        given: Box<RateCard>,
    },
    /// The database is away or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes these cards the ledger's, all or none: what is there already is left, what is new is added. Cards of a ledger that
/// never priced anything give way to others of the same version; of any other ledger those of the setting do that priced
/// nothing. `written` says when a card was written in the ledger that it comes from, where that is known.
///
/// # Errors
/// Cards that contradict what was priced, or a database that is away or refuses.
pub async fn import(
    transaction: &Transaction,
    given: &[RateCard],
    written: &HashMap<i64, Timestamp>,
) -> Result<Imported, ImportError> {
    // Nobody prices an event until these cards are there, and whoever did before has finished.
    Hold::Alone.take(transaction).await?;
    let (dialect, mut params) = (transaction.dialect(), Params::default());
    let rows = transaction.query(&select(dialect, Which::All, &mut params), params).await?;
    let there = StoredCard::read_all(dialect, &rows)?;
    let mut there: Vec<RateCard> = there.into_iter().map(|stored| stored.card).collect();
    let mut imported = match plan(&there, given) {
        Ok(imported) => imported,
        Err(conflict) => {
            let replaced = give_way(transaction, &there, given).await?;
            there.retain(|card| !replaced.contains(card));
            Imported { replaced, ..plan(&there, given).map_err(|_| conflict)? }
        }
    };
    if let Some(card) = too_late(transaction, &imported.added).await? {
        return Err(ImportError::TooLate { given: Box::new(card) });
    }
    for card in &imported.added {
        table::insert(transaction, NewRow { card, created_at: written.get(&card.version).copied() }).await?;
    }
    // Workers look at the newest card alone.
    let newest = |cards: &[RateCard]| cards.iter().map(|card| card.version).max();
    if !imported.added.is_empty() && newest(&imported.added) <= newest(&there) {
        mark_newest(transaction).await?;
    }
    imported.replaced.retain(|card| !imported.added.contains(card));
    Ok(imported)
}

/// Deletes the cards that give way to these, and returns them: all where nothing was priced; else those of the setting that
/// contradict and priced nothing. A price that was set again after a backup was restored is such a card. What a person
/// made by the API gives way to nothing.
async fn give_way(
    transaction: &Transaction,
    there: &[RateCard],
    given: &[RateCard],
) -> Result<Vec<RateCard>, StoreError> {
    if !has_usage(transaction, None).await? {
        transaction.execute("DELETE FROM rate_cards", Params::default()).await?;
        return Ok(there.to_vec());
    }
    let ours = there.iter().filter(|card| card.origin == Origin::Setting);
    let mut gone: Vec<RateCard> =
        ours.filter(|card| given.iter().any(|given| contradicts(card, given))).cloned().collect();
    let used = named_by_usage(transaction, &gone).await?;
    gone.retain(|card| !used.contains(&card.version));
    for card in &gone {
        let mut params = Params::default();
        let sql = format!("DELETE FROM rate_cards WHERE version = {}", params.bind(card.version));
        transaction.execute(&sql, params).await?;
    }
    Ok(gone)
}

/// Returns whether a card of the setting and a given one can't both be the ledger's.
fn contradicts(card: &RateCard, given: &RateCard) -> bool {
    card != given && (card.version == given.version || !(follows(card, given) || follows(given, card)))
}

/// The earliest of these new cards, if there is usage that was priced without it. A card that usage names is not new: it is
/// one that was lost.
async fn too_late(transaction: &Transaction, added: &[RateCard]) -> Result<Option<RateCard>, StoreError> {
    let earliest = |cards: &mut dyn Iterator<Item = &RateCard>| cards.min_by_key(|card| card.effective_from).cloned();
    let Some(card) = earliest(&mut added.iter()) else { return Ok(None) };
    if !has_usage(transaction, Some(&card)).await? {
        return Ok(None);
    }
    let lost = named_by_usage(transaction, added).await?;
    match earliest(&mut added.iter().filter(|card| !lost.contains(&card.version))) {
        Some(card) => Ok(has_usage(transaction, Some(&card)).await?.then_some(card)),
        None => Ok(None),
    }
}

/// The versions among these that usage was priced by.
async fn named_by_usage(transaction: &Transaction, cards: &[RateCard]) -> Result<BTreeSet<i64>, StoreError> {
    let mut params = Params::default();
    let wanted = Rows::new(transaction.dialect()).column("wanted", cards.iter().map(|card| card.version));
    let sql = format!(
        "SELECT w.wanted FROM ({}) AS w \
         WHERE EXISTS (SELECT 1 FROM usage_rollups AS r WHERE r.rate_version = w.wanted) \
         OR EXISTS (SELECT 1 FROM usage_duplicates AS d WHERE d.rate_version = w.wanted)",
        wanted.query(&mut params)
    );
    let rows = transaction.query(&sql, params).await?;
    rows.iter().map(|row| read(row, "wanted")).collect()
}

/// Has every worker read the cards anew, though the newest is the one that it knows.
async fn mark_newest(transaction: &Transaction) -> Result<(), StoreError> {
    let now = match transaction.dialect() {
        Dialect::Postgres => "clock_timestamp()",
        Dialect::Sqlite => transaction.dialect().now(),
    };
    let sql = format!("UPDATE rate_cards SET created_at = {now} WHERE version = (SELECT MAX(version) FROM rate_cards)");
    transaction.execute(&sql, Params::default()).await?;
    Ok(())
}

/// Returns what is to be added, unless a version or an id is another card here, or the setting's cards of both would be out of
/// order.
fn plan(there: &[RateCard], given: &[RateCard]) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    let (versions, ids): (HashMap<_, _>, HashMap<_, _>) =
        there.iter().map(|card| ((card.version, card), (card.id, card))).unzip();
    let of_setting: Vec<&RateCard> = there.iter().filter(|card| card.origin == Origin::Setting).collect();
    for given in given {
        let same_id = given.id.and_then(|id| ids.get(&Some(id)));
        match versions.get(&given.version).or(same_id) {
            Some(card) if *card == given => imported.there.push(given.clone()),
            Some(card) => return Err(conflict(card, given)),
            None => {
                let in_order = |card: &&&RateCard| follows(card, given) || follows(given, card);
                if let Some(card) = of_setting.iter().find(|card| !in_order(card)) {
                    return Err(conflict(card, given));
                }
                imported.added.push(given.clone());
            }
        }
    }
    Ok(imported)
}

fn conflict(there: &RateCard, given: &RateCard) -> ImportError {
    ImportError::Conflict { there: Box::new(there.clone()), given: Box::new(given.clone()) }
}

/// Returns whether anything was priced, or anything from the moment on in which a card becomes valid. Rollups answer for whole
/// hours; in the hour that the card cuts the events are asked, of those who have any.
async fn has_usage(transaction: &Transaction, since: Option<&RateCard>) -> Result<bool, StoreError> {
    let (dialect, mut params) = (transaction.dialect(), Params::default());
    let (hours, times, cut) = match since.map(|card| card.effective_from) {
        Some(moment) => {
            let hour = moment.hour();
            let whole = if moment == hour { Some(hour) } else { hour.plus_micros(HOUR_MICROS) };
            let [whole, from, hour] =
                [whole.unwrap_or(hour), moment, hour].map(|moment| params.bind(dialect.time(moment)));
            let cut = format!(
                "SELECT 1 FROM (SELECT DISTINCT tenant_id FROM usage_rollups WHERE hour = {hour}) AS t \
                 JOIN usage_events AS e ON e.tenant_id = t.tenant_id AND e.ts >= {from} LIMIT 1"
            );
            (format!("WHERE hour >= {whole}"), format!("WHERE ts >= {from}"), cut)
        }
        None => (String::new(), String::new(), "SELECT 1 WHERE 1 = 0".to_owned()),
    };
    let sql = format!(
        "SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM usage_rollups {hours} LIMIT 1) AS r) \
             + (SELECT COUNT(*) FROM (SELECT 1 FROM usage_duplicates {times} LIMIT 1) AS d) \
             + (SELECT COUNT(*) FROM ({cut}) AS c) AS used"
    );
    let rows = transaction.query(&sql, params).await?;
    rows.first().map_or(Ok(false), |row| Ok(read::<i64>(row, "used")? > 0))
}
