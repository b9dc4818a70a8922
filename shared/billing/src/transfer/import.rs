//! Lines into a ledger: read twice from a file, so that nothing is written before every line is one, and never held.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::time::Duration;

use goldleaves_cards::{ImportError, Imported};
use goldleaves_domain::Timestamp;
use goldleaves_pricing::{Origin, Pricing, Rate, RateCard, Selector};
use goldleaves_store::{Params, Transaction, read};
use uuid::Uuid;

use super::row::{Line, Row, check};
use super::tables::{TABLES, Table};
use crate::{Billing, BillingError, Refusal, RefusalCode, corrections, late, locks};

/// The longest line of a file.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// The longest time the rows of a file may take.
const TIME_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// The table that comes first.
const CARDS: &str = "rate_cards";

/// The result of an import for one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableImport {
    /// The table.
    pub table: &'static str,
    /// Rows that are new.
    pub added: u64,
    /// Rows that were there.
    pub there: u64,
}

/// The result of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Table by table.
    pub tables: Vec<TableImport>,
    /// Corrections whose event is not there yet: they wait for another import.
    pub waiting: u64,
}

/// The point that an import has reached.
#[derive(Debug, Clone, Copy)]
pub enum ImportStep<'a> {
    /// The lines that could be read, so far.
    Read(u64),
    /// The rate cards are in the ledger, and stay there whatever becomes of the rest.
    Cards(&'a Imported),
    /// The rows of so many lines were written, and are kept once all are.
    Written(u64),
    /// Everything that was said to be written or to wait is begun again: somebody else held a lock for too long.
    Again,
    /// This correction waits for its event.
    Waits(&'a str),
}

/// The fate of a row.
enum Taken {
    Added,
    There,
    /// Its event is not there.
    Waits(String),
    /// It is worked out again.
    Follows,
}

impl Billing {
    /// Takes the lines of a file in. Every line is looked at before anything is written. The rate cards come first and by
    /// themselves, because nobody may record meanwhile; all other rows come all or none. What is there is left, and a row
    /// that is there with other content refuses the rest: mended, the same file is imported again.
    ///
    /// # Errors
    /// A line that can't be read or contradicts what is there, or a database that is away or refuses.
    pub async fn import(
        &self,
        file: &mut (impl Read + Seek),
        mut hear: impl FnMut(ImportStep<'_>),
    ) -> Result<Transfer, BillingError> {
        let start = file.stream_position().map_err(unreadable)?;
        let cards = Cards::of(&mut Lines::new(&mut *file), &mut hear)?;
        let mut transfer = Transfer::default();
        if !cards.by_version.is_empty() {
            let imported = self.import_cards(&cards).await?;
            hear(ImportStep::Cards(&imported));
            let (added, there) = (imported.added.len() as u64, imported.there.len() as u64);
            transfer.tables.push(TableImport { table: CARDS, added, there });
        }
        // A lock that was not to be had has it all done again, from the start of the file.
        let state = tokio::sync::Mutex::new((file, hear));
        let rows = self.store().write_within(TIME_MAX, async |transaction| {
            let (file, hear) = &mut *state.lock().await;
            file.seek(SeekFrom::Start(start)).map_err(unreadable)?;
            take_all(transaction, &mut Lines::new(&mut **file), hear).await
        });
        let rows: Transfer = rows.await?;
        transfer.tables.extend(rows.tables);
        Ok(Transfer { waiting: rows.waiting, ..transfer })
    }

    async fn import_cards(&self, cards: &Cards) -> Result<Imported, BillingError> {
        let given: Vec<RateCard> = cards.by_version.values().map(|(_, card)| card.clone()).collect();
        let imported =
            self.store().write(async |transaction| goldleaves_cards::import(transaction, &given, &cards.written).await);
        imported.await.map_err(|error| match error {
            ImportError::Store(error) => error.into(),
            ImportError::Conflict { ref given, .. } | ImportError::TooLate { ref given } => {
                let line = cards.by_version.get(&given.version).map_or(0, |(line, _)| *line);
                wrong(line, &error.to_string())
            }
        })
    }
}

/// The lines of a file that say something, one at a time.
struct Lines<R> {
    file: BufReader<R>,
    number: u64,
}

impl<R: Read> Lines<R> {
    fn new(file: R) -> Self {
        Self { file: BufReader::new(file), number: 0 }
    }

    /// The next line and its number, from 1.
    fn next(&mut self) -> Result<Option<(u64, Line)>, BillingError> {
        let mut bytes = Vec::new();
        loop {
            self.number += 1;
            bytes.clear();
            (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(unreadable)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if bytes.len() as u64 == LINE_BYTES_MAX {
                return Err(wrong(self.number, "it is longer than 1 MiB"));
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong(self.number, "it is not UTF-8"))?;
            if !text.trim().is_empty() {
                let line = Line::parse(text).map_err(|what| wrong(self.number, &what))?;
                return Ok(Some((self.number, line)));
            }
        }
    }
}

/// The rate cards of a file, each with its line.
#[derive(Debug, Default)]
struct Cards {
    by_version: BTreeMap<i64, (u64, RateCard)>,
    written: HashMap<i64, Timestamp>,
}

impl Cards {
    /// Reads every line, and keeps the cards.
    fn of(lines: &mut Lines<impl Read>, hear: &mut impl FnMut(ImportStep<'_>)) -> Result<Self, BillingError> {
        let mut cards = Self::default();
        while let Some((number, line)) = lines.next()? {
            hear(ImportStep::Read(number));
            let card = match line {
                Line::Card(card) => card,
                Line::Row(row) if row.table.name == CARDS => {
                    let card = card(&row).map_err(|what| wrong(number, &what))?;
                    let written = row.cell("created_at").and_then(|written| written.parse().ok());
                    cards.written.extend(written.map(|written| (card.version, written)));
                    card
                }
                Line::Row(_) => continue,
            };
            match cards.by_version.get(&card.version) {
                Some((before, there)) if *there != card => {
                    return Err(wrong(number, &format!("version {} is another card in line {before}", card.version)));
                }
                Some(_) => {}
                None => _ = cards.by_version.insert(card.version, (number, card)),
            }
        }
        cards.check_order()?;
        Ok(cards)
    }

    /// None of the setting's cards is valid before an older one.
    fn check_order(&self) -> Result<(), BillingError> {
        let mut before: Option<&RateCard> = None;
        for (line, card) in self.by_version.values().filter(|(_, card)| card.origin == Origin::Setting) {
            if let Some(before) = before.filter(|before| before.effective_from > card.effective_from) {
                return Err(wrong(*line, &format!("it is out of order: {card} comes after {before}")));
            }
            before = Some(card);
        }
        Ok(())
    }
}

/// The card of a row.
fn card(row: &Row) -> Result<RateCard, String> {
    let text = |name: &str| row.cell(name).unwrap_or_default().to_owned();
    let number = |name: &str| row.cell(name).and_then(|text| text.parse::<i64>().ok());
    let pricing = match row.cell("pricing") {
        Some(pricing) => Pricing::from_text(pricing).map_err(|error| format!("pricing is wrong: {error}"))?,
        None => {
            let rate = number("rate_micro_cents").and_then(|rate| u64::try_from(rate).ok());
            Pricing::PerUnit(rate.and_then(Rate::from_micro_cents).ok_or("rate_micro_cents is no rate")?)
        }
    };
    let origin = row.cell("origin").map_or(Some(Origin::Setting), Origin::of);
    Ok(RateCard {
        version: number("version").filter(|version| *version > 0).ok_or("version must be 1 or more")?,
        id: row.cell("id").and_then(|id| Uuid::try_parse(id).ok()),
        selector: Selector { tenant_id: text("tenant_id"), route: text("route"), action: text("action") },
        pricing,
        effective_from: row
            .cell("effective_from")
            .and_then(|from| from.parse().ok())
            .ok_or("effective_from is missing")?,
        origin: origin.ok_or("origin is none that this program knows")?,
        actor: row.cell("actor").map(str::to_owned),
        reason: row.cell("reason").map(str::to_owned),
    })
}

/// Writes every row but the cards.
async fn take_all(
    transaction: &Transaction,
    lines: &mut Lines<impl Read>,
    hear: &mut impl FnMut(ImportStep<'_>),
) -> Result<Transfer, BillingError> {
    hear(ImportStep::Again);
    locks::bills(transaction).await?;
    let mut done: BTreeMap<&str, TableImport> = BTreeMap::new();
    let mut waiting = 0;
    while let Some((number, line)) = lines.next()? {
        hear(ImportStep::Written(number));
        let row = match line {
            Line::Row(row) if row.table.name != CARDS => row,
            _ => continue,
        };
        let table = row.table.name;
        let of_table = done.entry(table).or_insert_with(|| TableImport { table, ..TableImport::default() });
        match take(transaction, number, &row).await? {
            Taken::Added => of_table.added += 1,
            Taken::There => of_table.there += 1,
            Taken::Waits(name) => {
                waiting += 1;
                hear(ImportStep::Waits(&name));
            }
            Taken::Follows => {}
        }
    }
    let tables = TABLES.iter().filter_map(|table: &Table| done.remove(table.name));
    Ok(Transfer { tables: tables.filter(|table| table.added + table.there > 0).collect(), waiting })
}

async fn take(transaction: &Transaction, line: u64, row: &Row) -> Result<Taken, BillingError> {
    if row.table.name == "usage_corrections" {
        return take_correction(transaction, line, row).await;
    }
    if insert(transaction, row).await? {
        return Ok(Taken::Added);
    }
    match stored(transaction, row).await? {
        Some(there) => compare(line, row, &there),
        None => Err(wrong(line, &format!("another row of {} has what only one may have", row.table.name))),
    }
}

/// Adds a correction as a call would: its hour is marked, so that rows for Stripe and closed periods come to it.
async fn take_correction(transaction: &Transaction, line: u64, row: &Row) -> Result<Taken, BillingError> {
    if row.cell("kind") == Some("follow") {
        return Ok(Taken::Follows);
    }
    if let Some(there) = stored(transaction, row).await? {
        return compare(line, row, &there);
    }
    let event = row.cell("event_id").and_then(|id| Uuid::try_parse(id).ok());
    let tenant = row.cell("tenant_id").unwrap_or_default();
    match event {
        Some(event) if !corrections::is_there(transaction, tenant, event).await? => {
            Ok(Taken::Waits(format!("{} of event {event} of {tenant}", row.cell("id").unwrap_or_default())))
        }
        event => {
            insert(transaction, row).await?;
            let ts = row.cell("ts").and_then(|ts| ts.parse::<Timestamp>().ok());
            let ts = ts.ok_or_else(|| wrong(line, "ts is missing"))?;
            late::mark(transaction, tenant, ts.hour()).await?;
            if let Some(event) = event {
                corrections::settle(transaction, tenant, event).await?;
            }
            Ok(Taken::Added)
        }
    }
}

/// Returns whether what is there is what the line says, as far as it says anything.
fn compare(line: u64, row: &Row, there: &[Option<String>]) -> Result<Taken, BillingError> {
    let columns = row.table.columns.iter().zip(&row.cells).zip(there);
    let mut differs =
        columns.filter(|((column, given), there)| given.is_some() && given != there && !row.table.moves(column.0));
    let Some((((name, _), given), there)) = differs.next() else { return Ok(Taken::There) };
    let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "null".to_owned());
    let (table, there, given) = (row.table.name, text(there), text(given));
    Err(wrong(line, &format!("{table} is there already, and its {name} is {there}, not {given}")))
}

/// The row that is there under the same key.
async fn stored(transaction: &Transaction, row: &Row) -> Result<Option<Vec<Option<String>>>, BillingError> {
    let (dialect, mut params) = (transaction.dialect(), Params::default());
    let keys = row.table.key.iter().map(|name| format!("t.{name} = {}", row.bind(dialect, name, &mut params)));
    let keys = keys.collect::<Vec<_>>().join(" AND ");
    let sql = format!("SELECT {} FROM {} AS t WHERE {keys}", row.table.cells(dialect), row.table.name);
    let rows = transaction.query(&sql, params).await?;
    let Some(found) = rows.first() else { return Ok(None) };
    let mut cells = Vec::new();
    for (name, kind) in row.table.columns {
        let cell: Option<String> = read(found, name)?;
        let cell = cell.map(|cell| check(name, *kind, cell)).transpose();
        cells.push(cell.map_err(|what| BillingError::unreadable(name, what))?);
    }
    Ok(Some(cells))
}

/// Adds the row, unless it is there; returns whether it did.
async fn insert(transaction: &Transaction, row: &Row) -> Result<bool, BillingError> {
    let (dialect, mut params) = (transaction.dialect(), Params::default());
    let names = row.given();
    let values: Vec<String> = names.iter().map(|name| row.bind(dialect, name, &mut params)).collect();
    let sql = format!(
        "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING",
        row.table.name,
        names.join(", "),
        values.join(", ")
    );
    Ok(transaction.execute(&sql, params).await?.rows_affected() > 0)
}

fn wrong(line: u64, what: &str) -> BillingError {
    BillingError::Refused(Refusal::new(RefusalCode::Invalid, format!("line {line}: {what}")))
}

fn unreadable(error: std::io::Error) -> BillingError {
    BillingError::Refused(Refusal::new(RefusalCode::Invalid, format!("the file can't be read: {error}")))
}
