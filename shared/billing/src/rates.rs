//! Rate cards made by people: for everybody, or for a tenant, a route or an action; and what one would change.
//!
//! A card is never retroactive. It is added under the lock that keeps the writers of events out, and only for a time of which
//! nothing is recorded yet, so that the same events and cards give the same bill in any order.

use std::collections::{BTreeMap, HashMap};

use goldleaves_cards::{NewRow, StoredCard, Which, next_version, select};
use goldleaves_domain::{Period, TenantId, Timestamp};
use goldleaves_pricing::{Bill, Cents, Origin, Place, Pricing, RateCard, RateCards, Selector, Used};
use goldleaves_store::{Hold, Params, Transaction, read, read_wide};
use uuid::Uuid;

use crate::audit::{self, Author, Change, bad_cursor};
use crate::list::{Cursor, Page, PageOf};
use crate::source::Source;
use crate::tenants::{Names, TenantKeys, Thousands, every_tenant};
use crate::usage::UnitsTotal;
use crate::{Billing, BillingError, Put, RefusalCode};

/// A card is valid from so long after its making at the earliest.
const AHEAD_MICROS: i64 = 60_000_000;
/// The most tenants that a preview names.
const DIFFERENCES_MAX: usize = 100;
/// The version of a card that is only thought of: no stored one has it.
const THOUGHT_OF: i64 = 0;

/// A card as it is asked for.
#[derive(Debug, Clone)]
pub struct NewCard {
    /// Names it for ever.
    pub id: Uuid,
    /// The tenants whose usage it prices.
    pub selector: Selector,
    /// The way it prices.
    pub pricing: Pricing,
    /// From when on.
    pub effective_from: Timestamp,
    /// The reason.
    pub reason: String,
}

/// The change that a card would make for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The tenant whose bill it is.
    pub tenant_id: String,
    /// The units of the range.
    pub units: UnitsTotal,
    /// The present cost.
    pub now: Cents,
    /// The cost with the card.
    pub with: Cents,
}

/// The changes that a card would make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// The largest differences first, no more than a hundred.
    pub tenants: Vec<Difference>,
    /// The units of all tenants.
    pub units: UnitsTotal,
    /// The present cost.
    pub now: Cents,
    /// The cost with the card.
    pub with: Cents,
}

impl NewCard {
    fn is(&self, stored: &RateCard) -> bool {
        stored.selector == self.selector
            && stored.pricing == self.pricing
            && stored.effective_from == self.effective_from
            && stored.reason.as_deref() == Some(&self.reason)
    }
}

impl Billing {
    /// Adds a rate card, or finds it there already. `body` is kept in the audit.
    ///
    /// # Errors
    /// [`RefusalCode::AlreadyExists`], [`RefusalCode::UsageExists`], a moment that is too near, or a database that is away
    /// or refuses.
    pub async fn add_card(&self, new: &NewCard, author: &Author, body: &str) -> Result<Put<StoredCard>, BillingError> {
        self.store()
            .write(async |transaction| {
                Hold::Alone.take(transaction).await?;
                let source = Source::Transaction(transaction);
                if let Some(stored) = by_id(source, new.id).await? {
                    return if new.is(&stored.card) { Ok(Put { is_new: false, stored }) } else { already(&stored) };
                }
                check_moment(source, new.effective_from).await?;
                insert(transaction, new, &author.actor).await?;
                let change = Change { author, action: "rate_card", tenant_id: &new.selector.tenant_id, body };
                audit::write(transaction, &change).await?;
                let stored = by_id(source, new.id).await?;
                let stored = stored.ok_or_else(|| BillingError::unreadable("id", "the new card is not there"))?;
                Ok(Put { is_new: true, stored })
            })
            .await
    }

