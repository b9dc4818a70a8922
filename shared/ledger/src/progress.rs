//! How much of a stream the ledger has: ranges of its sequences, written in the transaction that records what they hold.
//!
//! Nothing is ever claimed but what the same transaction records. A ledger that went back, to a backup or to a standby that
//! was behind, therefore says so by itself: its ranges end before what the stream saw acknowledged.
//!
//! A stream may go back too, and give out the same sequences again. So each range says when the stream stored its newest
//! message: where the stream has another one there, the range is of what the stream lost, and is cut ([`Ledger::cut`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use goldleaves_domain::Timestamp;
use goldleaves_store::{Dialect, Params, Rows, Transaction, read};

use crate::{Ledger, LedgerError};

/// A stream, and when it was made in its own words: another text is another stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamCourse {
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

/// The sequences of a stream that are done when a message is recorded: its own, and before it those that the stream no
/// longer holds.
#[derive(Debug, Clone)]
pub struct StreamPlace {
    /// The stream.
    pub course: Arc<StreamCourse>,
    /// The sequences.
    pub sequences: Sequences,
}

/// A message that the ledger has, and when the stream stored it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Landmark {
    /// Its sequence.
    pub sequence: u64,
    /// The time of its storing.
    pub stored: Timestamp,
}

/// Sequences that are recorded, with what is known of the first and the newest message of them; 0: nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    first: u64,
    last: u64,
    first_micros: i64,
    stored_sequence: u64,
    stored_micros: i64,
}

impl Ledger {
    /// The highest sequence up to which everything from `first` on is recorded; the one before `first` if that is not.
    /// `None`: the ledger never heard of the stream.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn progress(&self, course: &StreamCourse, first: u64) -> Result<Option<u64>, LedgerError> {
        let mut params = Params::default();
        let sql = select_ranges(course, &mut params);
        let ranges = read_ranges(&self.read(&sql, params).await?)?;
        if joined(&ranges, Overlaps::InDoubt).len() < ranges.len() {
            self.write(async |transaction| join(transaction, course, Overlaps::InDoubt).await).await?;
        }
        Ok((!ranges.is_empty()).then(|| reached(&ranges, first)))
    }

    /// Notes sequences as done that the stream does not hold any more, so that nothing of them can be recorded.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn pass_over(&self, course: &StreamCourse, sequences: Sequences) -> Result<(), LedgerError> {
        let range = Range { first: sequences.first, last: sequences.last, ..Range::default() };
        self.write(async |transaction| write_course(transaction, course, &[range]).await).await
    }

    /// The newest message of each range, for a comparison with what the stream has at these sequences.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn landmarks(&self, course: &StreamCourse) -> Result<Vec<Landmark>, LedgerError> {
        let mut params = Params::default();
        let sql = select_ranges(course, &mut params);
        let ranges = read_ranges(&self.read(&sql, params).await?)?;
        Ok(ranges.iter().filter_map(Range::landmark).collect())
    }

    /// Makes one range of those that overlap too: the stream has the newest message of each.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn confirm(&self, course: &StreamCourse) -> Result<(), LedgerError> {
        self.write(async |transaction| join(transaction, course, Overlaps::Confirmed).await).await
    }

    /// Forgets what a range says of the sequences from `first` on: the stream lost the messages that it is about, this
    /// landmark among them.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn cut(&self, course: &StreamCourse, landmark: Landmark, first: u64) -> Result<(), LedgerError> {
        self.write(async |transaction| {
            let mut params = Params::default();
            let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
            let (sequence, micros) = (params.bind(number(landmark.sequence)), params.bind(landmark.stored.unix_micros()));
            let last = params.bind(number(first.saturating_sub(1)));
            let dialect = transaction.dialect();
            let sql = format!(
                "UPDATE ledger_progress SET last_sequence = {greatest}(first_sequence - 1, {last}), stored_sequence = 0, \
                 stored_micros = 0, updated_at = {now} WHERE stream = {stream} AND stream_created = {created} \
                 AND stored_sequence = {sequence} AND stored_micros = {micros}",
                greatest = dialect.greatest(),
                now = dialect.now(),
            );
            transaction.execute(&sql, params).await?;
            Ok(())
        })
        .await
    }
}

impl Range {
    fn landmark(&self) -> Option<Landmark> {
        let stored = Timestamp::from_unix_micros(self.stored_micros).ok()?;
        (self.stored_sequence > 0).then_some(Landmark { sequence: self.stored_sequence, stored })
    }

    /// Says whether no stream ever held the newest message of this range and that of the other: a stream stores later what has a
    /// higher sequence, but for what clocks of a cluster differ by.
    fn contradicts(&self, other: &Self) -> bool {
        let (low, high) = if self.stored_sequence <= other.stored_sequence { (self, other) } else { (other, self) };
        low.stored_sequence > 0 && low.stored_micros > high.stored_micros + CLOCKS_DIFFER_BY_MICROS
    }

