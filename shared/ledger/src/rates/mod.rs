//! Rate cards: immutable versions of prices, each valid from a moment on.

mod cache;
mod import;
mod setting;
mod text;

use chrono::Utc;
use goldleaves_domain::Timestamp;
use goldleaves_pricing::{Origin, Pricing, Rate, RateCard, Selector};
use goldleaves_store::{Dialect, Params, Transaction, read};
use sea_orm::QueryResult;

use crate::{Ledger, LedgerError};

pub(crate) use cache::{Cache, Cards, NEWEST, Newest, Priced};
pub use import::{ImportError, Imported};
pub use setting::{Leap, RateChange};
pub use text::{RateCardsError, read_rate_cards, write_rate_cards};

/// The first moment there is: the first card is valid from here, which is before every event.
const BEGINNING_MICROS: i64 = -62_135_596_800_000_000;

impl Ledger {
    /// Every card, oldest version first.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn rate_cards(&self) -> Result<Vec<RateCard>, LedgerError> {
        let rows = self.read(&select_cards(None), Params::default()).await?;
        rows.iter().map(|row| card(self.dialect(), row)).collect()
    }

    /// The default card in force now, `None` before there is one.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn default_card(&self) -> Result<Option<RateCard>, LedgerError> {
        let mut params = Params::default();
        let now = params.bind(self.dialect().time(now()?));
        let sql = format!(
            "SELECT {COLUMNS} FROM rate_cards \
             WHERE tenant_id = '' AND route = '' AND action = '' AND effective_from <= {now} \
             ORDER BY effective_from DESC, version DESC LIMIT 1"
        );
        let rows = self.read(&sql, params).await?;
        rows.first().map(|row| card(self.dialect(), row)).transpose()
    }
}

/// The columns that [`card`] reads, and when the row was written.
const COLUMNS: &str = "version, id, tenant_id, route, action, rate_micro_cents, pricing, effective_from, origin, actor, \
     reason, created_at";

/// Versions count up, so their number is the order in which cards were made.
fn select_cards(condition: Option<&str>) -> String {
    format!("SELECT {COLUMNS} FROM rate_cards{} ORDER BY version", condition.unwrap_or_default())
}

fn card(dialect: Dialect, row: &QueryResult) -> Result<RateCard, LedgerError> {
    let origin: String = read(row, "origin")?;
    Ok(RateCard {
        version: read(row, "version")?,
        id: dialect.read_uuid_or_null(row, "id")?,
        selector: Selector {
            tenant_id: read(row, "tenant_id")?,
            route: read(row, "route")?,
            action: read(row, "action")?,
        },
        pricing: read_pricing(row)?,
        effective_from: dialect.read_time(row, "effective_from")?,
        origin: Origin::of(&origin).ok_or_else(|| LedgerError::unreadable("origin", "no word that is known"))?,
        actor: read(row, "actor")?,
        reason: read(row, "reason")?,
    })
}

/// The price in the columns `pricing` and, where that is NULL, `rate_micro_cents`.
pub(crate) fn read_pricing(row: &QueryResult) -> Result<Pricing, LedgerError> {
    match read::<Option<String>>(row, "pricing")? {
        Some(text) => Pricing::from_text(&text).map_err(|error| LedgerError::unreadable("pricing", error)),
        None => {
            let rate = u64::try_from(read::<i64>(row, "rate_micro_cents")?).ok().and_then(Rate::from_micro_cents);
            let out_of_range = || LedgerError::unreadable("rate_micro_cents", "outside the range of rates");
            Ok(Pricing::PerUnit(rate.ok_or_else(out_of_range)?))
        }
    }
}

/// The version after the last one. The caller keeps others from making it too.
async fn next_version(transaction: &Transaction) -> Result<i64, LedgerError> {
    let sql = "SELECT COALESCE(MAX(version), 0) AS version FROM rate_cards";
    let rows = transaction.query(sql, Params::default()).await?;
    Ok(rows.first().map_or(Ok(0), |row| read::<i64>(row, "version"))? + 1)
}

async fn insert_card(transaction: &Transaction, card: &RateCard) -> Result<(), LedgerError> {
    let dialect = transaction.dialect();
    let name = if card.selector.is_default() { "default" } else { "selector" };
    let pricing = match card.pricing {
        Pricing::PerUnit(_) => None,
        _ => Some(card.pricing.to_json().to_string()),
    };
    let highest = i64::try_from(card.pricing.highest_rate().micro_cents()).unwrap_or(i64::MAX);
    let mut params = Params::default();
    let values = [
        params.bind(card.version),
        params.bind(name),
        params.bind(dialect.uuid_or_null(card.id)),
        params.bind(card.selector.tenant_id.as_str()),
        params.bind(card.selector.route.as_str()),
        params.bind(card.selector.action.as_str()),
        params.bind(highest),
        params.bind(card.pricing.model()),
        params.bind(pricing),
        params.bind(dialect.time(card.effective_from)),
        params.bind(card.origin.as_str()),
        params.bind(card.actor.as_deref()),
        params.bind(card.reason.as_deref()),
    ];
    let insert = format!(
        "INSERT INTO rate_cards (version, card, id, tenant_id, route, action, rate_micro_cents, model, pricing, \
         effective_from, origin, actor, reason) VALUES ({})",
        values.join(", ")
    );
    transaction.execute(&insert, params).await?;
    Ok(())
}

fn beginning() -> Result<Timestamp, LedgerError> {
    Timestamp::from_unix_micros(BEGINNING_MICROS).map_err(|error| LedgerError::unreadable("effective_from", error))
}

fn now() -> Result<Timestamp, LedgerError> {
    Timestamp::from_date_time(Utc::now()).map_err(|error| LedgerError::unreadable("now", error))
}
