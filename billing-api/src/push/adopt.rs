//! Finding of the minutes in which Stripe has another value than the rows: hours first, then halves of what differs.

use std::collections::BTreeMap;

use goldleaves_billing::stripe::{Adopted, Found, LaneKey, PushRow, StoredMeter};
use goldleaves_billing::{Author, BillingError};
use goldleaves_domain::Timestamp;
use goldleaves_stripe::{ReadError, Sum, Window};

use crate::answer::ApiError;

use super::Pusher;
use super::lane::minute_of;
use super::sums::WINDOW;

const SECOND: i64 = 1_000_000;
const MINUTES_OF_HOUR: i64 = 60;

/// The reason nothing was found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    #[error(transparent)]
    Billing(#[from] BillingError),
    #[error(transparent)]
    Stripe(#[from] ReadError),
    #[error("a sum at Stripe is not a whole number below 2^53")]
    Inexact,
}

impl From<AdoptError> for ApiError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Billing(error) => Self::Billing(error),
            AdoptError::Stripe(ReadError::Refused(refused)) if matches!(refused.status, 401 | 403) => {
                let status = refused.status;
                Self::StripeSays(format!("Stripe answered {status}: STRIPE_API_KEY is not valid, or may not read sums"))
            }
            AdoptError::Stripe(ReadError::Refused(refused)) => Self::StripeSays(format!("Stripe refused: {refused}")),
            AdoptError::Inexact => Self::StripeSays(AdoptError::Inexact.to_string()),
            error => Self::Stripe(goldleaves_runtime::process::chain(&error)),
        }
    }
}

type Minutes = BTreeMap<i64, i128>;

impl Pusher {
    /// Takes over what Stripe has in a lane, and makes rows of the differences.
    pub(crate) async fn adopt(&self, lane: &LaneKey, author: &Author, body: &str) -> Result<Adopted, AdoptError> {
        // Before Stripe is asked: of a lane that nobody's usage goes to there is nothing to take over.
        let meter = self.inner.books.meter_of_lane(lane).await?;
        let found = self.differences(lane, &meter).await?;
        let adopted = self.inner.books.adopt(lane, &found, author, body).await?;
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
        for row in self.inner.books.rows_of(lane, from, until).await?.into_iter().filter(was_sent) {
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
        let mut hours: BTreeMap<i64, Option<i128>> = BTreeMap::new();
        for sum in self.all_sums(meter, &window).await? {
            hours.insert(sum.start_time / 3_600, exact(&sum)?);
        }
        let mut found = Vec::new();
        for hour in seconds(from) / 3_600..seconds(until) / 3_600 {
            let theirs = hours.get(&hour).copied().unwrap_or(Some(0));
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
        window: (i64, i64, Option<i128>),
        found: &mut Vec<Found>,
    ) -> Result<(), AdoptError> {
        let mut open = vec![window];
        while let Some((from, to, theirs)) = open.pop() {
            let ours: i128 = differing.ours.range(from..to).map(|(_, value)| value).sum();
            if theirs == Some(ours) {
                continue;
            }
            if to - from == 1 {
                let value = theirs.ok_or(AdoptError::Inexact)?;
                let minute = Timestamp::from_unix_micros(from * MINUTES_OF_HOUR * SECOND);
                found.extend(minute.ok().map(|minute| Found { minute, value }));
                continue;
            }
            let middle = from + (to - from) / 2;
            let first = self.sum_of(differing, from, middle).await?;
            let second = match (theirs, first) {
                (Some(theirs), Some(first)) => Some(theirs - first),
                // A float does not hold the whole, or not the first half.
                _ => self.sum_of(differing, middle, to).await?,
            };
            open.push((from, middle, first));
            open.push((middle, to, second));
        }
        Ok(())
    }

    /// Returns the sum of a window; `None` where it is more than a float holds.
    async fn sum_of(&self, differing: &Differing<'_>, from: i64, to: i64) -> Result<Option<i128>, AdoptError> {
        let window = Window {
            stripe_customer_id: differing.lane.stripe_customer_id.clone(),
            start: from * MINUTES_OF_HOUR,
            end: to * MINUTES_OF_HOUR,
            is_by_hour: false,
        };
        let sums = self.all_sums(differing.meter, &window).await?;
        sums.iter().map(exact).try_fold(Some(0), |total, sum| Ok(total.zip(sum?).map(|(total, sum)| total + sum)))
    }

    /// The sums of a window, page by page, each in its turn.
    async fn all_sums(&self, meter: &StoredMeter, window: &Window) -> Result<Vec<Sum>, AdoptError> {
        let (mut sums, mut after) = (Vec::new(), None::<String>);
        loop {
            self.inner.calls.turn().await;
            let page = self.inner.stripe.sums(&meter.stripe_meter_id, window, after.as_deref()).await;
            self.inner.metrics.called("summaries", if page.is_ok() { "ok" } else { "refused" });
            let page = page?;
            sums.extend(page.sums);
            after = page.next;
            if after.is_none() {
                return Ok(sums);
            }
        }
    }
}

struct Differing<'a> {
    lane: &'a LaneKey,
    meter: &'a StoredMeter,
    ours: &'a Minutes,
}

/// Returns a sum; `None` where it is more than a float holds.
fn exact(sum: &Sum) -> Result<Option<i128>, AdoptError> {
    match sum.value() {
        None if !sum.is_too_large() => Err(AdoptError::Inexact),
        value => Ok(value),
    }
}

const fn seconds(moment: Timestamp) -> i64 {
    moment.unix_micros() / SECOND
}