    /// Says whether the next one is of the same messages. One that begins before the newest message of this one, and has newer ones,
    /// may be of what a stream stored after it had lost that message.
    fn may_join(&self, next: &Self, overlaps: Overlaps) -> bool {
        let goes_on_within = next.first <= self.stored_sequence && next.stored_sequence > self.stored_sequence;
        !self.contradicts(next) && (overlaps == Overlaps::Confirmed || !goes_on_within)
    }

    /// Takes in what the next one covers.
    fn join(&mut self, next: &Self) {
        self.last = self.last.max(next.last);
        if next.stored_sequence > self.stored_sequence {
            (self.stored_sequence, self.stored_micros) = (next.stored_sequence, next.stored_micros);
        }
    }
}

/// The most that the clocks of two servers of a cluster differ by.
const CLOCKS_DIFFER_BY_MICROS: i64 = 1_000_000;

/// Up to where the ranges, in the order of their beginnings, leave no gap from `first` on.
fn reached(ranges: &[Range], first: u64) -> u64 {
    ranges.iter().fold(first.saturating_sub(1), |reached, range| {
        if range.first <= reached + 1 { reached.max(range.last) } else { reached }
    })
}

/// The knowledge of ranges that overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlaps {
    /// One of them may be of what the stream lost.
    InDoubt,
    /// The stream has what they end with.
    Confirmed,
}

/// The same sequences in as few ranges as possible, in order.
fn joined(ranges: &[Range], overlaps: Overlaps) -> Vec<Range> {
    let mut joined: Vec<Range> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) && last.may_join(range, overlaps) => {
                last.join(range)
            }
            _ => joined.push(*range),
        }
    }
    joined
}

/// Writes what these messages leave done. The last thing of a transaction: nobody waits for its locks longer than for the
/// commit.
pub(crate) async fn write(transaction: &Transaction, notes: &[Note<'_>]) -> Result<(), LedgerError> {
    let mut courses: BTreeMap<&StreamCourse, Vec<Range>> = BTreeMap::new();
    for Note { place, micros } in notes {
        let Sequences { first, last } = place.sequences;
        let stored_sequence = if *micros > 0 { last } else { 0 };
        let range = Range { first, last, first_micros: *micros, stored_sequence, stored_micros: *micros };
        courses.entry(&place.course).or_default().push(range);
    }
    for (course, mut ranges) in courses {
        ranges.sort_unstable();
        write_course(transaction, course, &joined(&ranges, Overlaps::InDoubt)).await?;
    }
    Ok(())
}

/// The part of a stream that is done with a message, and when that was stored; 0: nobody knows.
pub(crate) struct Note<'a> {
    pub(crate) place: &'a StreamPlace,
    pub(crate) micros: i64,
}

async fn write_course(transaction: &Transaction, course: &StreamCourse, ranges: &[Range]) -> Result<(), LedgerError> {
    let Some((first, rest)) = ranges.split_first() else { return Ok(()) };
    if extend(transaction, course, *first).await? {
        insert(transaction, course, rest).await
    } else {
        insert(transaction, course, ranges).await
    }
}

/// Lengthens the range that a new one touches. One that another worker is lengthening is left alone: nobody waits here. So is
/// one of a stream that went back: of two messages the later one has the higher sequence.
async fn extend(transaction: &Transaction, course: &StreamCourse, range: Range) -> Result<bool, LedgerError> {
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
    let (first, last) = (params.bind(number(range.first)), params.bind(number(range.last)));
    let (first_micros, micros) = (params.bind(range.first_micros), params.bind(range.stored_micros));
    let stored = params.bind(number(range.stored_sequence));
    let skip = if dialect == Dialect::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "WITH touched AS MATERIALIZED ( \
             SELECT first_sequence FROM ledger_progress WHERE stream = {stream} AND stream_created = {created} \
             AND first_sequence <= {first} AND last_sequence >= {first} - 1 \
             AND NOT ({first} <= stored_sequence AND {first_micros} > stored_micros + {differ}) \
             AND NOT ({stored} <= stored_sequence AND {micros} > stored_micros + {differ}) \
             AND NOT ({first} > stored_sequence AND {first_micros} > 0 AND {first_micros} < stored_micros - {differ}) \
             ORDER BY first_sequence LIMIT 1 {skip} \
         ) \
         UPDATE ledger_progress SET last_sequence = {greatest}(last_sequence, {last}), \
             stored_micros = CASE WHEN {stored} > stored_sequence THEN {micros} ELSE stored_micros END, \
             stored_sequence = {greatest}(stored_sequence, {stored}), updated_at = {now} \
         WHERE stream = {stream} AND stream_created = {created} \
         AND first_sequence IN (SELECT first_sequence FROM touched)",
        differ = CLOCKS_DIFFER_BY_MICROS,
        greatest = dialect.greatest(),
        now = dialect.now(),
    );
    Ok(transaction.execute(&sql, params).await?.rows_affected() > 0)
}

