//! Invoices and the lines that they are made of: what a period costs, and what earlier ones cost more or less since.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use goldleaves_domain::{Period, Timestamp, hex_text};
use goldleaves_pricing::{Cents, Pricing};
use goldleaves_store::{Params, Rows, Transaction};
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
};
use sha2::{Digest, Sha256};

use crate::audit::bad_cursor;
use crate::entities::line::{Column, Entity, Model};
use crate::list::{Cursor, CursorError, Page, PageOf};
use crate::report::read_bill;
use crate::source::Source;
use crate::usage::{Dimension, Question};
use crate::{BillingError, cards};

/// The number of the first period.
pub(crate) const FIRST: i64 = 1;
/// The number of the invoice that is none: of lines for what was left out before the first period.
pub(crate) const NO_INVOICE: i64 = 0;
/// 0001-01-01T00:00:00Z, before which there is no moment.
const EARLIEST_MICROS: i64 = -62_135_596_800_000_000;

/// Says whether a period is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeriodState {
    /// Its lines may still change.
    Open,
    /// Its lines are frozen.
    Closed,
}

impl PeriodState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// The kinds of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineKind {
    /// The period's own usage.
    Usage,
    /// The amount that an earlier period costs more, or less, since it was billed.
    Late,
    /// Corrections by an amount.
    Amount,
}

impl LineKind {
    /// The word in the table and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Late => "late",
            Self::Amount => "amount",
        }
    }

    fn of(word: &str) -> Result<Self, BillingError> {
        let known = [Self::Usage, Self::Late, Self::Amount].into_iter().find(|kind| kind.as_str() == word);
        known.ok_or_else(|| BillingError::unreadable("kind", word))
    }
}

/// A line of an invoice: the share of a rate version's line that a route and an action have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceLine {
    /// The kind of line.
    pub kind: LineKind,
    /// The period that the usage is of.
    pub for_number: i64,
    /// The matched pattern; empty for amounts.
    pub route: String,
    /// The action; empty for amounts.
    pub action: String,
    /// The card; 0 for amounts.
    pub rate_version: i64,
    /// The way the card prices; `None` for amounts.
    pub pricing: Option<Arc<Pricing>>,
    /// Events, or events more or less.
    pub events: i64,
    /// Millionths of units, or of units more or less.
    pub units_micro: i128,
    /// Cents, or cents more or less.
    pub cents: Cents,
}

/// The bill of a tenant for a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The tenant whose lines they are.
    pub tenant_id: String,
    /// Counts from 1.
    pub number: i64,
    /// True if it can still change.
    pub state: PeriodState,
    /// When.
    pub period: Period,
    /// The zone that the period's ends were chosen in.
    pub time_zone: String,
    /// The lines that it is made of; of a closed period they are read apart.
    pub lines: Vec<InvoiceLine>,
    /// The sum of the lines.
    pub total: Cents,
    /// SHA-256 of the lines.
    pub lines_hash: String,
}

/// The key that keeps two lines apart.
type Key = (LineKind, String, String, i64);

/// The lines of a period as its usage is now.
pub(crate) async fn of_period(
    source: Source<'_>,
    tenant: &str,
    number: i64,
    period: Period,
) -> Result<Vec<InvoiceLine>, BillingError> {
    let by = [Dimension::Route, Dimension::Action];
    let question = Question { tenant, range: period, by: &by, days: &[] };
    let (bill, cards, adjustments) = read_bill(source, &question).await?;
    let mut lines = Vec::new();
    for ((version, keys), group) in bill.line_groups(Clone::clone) {
        let [route, action] = <[String; 2]>::try_from(keys).unwrap_or_default();
        lines.push(InvoiceLine {
            kind: LineKind::Usage,
            for_number: number,
            route,
            action,
            rate_version: version,
            pricing: cards.get(&version).map(|card| Arc::clone(&card.pricing)),
            events: group.used.events,
            units_micro: group.used.units_micro,
            cents: group.cents,
        });
    }
    if adjustments != 0 {
        lines.push(amount(number, adjustments));
    }
    Ok(lines)
}

