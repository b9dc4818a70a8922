//! Stripe's sums, read page by page, each call in its turn. What a float does not hold as one number is read in parts.

use goldleaves_billing::stripe::{Claim, StoredMeter};
use goldleaves_domain::Timestamp;
use goldleaves_stripe::{ReadError, Sum, Window};

use super::lane::{MINUTE, minute_of, reason};
use super::pace::Pace;
use super::{Pusher, Stop};

const SECOND: i64 = 1_000_000;
/// The time back to which Stripe takes usage, and for which totals are compared.
pub(super) const WINDOW: i64 = 35 * Timestamp::DAY_MICROS;

/// From when to when.
pub(super) type Hours = (Timestamp, Timestamp);

/// A sum that is none of whole values.
#[derive(Debug, thiserror::Error)]
#[error("a sum is not a whole number below 2^53")]
struct NotWhole;

/// The lane whose sums are read, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) claim: &'a Claim,
    pub(super) meter: &'a StoredMeter,
    pub(super) pace: &'a Pace,
}

impl Pusher {
    /// Returns Stripe's sum of a lane's last 35 days, and of which window it is; `None` where Stripe does not know the customer.
    pub(super) async fn total(&self, reader: Reader<'_>) -> Result<Option<(i128, Hours)>, Stop> {
        let now = self.inner.books.now().await?;
        let window = window_until(minute_of(now).plus_micros(MINUTE).unwrap_or(now));
        let Some(sums) = self.sums(reader, (window, false)).await? else { return Ok(None) };
        if let Some(total) = whole(&sums) {
            return Ok(Some((total, window)));
        }
        if !sums.iter().any(Sum::is_too_large) {
            return Err(self.unheard(reader.claim, &NotWhole));
        }
        // What a float does not hold as one number it may hold hour by hour.
        let window = window_until(now.hour().plus_micros(Timestamp::HOUR_MICROS).unwrap_or(now));
        let Some(sums) = self.sums(reader, (window, true)).await? else { return Ok(None) };
        Ok(self.sum_in_parts(reader, &sums).await?.map(|total| (total, window)))
    }

    /// The sum of hours, those that are too large for a float in halves of halves: a row of its own minute is never so large.
    async fn sum_in_parts(&self, reader: Reader<'_>, hours: &[Sum]) -> Result<Option<i128>, Stop> {
        let (mut total, mut open) = (0, Vec::new());
        for sum in hours {
            match sum.value() {
                Some(value) => total += value,
                None if sum.is_too_large() => open.extend(halves(hour_at(sum.start_time))),
                None => return Err(self.unheard(reader.claim, &NotWhole)),
            }
        }
        while let Some(part) = open.pop() {
            let Some(sums) = self.sums(reader, (part, false)).await? else { return Ok(None) };
            match whole(&sums) {
                Some(value) => total += value,
                None if sums.iter().any(Sum::is_too_large) && part.1.unix_micros() - part.0.unix_micros() > MINUTE => {
                    open.extend(halves(part));
                }
                None => return Err(self.unheard(reader.claim, &NotWhole)),
            }
        }
        Ok(Some(total))
    }

    /// Returns Stripe's sum of a minute; `None` where it does not know the customer.
    pub(super) async fn sum_of_minute(&self, reader: Reader<'_>, minute: Timestamp) -> Result<Option<i128>, Stop> {
        let until = minute.plus_micros(MINUTE).unwrap_or(minute);
        let Some(sums) = self.sums(reader, ((minute, until), false)).await? else { return Ok(None) };
        whole(&sums).map(Some).ok_or_else(|| self.unheard(reader.claim, &NotWhole))
    }

    /// Returns Stripe's sums of a window, the whole or each hour; `None` where it does not know the customer.
    async fn sums(&self, reader: Reader<'_>, window: (Hours, bool)) -> Result<Option<Vec<Sum>>, Stop> {
        match self.pages(reader, window).await? {
            Ok(sums) => Ok(Some(sums)),
            Err(error) if error.is_missing() => {
                self.inner.books.block(&reader.claim.lane.key, reason::NO_CUSTOMER).await?;
                Ok(None)
            }
            Err(error) => Err(self.unheard(reader.claim, &error)),
        }
    }

    /// All pages of the sums of a window, the whole or each hour.
    pub(super) async fn pages(
        &self,
        reader: Reader<'_>,
        window: (Hours, bool),
    ) -> Result<Result<Vec<Sum>, ReadError>, Stop> {
        let ((from, to), is_by_hour) = window;
        let window = Window {
            stripe_customer_id: reader.claim.lane.key.stripe_customer_id.clone(),
            start: from.unix_micros() / SECOND,
            end: to.unix_micros() / SECOND,
            is_by_hour,
        };
        let (mut sums, mut after) = (Vec::new(), None::<String>);
        loop {
            self.turn(reader.pace, reader.claim).await?;
            let page = self.inner.stripe.sums(&reader.meter.stripe_meter_id, &window, after.as_deref()).await;
            match self.heard("summaries", page).await? {
                Ok(page) => {
                    sums.extend(page.sums);
                    after = page.next;
                }
                Err(error) => return Ok(Err(error)),
            }
            if after.is_none() {
                return Ok(Ok(sums));
            }
        }
    }
}

/// The window that totals are compared in.
fn window_until(until: Timestamp) -> Hours {
    (until.plus_micros(-WINDOW).unwrap_or(until), until)
}

fn hour_at(seconds: i64) -> Hours {
    let start = Timestamp::from_unix_micros(seconds.saturating_mul(SECOND)).unwrap_or(Timestamp::UNIX_EPOCH);
    (start, start.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(start))
}

/// Both halves of a window, of whole minutes.
fn halves(hours: Hours) -> [Hours; 2] {
    let (from, to) = hours;
    let minutes = (to.unix_micros() - from.unix_micros()) / MINUTE;
    let middle = from.plus_micros(minutes / 2 * MINUTE).unwrap_or(from);
    [(from, middle), (middle, to)]
}

/// The sum of sums; `None` where a float does not say one of them exactly.
fn whole(sums: &[Sum]) -> Option<i128> {
    sums.iter().map(Sum::value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_of_whole_minutes_and_end_in_one() {
        let mut open = vec![hour_at(7_200)];
        let mut minutes = Vec::new();
        while let Some(part) = open.pop() {
            assert_eq!((part.0.unix_micros() % MINUTE, part.1.unix_micros() % MINUTE), (0, 0));
            match part.1.unix_micros() - part.0.unix_micros() {
                MINUTE => minutes.push(part.0.unix_micros() / MINUTE),
                _ => open.extend(halves(part)),
            }
        }
        minutes.sort_unstable();
        assert_eq!(minutes, (120..180).collect::<Vec<_>>());
    }
}