async fn insert(transaction: &Transaction, course: &StreamCourse, ranges: &[Range]) -> Result<(), LedgerError> {
    if ranges.is_empty() {
        return Ok(());
    }
    let dialect = transaction.dialect();
    let mut params = Params::default();
    let source = Rows::new(dialect)
        .column("first_sequence", ranges.iter().map(|range| number(range.first)))
        .column("last_sequence", ranges.iter().map(|range| number(range.last)))
        .column("stored_sequence", ranges.iter().map(|range| number(range.stored_sequence)))
        .column("stored_micros", ranges.iter().map(|range| range.stored_micros))
        .query(&mut params);
    let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
    // What the stream stored later at the same sequences or lower ones is what it has now.
    let is_other = format!(
        "EXCLUDED.stored_sequence <= t.stored_sequence AND EXCLUDED.stored_micros > t.stored_micros + {CLOCKS_DIFFER_BY_MICROS}"
    );
    let newer = "EXCLUDED.stored_sequence > t.stored_sequence";
    let sql = format!(
        "INSERT INTO ledger_progress AS t (stream, stream_created, first_sequence, last_sequence, stored_sequence, \
             stored_micros, updated_at) \
         SELECT {stream}, {created}, r.first_sequence, r.last_sequence, r.stored_sequence, r.stored_micros, {now} \
         FROM ({source}) AS r WHERE true ORDER BY r.n \
         ON CONFLICT (stream, stream_created, first_sequence) DO UPDATE SET \
             last_sequence = CASE WHEN {is_other} THEN EXCLUDED.last_sequence \
                 ELSE {greatest}(t.last_sequence, EXCLUDED.last_sequence) END, \
             stored_sequence = CASE WHEN {is_other} OR {newer} THEN EXCLUDED.stored_sequence ELSE t.stored_sequence END, \
             stored_micros = CASE WHEN {is_other} OR {newer} THEN EXCLUDED.stored_micros ELSE t.stored_micros END, \
             updated_at = EXCLUDED.updated_at",
        greatest = dialect.greatest(),
        now = dialect.now(),
    );
    transaction.execute(&sql, params).await?;
    Ok(())
}

/// Makes one range of those that touch, so that there are as few rows as there are gaps.
async fn join(transaction: &Transaction, course: &StreamCourse, overlaps: Overlaps) -> Result<(), LedgerError> {
    let mut params = Params::default();
    let mut sql = select_ranges(course, &mut params);
    if transaction.dialect() == Dialect::Postgres {
        sql.push_str(" FOR UPDATE");
    }
    let rows = transaction.query(&sql, params).await?;
    let ranges = read_ranges(&rows)?;
    let joined = joined(&ranges, overlaps);
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

fn select_ranges(course: &StreamCourse, params: &mut Params) -> String {
    let (stream, created) = (params.bind(course.stream.as_str()), params.bind(course.created.as_str()));
    format!(
        "SELECT first_sequence, last_sequence, stored_sequence, stored_micros FROM ledger_progress \
         WHERE stream = {stream} AND stream_created = {created} ORDER BY first_sequence"
    )
}

fn read_ranges(rows: &[sea_orm::QueryResult]) -> Result<Vec<Range>, LedgerError> {
    rows.iter().map(read_range).collect()
}

fn read_range(row: &sea_orm::QueryResult) -> Result<Range, LedgerError> {
    let number = |column| {
        let number: i64 = read(row, column)?;
        u64::try_from(number).map_err(|error| LedgerError::unreadable(column, error))
    };
    let (first, last) = (number("first_sequence")?, number("last_sequence")?);
    let (stored_sequence, stored_micros) = (number("stored_sequence")?, read(row, "stored_micros")?);
    Ok(Range { first, last, first_micros: 0, stored_sequence, stored_micros })
}

fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges<const N: usize>(ranges: [(u64, u64); N]) -> Vec<Range> {
        ranges.into_iter().map(|(first, last)| Range { first, last, ..Range::default() }).collect()
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
        assert_eq!(joined(&ranges([(1, 3), (4, 6), (5, 5), (8, 9)]), Overlaps::InDoubt), ranges([(1, 6), (8, 9)]));
        assert_eq!(joined(&[], Overlaps::InDoubt), []);
    }

    #[test]
    fn ranges_of_a_stream_that_went_back_do_not_become_one() {
        let range = |first, last, secs: i64| Range {
            first,
            last,
            stored_sequence: last,
            stored_micros: secs * 1_000_000,
            ..Range::default()
        };
        let (lost, again, more) = (range(1, 100, 50), range(91, 95, 60), range(96, 120, 61));
        assert_eq!(joined(&[lost, again], Overlaps::Confirmed), [lost, again]);
        assert_eq!(joined(&[again, more], Overlaps::InDoubt), [Range { first: 91, ..more }]);
        assert_eq!(
            joined(&[lost, range(101, 101, 49)], Overlaps::InDoubt),
            [Range { first: 1, ..range(101, 101, 49) }],
            "within the clocks"
        );
        let past_it = Range { first: 91, ..range(91, 120, 61) };
        assert_eq!(joined(&[lost, past_it], Overlaps::InDoubt), [lost, past_it], "nobody knows yet what it follows");
        assert_eq!(joined(&[lost, past_it], Overlaps::Confirmed), [Range { first: 1, ..past_it }]);
        assert!(!lost.contradicts(&Range { first: 90, last: 92, ..Range::default() }), "nothing is known");
    }
}
