//! The usage of a range, net of corrections, by whatever it is to be told by: one statement, one snapshot.

use std::fmt;
use std::str::FromStr;

use goldleaves_domain::{Period, Timestamp};
use goldleaves_pricing::{LocalDay, Used};
use goldleaves_store::{Dialect, Params, Rows, read, read_wide};
use sea_orm::QueryResult;

use crate::source::{Source, wide};
use crate::{BillingError, RefusalCode};

/// The most groups of an answer.
pub(crate) const GROUPS_MAX: usize = 10_000;
/// The most rows that are read before they are counted.
const FEW_ROWS: usize = 20_000;

/// A sum of units in millionths, which may be negative where it is a difference. Shown as an exact decimal: `3`, `-0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnitsTotal(pub i128);

impl fmt::Display for UnitsTotal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ONE: u128 = 1_000_000;
        let (whole, fraction) = (self.0.unsigned_abs() / ONE, self.0.unsigned_abs() % ONE);
        if self.0 < 0 {
            out.write_str("-")?;
        }
        if fraction == 0 {
            return write!(out, "{whole}");
        }
        write!(out, "{whole}.{}", format!("{fraction:06}").trim_end_matches('0'))
    }
}

/// The dimensions that usage can be told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// The matched pattern.
    Route,
    /// The action.
    Action,
    /// The user.
    User,
    /// The local day.
    Day,
    /// The UTC hour.
    Hour,
    /// The rate version.
    Rate,
}

/// A text that is no dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of route, action, user, day, hour, rate")]
pub struct DimensionError;

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Route, Self::Action, Self::User, Self::Day, Self::Hour, Self::Rate];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Action => "action",
            Self::User => "user",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Rate => "rate",
        }
    }
}

impl FromStr for Dimension {
    type Err = DimensionError;

    fn from_str(text: &str) -> Result<Self, DimensionError> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == text).ok_or(DimensionError)
    }
}

/// The question for usage: whose, when, and by what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) range: Period,
    pub(crate) by: &'a [Dimension],
    /// The local days of the range, where it is told by day.
    pub(crate) days: &'a [LocalDay],
}

/// The usage of one rate version that has the same keys, one for each dimension asked for.
#[derive(Debug, Clone)]
pub(crate) struct UsagePart {
    pub(crate) keys: Vec<String>,
    pub(crate) version: i64,
    pub(crate) used: Used,
}

/// The usage of a range.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    /// Net of corrections.
    pub(crate) parts: Vec<UsagePart>,
    /// The sum of the corrections of events.
    pub(crate) corrected: Used,
    /// The sum of the corrections by an amount.
    pub(crate) adjustments_cents: i128,
}

/// The row that tells of corrections alone stands at this segment.
const CORRECTIONS: i64 = -1;