/// The usage and the amounts that lie before the first period, which are its own where they are billed at all. They are
/// priced apart, so that they do not move the first period's tiers.
pub(crate) async fn before_first(
    source: Source<'_>,
    tenant: &str,
    start: Timestamp,
) -> Result<Vec<InvoiceLine>, BillingError> {
    let earliest = Timestamp::from_unix_micros(EARLIEST_MICROS);
    let earliest = earliest.map_err(|error| BillingError::unreadable("starts_at", error))?;
    match Period::new(earliest, start) {
        Ok(before) => of_period(source, tenant, FIRST, before).await,
        Err(_) => Ok(Vec::new()),
    }
}

/// The lines of a period, and of the first one also the amounts before its start: no credit is lost.
pub(crate) async fn due(
    source: Source<'_>,
    tenant: &str,
    number: i64,
    period: Period,
) -> Result<Vec<InvoiceLine>, BillingError> {
    let own = of_period(source, tenant, number, period).await?;
    if number != FIRST {
        return Ok(own);
    }
    let mut before = before_first(source, tenant, period.start()).await?;
    before.retain(|line| line.kind == LineKind::Amount);
    Ok(sum(own, before).into_values().collect())
}

/// Returns whether it is known what lay before the first period when that was closed.
pub(crate) async fn knows_left_out(source: Source<'_>, tenant: &str) -> Result<bool, BillingError> {
    Ok(count_frozen(source, tenant, NO_INVOICE).await? > 0)
}

/// Lines by their keys, those of the same key as one.
fn sum(lines: Vec<InvoiceLine>, more: Vec<InvoiceLine>) -> BTreeMap<Key, InvoiceLine> {
    let mut sums: BTreeMap<Key, InvoiceLine> = BTreeMap::new();
    for line in lines.into_iter().chain(more) {
        match sums.entry(key(&line)) {
            Entry::Vacant(free) => {
                free.insert(line);
            }
            Entry::Occupied(mut same) => {
                let same = same.get_mut();
                same.events += line.events;
                same.units_micro += line.units_micro;
                same.cents.0 += line.cents.0;
            }
        }
    }
    sums
}

fn amount(for_number: i64, cents: i128) -> InvoiceLine {
    InvoiceLine { kind: LineKind::Amount, cents: Cents(cents), ..InvoiceLine::nothing(for_number) }
}

impl InvoiceLine {
    /// A line that says of a period that there is nothing.
    pub(crate) const fn nothing(for_number: i64) -> Self {
        Self {
            kind: LineKind::Usage,
            for_number,
            route: String::new(),
            action: String::new(),
            rate_version: 0,
            pricing: None,
            events: 0,
            units_micro: 0,
            cents: Cents(0),
        }
    }
}

/// Returns what a closed period costs more, or less, than was billed for it: each line as it is now, less what was frozen.
pub(crate) async fn late(
    source: Source<'_>,
    tenant: &str,
    number: i64,
    period: Period,
) -> Result<Vec<InvoiceLine>, BillingError> {
    let own = of_period(source, tenant, number, period).await?;
    // Where it is not known what was left out, nothing of it is billed.
    let before = if number == FIRST && knows_left_out(source, tenant).await? {
        since_left_out(source, tenant, period.start()).await?
    } else {
        Vec::new()
    };
    let mut open = sum(own, before);
    subtract(&mut open, frozen_for(source, tenant, number).await?);
    let mut lines: Vec<InvoiceLine> = open.into_values().collect();
    lines.retain(|line| (line.events, line.units_micro, line.cents.0) != (0, 0, 0));
    for line in lines.iter_mut().filter(|line| line.kind == LineKind::Usage) {
        line.kind = LineKind::Late;
    }
    Ok(lines)
}

