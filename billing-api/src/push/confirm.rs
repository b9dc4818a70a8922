//! Confirming rows hour by hour: one reading says it of all rows of a lane, where reading their minutes would take one each.

use std::collections::BTreeMap;

use goldleaves_billing::stripe::rules::{Due, HourRow, RowState, Verdict, hour_is_there};
use goldleaves_billing::stripe::{Claim, PushRow, StoredMeter};
use goldleaves_domain::Timestamp;

use super::sums::Reader;
use super::{Pusher, Stop};

const SECOND: i64 = 1_000_000;

impl Pusher {
    /// Confirms the rows of hours in which Stripe has just their sum; how many there were. Of other hours the minutes are
    /// read, row by row.
    pub(super) async fn confirm_hours(
        &self,
        claim: &Claim,
        meter: &StoredMeter,
        rows: &[PushRow],
        now: Timestamp,
    ) -> Result<usize, Stop> {
        let is_due = |row: &&PushRow| row.progress.state == RowState::Pushed && row.due(now) == Due::Read;
        let hours = || rows.iter().filter(is_due).filter_map(|row| Some(row.event_timestamp?.hour()));
        let (Some(first), Some(last)) = (hours().min(), hours().max()) else { return Ok(0) };
        if hours().count() < 2 {
            return Ok(0);
        }
        let until = last.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(last);
        let reader = Reader { claim, meter, pace: &self.inner.reads };
        // What can't be read now is left to the minutes, and to what they find out.
        let Ok(sums) = self.pages(reader, ((first, until), true)).await? else { return Ok(0) };
        let theirs: BTreeMap<i64, i128> = sums.iter().filter_map(|sum| Some((sum.start_time, sum.value()?))).collect();
        let mut ours: BTreeMap<Timestamp, Vec<PushRow>> = BTreeMap::new();
        for row in self.inner.books.rows_of(&claim.lane.key, first, until).await? {
            if let Some(minute) = row.event_timestamp {
                ours.entry(minute.hour()).or_default().push(row);
            }
        }
        let mut confirmed = 0;
        for (hour, rows) in ours {
            let row = |row: &PushRow| HourRow { state: row.progress.state, value: row.value };
            let ours: Vec<HourRow> = rows.iter().map(row).collect();
            if hour_is_there(&ours, theirs.get(&(hour.unix_micros() / SECOND)).copied()) {
                for row in rows.iter().filter(is_due) {
                    let Some(value) = row.value else { continue };
                    let verdict = self.inner.books.read_back(claim, row.id, value).await?;
                    confirmed += usize::from(verdict == Verdict::Confirmed);
                }
            }
        }
        Ok(confirmed)
    }
}
