//! How much of a stream the ledger has: ranges of its sequences, written in the transaction that records what they hold.
//!
//! Nothing is ever claimed but what the same transaction records. A ledger that went back, to a backup or to a standby that
//! was behind, therefore says so by itself: its ranges end before what the stream saw acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use goldleaves_store::{Dialect, Params, Rows, Transaction, read};

use crate::{Incoming, Ledger, LedgerError};

/// A stream, and when it was made in its own words: another text is another stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Course {
    /// Its name.
    pub stream: String,
    /// When it was made.
    pub created: String,
}

/// Sequences of a stream, the first and the last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequences {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

/// Which sequences of which stream are done when a message is recorded: its own, and before it those that the stream no
/// longer holds.
#[derive(Debug, Clone)]
pub struct Place {
    /// The stream.
    pub course: Arc<Course>,
    /// The sequences.
    pub sequences: Sequences,
}

impl Ledger {
    /// The highest sequence up to which everything from `first` on is recorded; the one before `first` if that is not.
    /// `None`: the ledger never heard of the stream.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn progress(&self, course: &Course, first: u64) -> Result<Option<u64>, LedgerError> {
        let mut params = Params::default();
        let sql = select_ranges(course, &mut params);
        let ranges: Vec<Sequences> =
            self.read(&sql, params).await?.iter().map(read_range).collect::<Result<_, LedgerError>>()?;
        if joined(&ranges).len() < ranges.len() {
            self.write(async |transaction| join(transaction, course).await).await?;
        }
        Ok((!ranges.is_empty()).then(|| reached(&ranges, first)))
    }

    /// Notes sequences as done that the stream does not hold any more, so that nothing of them can be recorded.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn pass_over(&self, course: &Course, sequences: Sequences) -> Result<(), LedgerError> {
        self.write(async |transaction| write_course(transaction, course, &[sequences]).await).await
    }
}

/// Up to where the ranges, in the order of their beginnings, leave no gap from `first` on.
fn reached(ranges: &[Sequences], first: u64) -> u64 {
    ranges.iter().fold(first.saturating_sub(1), |reached, range| {
        if range.first <= reached + 1 { reached.max(range.last) } else { reached }
    })
}

/// The same sequences in as few ranges as possible, in order.
fn joined(ranges: &[Sequences]) -> Vec<Sequences> {
    let mut joined: Vec<Sequences> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => joined.push(*range),
        }
    }
    joined
}

/// Writes what these messages leave done. The last thing of a transaction: nobody waits for its locks longer than for the
/// commit.
pub(crate) async fn write(transaction: &Transaction, places: &[&Place]) -> Result<(), LedgerError> {
    let mut courses: BTreeMap<&Course, Vec<Sequences>> = BTreeMap::new();
    for place in places {
        courses.entry(&place.course).or_default().push(place.sequences);
    }
    for (course, mut ranges) in courses {
        ranges.sort_unstable();
        write_course(transaction, course, &joined(&ranges)).await?;
    }
    Ok(())
}

/// The places of a batch.
pub(crate) fn places(incoming: &[Incoming]) -> Vec<&Place> {
    incoming.iter().filter_map(|message| message.place.as_ref()).collect()
}

async fn write_course(transaction: &Transaction, course: &Course, ranges: &[Sequences]) -> Result<(), LedgerError> {
    let Some((first, rest)) = ranges.split_first() else { return Ok(()) };
    if extend(transaction, course, *first).await? {
        insert(transaction, course, rest).await
    } else {
        insert(transaction, course, ranges).await
    }
}

/// Lengthens the range that a new one touches. One that another worker is lengthening is left alone: nobody waits here.
async fn extend(transaction: &Transaction, course: &Course, range: Sequences) -> Result<bool, LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
    let (first, last) = (params.bind(number(range.first)), params.bind(number(range.last)));
    let skip = if dialect == Dialect::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "WITH touched AS MATERIALIZED ( \
             SELECT first_sequence FROM ledger_progress WHERE stream = {stream} AND stream_created = {created} \
             AND first_sequence <= {first} AND last_sequence >= {first} - 1 ORDER BY first_sequence LIMIT 1 {skip} \
         ) \
         UPDATE ledger_progress SET last_sequence = {greatest}(last_sequence, {last}), updated_at = {now} \
         WHERE stream = {stream} AND stream_created = {created} \
         AND first_sequence IN (SELECT first_sequence FROM touched)",
        greatest = dialect.greatest(),
        now = dialect.now(),
    );
    Ok(transaction.execute(&sql, params).await?.rows_affected() > 0)
}