/// Returns what came for the time before the first period since that was closed, and the amounts there.
///
/// What was left out was never billed, so nothing of it is given back: where a card's lines come to less than what was left out
/// with it, because such an event moved to another time since, they come to nothing.
async fn since_left_out(source: Source<'_>, tenant: &str, start: Timestamp) -> Result<Vec<InvoiceLine>, BillingError> {
    let every = Page { limit: u32::MAX, cursor: None };
    let left_out = read_frozen(source, tenant, Which::Of(NO_INVOICE), &every).await?.items;
    let mut lines = sum(before_first(source, tenant, start).await?, Vec::new());
    subtract(&mut lines, left_out);
    let mut of_cards: BTreeMap<i64, (i128, i128)> = BTreeMap::new();
    for line in lines.values().filter(|line| line.kind == LineKind::Usage) {
        let (units_micro, cents) = of_cards.entry(line.rate_version).or_default();
        *units_micro += line.units_micro;
        *cents += line.cents.0;
    }
    let is_more = |line: &InvoiceLine| {
        of_cards.get(&line.rate_version).is_none_or(|(units_micro, cents)| *units_micro >= 0 && *cents >= 0)
    };
    Ok(lines.into_values().filter(|line| line.kind == LineKind::Amount || is_more(line)).collect())
}

fn subtract(open: &mut BTreeMap<Key, InvoiceLine>, billed: Vec<InvoiceLine>) {
    for frozen in billed {
        let none = InvoiceLine { events: 0, units_micro: 0, cents: Cents(0), ..frozen.clone() };
        let line = open.entry(key(&frozen)).or_insert(none);
        line.events -= frozen.events;
        line.units_micro -= frozen.units_micro;
        line.cents.0 -= frozen.cents.0;
    }
}

/// Late lines are more of what the period's own lines are.
fn key(line: &InvoiceLine) -> Key {
    let kind = if line.kind == LineKind::Late { LineKind::Usage } else { line.kind };
    (kind, line.route.clone(), line.action.clone(), line.rate_version)
}

/// The frozen lines that are read.
#[derive(Debug, Clone, Copy)]
enum Which {
    /// The lines of an invoice.
    Of(i64),
    /// The lines for a period, whichever invoice they stand on; not those that stand on none.
    For(i64),
}

/// The frozen lines for a period, whichever invoices they stand on.
async fn frozen_for(source: Source<'_>, tenant: &str, number: i64) -> Result<Vec<InvoiceLine>, BillingError> {
    Ok(read_frozen(source, tenant, Which::For(number), &Page { limit: u32::MAX, cursor: None }).await?.items)
}

/// A page of the frozen lines of an invoice.
pub(crate) async fn frozen_page(
    source: Source<'_>,
    tenant: &str,
    number: i64,
    page: &Page,
) -> Result<PageOf<InvoiceLine>, BillingError> {
    read_frozen(source, tenant, Which::Of(number), page).await
}

/// Returns how many lines an invoice has.
pub(crate) async fn count_frozen(source: Source<'_>, tenant: &str, number: i64) -> Result<i64, BillingError> {
    source.count(of(tenant, Which::Of(number))).await
}

fn of(tenant: &str, which: Which) -> Select<Entity> {
    let number = match which {
        Which::Of(number) => Condition::all().add(Column::Number.eq(number)),
        Which::For(number) => Condition::all().add(Column::ForNumber.eq(number)).add(Column::Number.ne(NO_INVOICE)),
    };
    Entity::find().filter(Column::TenantId.eq(tenant)).filter(number)
}

async fn read_frozen(
    source: Source<'_>,
    tenant: &str,
    which: Which,
    page: &Page,
) -> Result<PageOf<InvoiceLine>, BillingError> {
    let mut rows =
        of(tenant, which).order_by_asc(Column::Number).order_by_asc(Column::Line).limit(page.rows().unsigned_abs());
    if let Some(cursor) = &page.cursor {
        let [line] = cursor.keys().map_err(bad_cursor)?;
        let line: i32 = line.parse().map_err(|_| bad_cursor(CursorError))?;
        rows = rows.filter(Column::Line.gt(line));
    }
    let lines = source.find(rows).await?.into_iter().map(|row| Ok((row.line, InvoiceLine::try_from(row)?)));
    let lines = lines.collect::<Result<Vec<_>, BillingError>>()?;
    let page = PageOf::cut(lines, page.limit, |(line, _)| Cursor::after([line.to_string()]));
    let mut items: Vec<InvoiceLine> = page.items.into_iter().map(|(_, line)| line).collect();
    let cards = cards::of_versions(source, items.iter().map(|line| line.rate_version).filter(|version| *version != 0));
    let cards = cards.await?;
    for line in &mut items {
        line.pricing = cards.get(&line.rate_version).map(|card| Arc::clone(&card.pricing));
    }
    Ok(PageOf { items, next: page.next })
}