impl Question<'_> {
    fn has(&self, dimension: Dimension) -> bool {
        self.by.contains(&dimension)
    }

    pub(crate) async fn ask(&self, source: Source<'_>) -> Result<Usage, BillingError> {
        let (dialect, rows) = (source.dialect(), self.rows(source).await?);
        let mut usage = Usage::default();
        for row in rows {
            let used = Used { events: read(&row, "events")?, units_micro: read_wide(dialect, &row, "units_micro")? };
            let segment: i64 = read(&row, "segment")?;
            if segment == CORRECTIONS {
                usage.corrected = used;
                let cents: String = read(&row, "cents")?;
                usage.adjustments_cents = cents.parse().map_err(|error| BillingError::unreadable("cents", error))?;
            } else {
                let version = read(&row, "rate_version")?;
                let keys = self.by.iter().map(|dimension| self.key(*dimension, &row, segment, version));
                usage.parts.push(UsagePart { keys: keys.collect::<Result<_, _>>()?, version, used });
            }
        }
        Ok(usage)
    }

    /// The rows of the statement. For an answer, many are counted before all of them are read: more than it holds take no memory.
    async fn rows(&self, source: Source<'_>) -> Result<Vec<QueryResult>, BillingError> {
        let statement = || {
            let mut params = Params::default();
            (self.sql(source.dialect(), &mut params), params)
        };
        let (sql, params) = statement();
        let Some(lines) = source.lines_max() else { return source.query(&sql, params).await };
        // Beside the lines one row tells of corrections.
        let (most, few_rows) = (lines + 1, FEW_ROWS.min(lines + 1));
        let few = source.query(&format!("{sql} LIMIT {}", few_rows + 1), params).await?;
        if few.len() <= few_rows {
            return Ok(few);
        }
        drop(few);
        let (sql, params) = statement();
        let counted = format!("SELECT COUNT(*) AS found FROM ({sql} LIMIT {}) AS counted", most + 1);
        let found = source.query(&counted, params).await?;
        let found: i64 = found.first().map_or(Ok(0), |row| read(row, "found"))?;
        if usize::try_from(found).is_ok_and(|found| found > most) {
            let detail = format!(
                "the answer would be made of more than {lines} lines, each of a route, an action and a rate card; ask for a \
                 shorter range, or close the open period at an earlier end"
            );
            return BillingError::refused(RefusalCode::TooManyRows, detail);
        }
        let (sql, params) = statement();
        source.query(&sql, params).await
    }

    fn key(&self, dimension: Dimension, row: &QueryResult, segment: i64, version: i64) -> Result<String, BillingError> {
        Ok(match dimension {
            Dimension::Route => read(row, "route")?,
            Dimension::Action => read(row, "action")?,
            Dimension::User => read(row, "user_id")?,
            Dimension::Hour => read(row, "hour")?,
            Dimension::Rate => version.to_string(),
            Dimension::Day => {
                let day = usize::try_from(segment).ok().and_then(|at| self.days.get(at));
                day.map(|day| day.day.to_string()).unwrap_or_default()
            }
        })
    }

    fn sql(&self, dialect: Dialect, params: &mut Params) -> String {
        let cut = self.cut();
        let tenant = params.bind(self.tenant);
        let pieces = |pieces: &[UsagePiece], params: &mut Params| {
            Rows::new(dialect)
                .column("segment", pieces.iter().map(|piece| piece.segment))
                .column("from_ts", pieces.iter().map(|piece| piece.from))
                .column("until_ts", pieces.iter().map(|piece| piece.until))
                .query(params)
        };
        let (raw, rolled) = (pieces(&cut.raw, params), pieces(&cut.rolled, params));
        let whole = pieces(&cut.whole, params);
        let cell = |dimension, column: &str| if self.has(dimension) { column.to_owned() } else { empty() };
        let named = |alias: &str, time: &str, user: &str| {
            format!(
                "p.segment, {} AS route, {} AS action, {} AS user_id, {} AS hour, {alias}.rate_version",
                cell(Dimension::Route, &format!("{alias}.route")),
                cell(Dimension::Action, &format!("{alias}.action")),
                cell(Dimension::User, user),
                cell(Dimension::Hour, &hour_text(dialect, time)),
            )
        };
        // A correction has the user of the event that it names.
        let user = "COALESCE((SELECT e.user_id FROM usage_events AS e WHERE e.id = c.event_id), \
                    (SELECT d.user_id FROM usage_duplicates AS d WHERE d.id = c.event_id), '')";
        let corrections =
            format!("usage_corrections AS c WHERE c.tenant_id = {tenant} AND c.ts >= p.from_ts AND c.ts < p.until_ts");
        format!(
            "WITH raw AS ({raw}), rolled AS ({rolled}), whole AS ({whole}) \
             SELECT segment, route, action, user_id, hour, rate_version, {events} AS events, {sums}, '0' AS cents FROM ( \
                 SELECT {of_events}, 1 AS events, {event_units} FROM raw AS p CROSS JOIN usage_events AS e \
                     WHERE e.tenant_id = {tenant} AND e.ts >= p.from_ts AND e.ts < p.until_ts \
                 UNION ALL SELECT {of_rollups}, r.events, {rollup_units} FROM rolled AS p CROSS JOIN usage_rollups AS r \
                     WHERE r.tenant_id = {tenant} AND r.hour >= p.from_ts AND r.hour < p.until_ts \
                 UNION ALL SELECT {of_corrections}, c.events, {correction_units} FROM whole AS p CROSS JOIN {corrections} \
                     AND c.kind <> 'amount' \
             ) AS u GROUP BY segment, route, action, user_id, hour, rate_version \
             HAVING SUM(events) <> 0 OR {has_units} \
             UNION ALL SELECT {CORRECTIONS}, '', '', '', '', 0, {events}, {sums}, CAST(COALESCE(SUM(cents), 0) AS text) FROM ( \
                 SELECT c.events, c.cents, {correction_units} FROM whole AS p CROSS JOIN {corrections} \
             ) AS k",
            events = wide::count(dialect, "events"),
            sums = wide::sums(dialect),
            has_units = wide::has_units(dialect),
            of_events = named("e", "e.ts", "e.user_id"),
            of_rollups = named("r", "r.hour", "''"),
            of_corrections = named("c", "c.ts", user),
            event_units = wide::of_row(dialect, "e.units_micro"),
            rollup_units = wide::of_rollup(dialect, "r"),
            correction_units = wide::of_row(dialect, "c.units_micro"),
        )
    }

    /// The range in pieces: those that are read from the events, those from the rollups, and the segments as a whole.
    fn cut(&self) -> UsageCut {
        let mut cut = UsageCut::default();
        let whole_range = [self.range];
        let days: Vec<Period> = self.days.iter().map(|day| day.period).collect();
        let segments = if self.has(Dimension::Day) { days.as_slice() } else { &whole_range };
        for (segment, period) in (0_i64..).zip(segments) {
            cut.add(segment, period, self.has(Dimension::User));
        }
        cut
    }
}

/// A piece of a segment.
#[derive(Debug, Clone, Copy)]
struct UsagePiece {
    segment: i64,
    from: Timestamp,
    until: Timestamp,
}

#[derive(Debug, Default)]
struct UsageCut {
    raw: Vec<UsagePiece>,
    rolled: Vec<UsagePiece>,
    whole: Vec<UsagePiece>,
}

impl UsageCut {
    fn add(&mut self, segment: i64, period: &Period, from_events: bool) {
        let piece = |from, until| UsagePiece { segment, from, until };
        let (first, last) = whole_hours(period);
        self.whole.push(piece(period.start(), period.end()));
        if from_events || first >= last {
            self.raw.push(piece(period.start(), period.end()));
            return;
        }
        let edges = [piece(period.start(), first), piece(last, period.end())];
        self.raw.extend(edges.into_iter().filter(|edge| edge.from < edge.until));
        self.rolled.push(piece(first, last));
    }
}

/// The first and the last full hour mark in the period; nothing lies between them when the first is not before the last.
pub(crate) fn whole_hours(period: &Period) -> (Timestamp, Timestamp) {
    let (start, end) = (period.start(), period.end());
    let first = if start.hour() == start { Some(start) } else { start.hour().plus_micros(Timestamp::HOUR_MICROS) };
    (first.unwrap_or(end), end.hour())
}

fn empty() -> String {
    "''".to_owned()
}

/// A moment's hour as text.
fn hour_text(dialect: Dialect, column: &str) -> String {
    match dialect {
        Dialect::Postgres => {
            format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24\":00:00.000000Z\"')")
        }
        Dialect::Sqlite => format!("substr({column}, 1, 13) || ':00:00.000000Z'"),
    }
}