async fn insert(transaction: &Transaction, course: &Course, ranges: &[Sequences]) -> Result<(), LedgerError> {
    if ranges.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let source = Rows::new(dialect)
        .column("first_sequence", ranges.iter().map(|range| number(range.first)))
        .column("last_sequence", ranges.iter().map(|range| number(range.last)))
        .query(&mut params);
    let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
    let sql = format!(
        "INSERT INTO ledger_progress AS t (stream, stream_created, first_sequence, last_sequence, updated_at) \
         SELECT {stream}, {created}, r.first_sequence, r.last_sequence, {now} FROM ({source}) AS r WHERE true ORDER BY r.n \
         ON CONFLICT (stream, stream_created, first_sequence) DO UPDATE SET \
             last_sequence = {greatest}(t.last_sequence, EXCLUDED.last_sequence), updated_at = EXCLUDED.updated_at",
        greatest = dialect.greatest(),
        now = dialect.now(),
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Makes one range of those that touch, so that there are as few rows as there are gaps.
async fn join(transaction: &Transaction, course: &Course) -> Result<(), LedgerError> {
    let mut params = Params::default();
    let mut sql = select_ranges(course, &mut params);
    if transaction.dialect() == Dialect::Postgres {
        sql.push_str(" FOR UPDATE");
    }
    let rows = transaction.query(&sql, params).await?;
    let ranges: Vec<Sequences> = rows.iter().map(read_range).collect::<Result<_, _>>()?;
    let joined = joined(&ranges);
    let gone: Vec<i64> = ranges
        .iter()
        .filter(|range| !joined.iter().any(|joined| joined.first == range.first))
        .map(|range| number(range.first))
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    let mut params = Params::default();
    let source = Rows::new(transaction.dialect()).column("gone", gone.into_iter()).query(&mut params);
    let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
    let sql = format!(
        "DELETE FROM ledger_progress WHERE stream = {stream} AND stream_created = {created} \
         AND first_sequence IN (SELECT g.gone FROM ({source}) AS g)"
    );
    transaction.execute(&sql, params).await?;
    insert(transaction, course, &joined).await
}

fn select_ranges(course: &Course, params: &mut Params) -> String {
    let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
    format!(
        "SELECT first_sequence, last_sequence FROM ledger_progress \
         WHERE stream = {stream} AND stream_created = {created} ORDER BY first_sequence"
    )
}

fn read_range(row: &sea_orm::QueryResult) -> Result<Sequences, LedgerError> {
    let number = |column| {
        let number: i64 = read(row, column)?;
        u64::try_from(number).map_err(|error| LedgerError::unreadable(column, error))
    };
    Ok(Sequences { first: number("first_sequence")?, last: number("last_sequence")? })
}

fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges<const N: usize>(ranges: [(u64, u64); N]) -> Vec<Sequences> {
        ranges.into_iter().map(|(first, last)| Sequences { first, last }).collect()
    }

    #[test]
    fn a_gap_ends_what_is_reached() {
        assert_eq!(reached(&ranges([(1, 10), (11, 20), (22, 30)]), 1), 20);
        assert_eq!(reached(&ranges([(1, 10), (5, 8), (9, 12)]), 1), 12);
        assert_eq!(reached(&ranges([(5, 10)]), 1), 0);
        // What the stream no longer holds is no gap.
        assert_eq!(reached(&ranges([(5, 10)]), 3), 2);
        assert_eq!(reached(&ranges([(5, 10)]), 5), 10);
        assert_eq!(reached(&ranges([(1, 10)]), 40), 39);
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(joined(&ranges([(1, 3), (4, 6), (5, 5), (8, 9)])), ranges([(1, 6), (8, 9)]));
        assert_eq!(joined(&[]), []);
    }
}