/// A stored line, without what its card says.
impl TryFrom<Model> for InvoiceLine {
    type Error = BillingError;

    fn try_from(row: Model) -> Result<Self, BillingError> {
        let wide = |column: &str, text: String| -> Result<i128, BillingError> {
            text.parse().map_err(|error| BillingError::unreadable(column, error))
        };
        Ok(Self {
            kind: LineKind::of(&row.kind)?,
            for_number: row.for_number,
            route: row.route,
            action: row.action,
            rate_version: row.rate_version,
            pricing: None,
            events: row.events,
            units_micro: wide("units_micro", row.units_micro)?,
            cents: Cents(wide("cents", row.cents)?),
        })
    }
}

pub(crate) async fn freeze(
    transaction: &Transaction,
    tenant: &str,
    number: i64,
    lines: &[InvoiceLine],
) -> Result<(), BillingError> {
    if lines.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let rows = Rows::new(dialect)
        .column("for_number", lines.iter().map(|line| line.for_number))
        .column("kind", lines.iter().map(|line| line.kind.as_str()))
        .column("route", lines.iter().map(|line| line.route.as_str()))
        .column("action", lines.iter().map(|line| line.action.as_str()))
        .column("rate_version", lines.iter().map(|line| line.rate_version))
        .column("events", lines.iter().map(|line| line.events))
        .column("units_micro", lines.iter().map(|line| line.units_micro.to_string()))
        .column("cents", lines.iter().map(|line| line.cents.to_string()))
        .column("line", (1_i64..).take(lines.len()))
        .query(&mut params);
    let (tenant, number) = (params.bind(tenant), params.bind(number));
    let (units, cents) = match dialect {
        goldleaves_store::Dialect::Postgres => ("r.units_micro::numeric", "r.cents::numeric"),
        goldleaves_store::Dialect::Sqlite => ("r.units_micro", "r.cents"),
    };
    let sql = format!(
        "INSERT INTO billing_lines \
             (tenant_id, number, line, for_number, kind, route, action, rate_version, events, units_micro, cents) \
         SELECT {tenant}, {number}, r.line, r.for_number, r.kind, r.route, r.action, r.rate_version, r.events, {units}, \
             {cents} FROM ({rows}) AS r ORDER BY r.n"
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// The lines in their order: by the period that they are for, their kind, route, action and card.
pub(crate) fn sort(lines: &mut [InvoiceLine]) {
    lines.sort_by_key(|line| (line.for_number, key(line), line.kind));
}

/// SHA-256 of the lines, each as a JSON array on a line of its own.
pub(crate) fn hash(lines: &[InvoiceLine]) -> String {
    let mut digest = Sha256::new();
    for line in lines {
        let fields = serde_json::json!([
            line.kind.as_str(),
            line.for_number,
            line.route,
            line.action,
            line.rate_version,
            line.events,
            line.units_micro.to_string(),
            line.cents.to_string(),
        ]);
        digest.update(format!("{fields}\n").as_bytes());
    }
    hex_text(&digest.finalize())
}

/// A moment after which a hour's changes are certainly seen by whoever reads now: no transaction lives so long.
pub(crate) fn seen_since(closed_at: Timestamp) -> Timestamp {
    const TRANSACTION_MICROS: i64 = 180_000_000;
    closed_at.plus_micros(-TRANSACTION_MICROS).unwrap_or(closed_at)
}