    /// A page of the cards, oldest version first: all, or those that can price a tenant's usage; those in force at a moment,
    /// or of all times.
    ///
    /// # Errors
    /// A cursor of another list, or a database that is away or refuses.
    pub async fn cards(
        &self,
        tenant: Option<&TenantId>,
        at: Option<Timestamp>,
        page: &Page,
    ) -> Result<PageOf<StoredCard>, BillingError> {
        let which = tenant.map_or(Which::All, |tenant| Which::Of(tenant.as_str()));
        let mut cards = cards(self.source(), which).await?;
        if let Some(at) = at {
            let mut in_force: HashMap<Selector, (Timestamp, i64)> = HashMap::new();
            for card in cards.iter().map(|stored| &stored.card).filter(|card| card.effective_from <= at) {
                let mark = in_force.entry(card.selector.clone()).or_insert((card.effective_from, card.version));
                *mark = (*mark).max((card.effective_from, card.version));
            }
            cards.retain(|stored| in_force.values().any(|mark| mark.1 == stored.card.version));
        }
        if let Some(cursor) = &page.cursor {
            let [version] = cursor.keys().map_err(bad_cursor)?;
            let version: i64 = version.parse().map_err(|_| bad_cursor(crate::CursorError))?;
            cards.retain(|stored| stored.card.version > version);
        }
        Ok(PageOf::cut(cards, page.limit, |stored| Cursor::after([stored.card.version.to_string()])))
    }

    /// Returns the changes that a card would make in a range, were it in force all the time wherever it would be
    /// chosen.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn preview(&self, selector: Selector, pricing: Pricing, range: &Period) -> Result<Preview, BillingError> {
        let source = self.source();
        let with = RateCard {
            version: THOUGHT_OF,
            id: None,
            selector,
            pricing,
            effective_from: range.start(),
            origin: Origin::Api,
            actor: None,
            reason: None,
        };
        let stored = cards(source, Which::All).await?;
        let cards = RateCards::new(stored.into_iter().map(|stored| stored.card).collect());
        let by_version: HashMap<i64, &RateCard> = cards.all().iter().map(|card| (card.version, card)).collect();
        let trial = Trial { cards: &cards, by_version, with: &with, range };
        let (mut preview, mut all) = (Preview::default(), Thousands::default());
        while let Some(names) = all.next(source).await? {
            preview.take(trial.bills(source, &names).await?);
        }
        Ok(preview)
    }
}

/// A card beside those that there are.
struct Trial<'a> {
    cards: &'a RateCards,
    by_version: HashMap<i64, &'a RateCard>,
    with: &'a RateCard,
    range: &'a Period,
}

impl Trial<'_> {
    /// The bills of these tenants, as they are and as they would be.
    async fn bills(&self, source: Source<'_>, names: &Names) -> Result<Bills, BillingError> {
        let mut params = Params::default();
        let sql = every_tenant(source, self.range, TenantKeys::Places, names, &mut params);
        let mut bills = Bills::new();
        for row in source.query(&sql, params).await? {
            let version: i64 = read(&row, "rate_version")?;
            if version == 0 {
                // An amount is not priced by a card.
                continue;
            }
            let units_micro = read_wide(source.dialect(), &row, "units_micro")?;
            let used = Used { events: read(&row, "events")?, units_micro };
            let (tenant, route, action): (String, String, String) =
                (read(&row, "tenant_id")?, read(&row, "route")?, read(&row, "action")?);
            let priced = *self.by_version.get(&version).ok_or(BillingError::MissingCard { version })?;
            let place = Place { tenant_id: &tenant, route: &route, action: &action };
            let would = chosen(self.cards, place, priced, self.with, self.range);
            let (now, then) = bills.entry(tenant).or_default();
            now.add(version, &priced.pricing, (), used);
            then.add(would.version, &would.pricing, (), used);
        }
        Ok(bills)
    }
}

/// The bills of each tenant: as it is, and as it would be.
type Bills = BTreeMap<String, (Bill<()>, Bill<()>)>;

