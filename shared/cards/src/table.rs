//! Rows of the table: each version is one, and none is ever changed.

use goldleaves_domain::Timestamp;
use goldleaves_pricing::{Origin, Pricing, Rate, RateCard, Selector};
use goldleaves_store::{Dialect, Params, StoreError, Transaction, read};
use sea_orm::QueryResult;
use uuid::Uuid;

/// The first moment there is: the first card is valid from here, which is before every event.
pub const BEGINNING_MICROS: i64 = -62_135_596_800_000_000;

/// Gives the newest card's mark.
pub const NEWEST: &str = "SELECT version, created_at FROM rate_cards ORDER BY version DESC LIMIT 1";

/// The columns that [`StoredCard::read`] reads.
const COLUMNS: &str = "version, id, tenant_id, route, action, rate_micro_cents, pricing, effective_from, origin, actor, \
     reason, created_at";

/// A card, and when its row was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCard {
    /// The card.
    pub card: RateCard,
    /// When it was written.
    pub created_at: Timestamp,
}

/// A row that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewRow<'a> {
    /// The card.
    pub card: &'a RateCard,
    /// When it was written in the ledger that it comes from; `None` is now.
    pub created_at: Option<Timestamp>,
}

/// The newest card. A card that gave way on an import may have had the same version, but not the same time of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// Its version.
    pub version: i64,
    /// When it was written.
    pub created_at: Timestamp,
}

/// The cards that are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All of them.
    All,
    /// The cards that can price a tenant's usage: the tenant's, and those for everybody.
    Of(&'a str),
    /// The cards for everybody and everything.
    Default,
    /// The one for everybody and everything that is in force at a moment.
    DefaultAt(Timestamp),
    /// The one with this id.
    Id(Uuid),
}

impl StoredCard {
    /// Reads a row of [`select`].
    ///
    /// # Errors
    /// Somebody else changed it.
    pub fn read(dialect: Dialect, row: &QueryResult) -> Result<Self, StoreError> {
        let origin: String = read(row, "origin")?;
        let card = RateCard {
            version: read(row, "version")?,
            id: dialect.read_uuid_or_null(row, "id")?,
            selector: Selector {
                tenant_id: read(row, "tenant_id")?,
                route: read(row, "route")?,
                action: read(row, "action")?,
            },
            pricing: read_pricing(row)?,
            effective_from: dialect.read_time(row, "effective_from")?,
            origin: Origin::of(&origin).ok_or_else(|| StoreError::unreadable("origin", "no word that is known"))?,
            actor: read(row, "actor")?,
            reason: read(row, "reason")?,
        };
        Ok(Self { card, created_at: dialect.read_time(row, "created_at")? })
    }

    /// Reads all rows of [`select`].
    ///
    /// # Errors
    /// Somebody else changed one.
    pub fn read_all(dialect: Dialect, rows: &[QueryResult]) -> Result<Vec<Self>, StoreError> {
        rows.iter().map(|row| Self::read(dialect, row)).collect()
    }
}

impl Newest {
    /// The newest card there is.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn read(transaction: &Transaction) -> Result<Option<Self>, StoreError> {
        let rows = transaction.query(NEWEST, Params::default()).await?;
        let of = |row| {
            Ok(Self { version: read(row, "version")?, created_at: transaction.dialect().read_time(row, "created_at")? })
        };
        rows.first().map(of).transpose()
    }
}

/// The statement that gives these cards, oldest version first. Versions count up, so their number is the order in which
/// cards were made.
pub fn select(dialect: Dialect, which: Which<'_>, params: &mut Params) -> String {
    const OF_ALL: &str = "tenant_id = '' AND route = '' AND action = ''";
    let rest = match which {
        Which::All => "ORDER BY version".to_owned(),
        Which::Of(tenant) => {
            format!("WHERE tenant_id = '' OR tenant_id = {} ORDER BY version", params.bind(tenant))
        }
        Which::Default => format!("WHERE {OF_ALL} ORDER BY version"),
        Which::DefaultAt(moment) => {
            let moment = params.bind(dialect.time(moment));
            format!("WHERE {OF_ALL} AND effective_from <= {moment} ORDER BY effective_from DESC, version DESC LIMIT 1")
        }
        Which::Id(id) => format!("WHERE id = {}", params.bind(dialect.uuid(id))),
    };
    format!("SELECT {COLUMNS} FROM rate_cards {rest}")
}

/// The price in the columns `pricing` and, where that is NULL, `rate_micro_cents`.
///
/// # Errors
/// Somebody else changed them.
pub fn read_pricing(row: &QueryResult) -> Result<Pricing, StoreError> {
    match read::<Option<String>>(row, "pricing")? {
        Some(text) => Pricing::from_text(&text).map_err(|error| StoreError::unreadable("pricing", error)),
        None => {
            let rate = u64::try_from(read::<i64>(row, "rate_micro_cents")?).ok().and_then(Rate::from_micro_cents);
            let out_of_range = || StoreError::unreadable("rate_micro_cents", "outside the range of rates");
            Ok(Pricing::PerUnit(rate.ok_or_else(out_of_range)?))
        }
    }
}

/// The version after the last one. The caller keeps others from making it too.
///
/// # Errors
/// A database that is away or refuses.
pub async fn next_version(transaction: &Transaction) -> Result<i64, StoreError> {
    let sql = "SELECT COALESCE(MAX(version), 0) AS version FROM rate_cards";
    let rows = transaction.query(sql, Params::default()).await?;
    Ok(rows.first().map_or(Ok(0), |row| read::<i64>(row, "version"))? + 1)
}

/// Adds a row.
///
/// # Errors
/// A database that is away or refuses.
pub async fn insert(transaction: &Transaction, row: NewRow<'_>) -> Result<(), StoreError> {
    let (dialect, NewRow { card, created_at }) = (transaction.dialect(), row);
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
        created_at.map_or_else(|| dialect.now().to_owned(), |moment| params.bind(dialect.time(moment))),
    ];
    let insert = format!(
        "INSERT INTO rate_cards (version, card, id, tenant_id, route, action, rate_micro_cents, model, pricing, \
         effective_from, origin, actor, reason, created_at) VALUES ({})",
        values.join(", ")
    );
    transaction.execute(&insert, params).await?;
    Ok(())
}
