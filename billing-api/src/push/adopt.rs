//! Finding of the minutes in which Stripe has another value than the rows: hours first, then halves of what differs.

use std::collections::BTreeMap;

use goldleaves_billing::stripe::{Adopted, Found, LaneKey, PushRow, StoredMeter};
use goldleaves_billing::{Author, BillingError};
use goldleaves_domain::Timestamp;
use goldleaves_stripe::{ReadError, Sum, Window};

use crate::answer::ApiError;

use super::Pusher;
use super::lane::{WINDOW, minute_of};

const SECOND: i64 = 1_000_000;
const MINUTES_OF_HOUR: i64 = 60;

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    #[error(transparent)]
    Billing(#[from] BillingError),
    #[error(transparent)]
    Stripe(#[from] ReadError),
    #[error("a sum at Stripe is too large to be exact")]
    Inexact,
}

impl From<AdoptError> for ApiError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Billing(error) => Self::Billing(error),
            error => Self::Stripe(goldleaves_runtime::process::chain(&error)),
        }
    }
}

type Minutes = BTreeMap<i64, i128>;

impl Pusher {
    /// Takes over what Stripe has in a lane, and makes rows of the differences.
    pub(crate) async fn adopt(&self, lane: &LaneKey, author: (&Author, &str)) -> Result<Adopted, AdoptError> {
        // Before Stripe is asked: of a lane that nobody's usage goes to there is nothing to take over.
        let meter = self.inner.books.meter_of_lane(lane).await?;
        let found = self.differences(lane, &meter).await?;
        let adopted = self.inner.books.adopt((lane, &found), author).await?;
        self.wake();
        Ok(adopted)
    }

    /// The minutes of the last 35 days in which Stripe has another value than the rows.
    async fn differences(&self, lane: &LaneKey, meter: &StoredMeter) -> Result<Vec<Found>, AdoptError> {
        let now = self.inner.books.now().await?;
        let until = now.hour().plus_micros(Timestamp::HOUR_MICROS).unwrap_or(now);
        let from = until.plus_micros(-WINDOW).unwrap_or(now);
        let mut ours = Minutes::new();
        // What the ledger does not know to be sent is no reason for anything to be there.
        let was_sent = |row: &PushRow| row.progress.attempts > 0 || row.origin == "adopted";
        for row in self.inner.books.rows_of(lane, (from, until)).await?.into_iter().filter(was_sent) {
            if let (Some(minute), Some(value)) = (row.event_timestamp, row.value) {
                *ours.entry(seconds(minute_of(minute)) / MINUTES_OF_HOUR).or_default() += value;
            }
        }
        let window = Window {
            stripe_customer_id: lane.stripe_customer_id.clone(),
            start: seconds(from),
            end: seconds(until),
            is_by_hour: true,
        };
        self.inner.calls.turn().await;
        let sums = self.inner.stripe.sums(&meter.stripe_meter_id, &window).await?;
        let mut hours: BTreeMap<i64, i128> = BTreeMap::new();
        for sum in &sums {
            *hours.entry(sum.start_time / 3_600).or_default() += exact(sum)?;
        }
        let mut found = Vec::new();
        for hour in seconds(from) / 3_600..seconds(until) / 3_600 {
            let theirs = hours.get(&hour).copied().unwrap_or_default();
            let first = hour * MINUTES_OF_HOUR;
            let differing = Differing { lane, meter, ours: &ours };
            self.search(&differing, (first, first + MINUTES_OF_HOUR, theirs), &mut found).await?;
        }
        Ok(found)
    }

    /// Halves what differs until it is a minute.
    async fn search(
        &self,
        differing: &Differing<'_>,
        window: (i64, i64, i128),
        found: &mut Vec<Found>,
    ) -> Result<(), AdoptError> {
        let mut open = vec![window];
        while let Some((from, to, theirs)) = open.pop() {
            let ours: i128 = differing.ours.range(from..to).map(|(_, value)| value).sum();
            if ours == theirs {
                continue;
            }
            if to - from == 1 {
                let minute = Timestamp::from_unix_micros(from * MINUTES_OF_HOUR * SECOND);
                found.extend(minute.ok().map(|minute| Found { minute, value: theirs }));
                continue;
            }
            let middle = from + (to - from) / 2;
            let first = self.sum_of(differing, (from, middle)).await?;
            open.push((from, middle, first));
            open.push((middle, to, theirs - first));
        }
        Ok(())
    }

    async fn sum_of(&self, differing: &Differing<'_>, (from, to): (i64, i64)) -> Result<i128, AdoptError> {
        let window = Window {
            stripe_customer_id: differing.lane.stripe_customer_id.clone(),
            start: from * MINUTES_OF_HOUR,
            end: to * MINUTES_OF_HOUR,
            is_by_hour: false,
        };
        self.inner.calls.turn().await;
        let sums = self.inner.stripe.sums(&differing.meter.stripe_meter_id, &window).await?;
        sums.iter().map(exact).sum()
    }
}

struct Differing<'a> {
    lane: &'a LaneKey,
    meter: &'a StoredMeter,
    ours: &'a Minutes,
}

fn exact(sum: &Sum) -> Result<i128, AdoptError> {
    sum.value().ok_or(AdoptError::Inexact)
}

const fn seconds(moment: Timestamp) -> i64 {
    moment.unix_micros() / SECOND
}