/// The card that would price usage which `priced` prices, if `with` were there too.
fn chosen<'a>(
    cards: &'a RateCards,
    place: Place<'_>,
    priced: &'a RateCard,
    with: &'a RateCard,
    range: &Period,
) -> &'a RateCard {
    if !with.selector.fits(place) || with.selector.weight() < priced.selector.weight() {
        return priced;
    }
    if with.pricing != Pricing::Inherit {
        return with;
    }
    if with.selector != priced.selector {
        return priced;
    }
    // What it falls back to is that of the time in which the usage was priced.
    let moment = priced.effective_from.max(range.start());
    cards.choose_with(place, moment, with).unwrap_or(priced)
}

impl Preview {
    /// Counts the bills of further tenants in, and keeps the largest differences.
    fn take(&mut self, bills: Bills) {
        for (tenant_id, (now, with)) in bills {
            let units = UnitsTotal(now.used().units_micro);
            let one = Difference { tenant_id, units, now: now.total(), with: with.total() };
            self.units.0 += one.units.0;
            self.now.0 += one.now.0;
            self.with.0 += one.with.0;
            if one.with != one.now {
                self.tenants.push(one);
            }
        }
        self.tenants.sort_by_cached_key(|one| {
            (std::cmp::Reverse((one.with.0 - one.now.0).unsigned_abs()), one.tenant_id.clone())
        });
        self.tenants.truncate(DIFFERENCES_MAX);
    }
}

async fn cards(source: Source<'_>, which: Which<'_>) -> Result<Vec<StoredCard>, BillingError> {
    let (dialect, mut params) = (source.dialect(), Params::default());
    let rows = source.query(&select(dialect, which, &mut params), params).await?;
    Ok(StoredCard::read_all(dialect, &rows)?)
}

async fn by_id(source: Source<'_>, id: Uuid) -> Result<Option<StoredCard>, BillingError> {
    Ok(cards(source, Which::Id(id)).await?.into_iter().next())
}

fn already<T>(stored: &StoredCard) -> Result<T, BillingError> {
    let detail = format!("this id is that of another rate card: {}", stored.card);
    BillingError::refused(RefusalCode::AlreadyExists, detail)
}

/// Refuses a beginning that is less than a minute ahead, or within an hour of which anything is recorded. Nobody
/// records meanwhile.
async fn check_moment(source: Source<'_>, moment: Timestamp) -> Result<(), BillingError> {
    let dialect = source.dialect();
    let far = || BillingError::unreadable("now", "outside the years that can be written");
    let soonest = source.now().await?.plus_micros(AHEAD_MICROS).ok_or_else(far)?;
    if moment < soonest {
        let detail = format!("effective_from must lie at least 60 s ahead: {soonest} or later");
        return BillingError::refused(RefusalCode::BodyInvalid, detail);
    }
    const LAST: &str = "SELECT MAX(hour) AS last FROM usage_rollups";
    const LAST_REPEAT: &str = "SELECT MAX(ts) AS last FROM usage_duplicates";
    let mut last = None;
    for sql in [LAST, LAST_REPEAT] {
        let rows = source.query(sql, Params::default()).await?;
        let found = rows.first().map_or(Ok(None), |row| dialect.read_time_or_null(row, "last"))?;
        last = last.max(found.map(Timestamp::hour));
    }
    match last.filter(|last| *last >= moment.hour()) {
        Some(last) => {
            let earliest = last.plus_micros(Timestamp::HOUR_MICROS).ok_or_else(far)?.max(soonest);
            let detail = format!("there is usage of {last} or later; the earliest effective_from is {earliest}");
            BillingError::refused(RefusalCode::UsageExists, detail)
        }
        None => Ok(()),
    }
}

async fn insert(transaction: &Transaction, new: &NewCard, actor: &str) -> Result<(), BillingError> {
    let card = RateCard {
        version: next_version(transaction).await?,
        id: Some(new.id),
        selector: new.selector.clone(),
        pricing: new.pricing.clone(),
        effective_from: new.effective_from,
        origin: Origin::Api,
        actor: Some(actor.to_owned()),
        reason: Some(new.reason.clone()),
    };
    Ok(goldleaves_cards::insert(transaction, NewRow { card: &card, created_at: None }).await?)
}
