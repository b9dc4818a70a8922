//! When hours are sealed: each once it is settled, what changed later or was left each minute, and every night all of the last 40
//! days, which must find nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use goldleaves_billing::stripe::{LeftFor, LeftHour, Sealed};
use goldleaves_billing::{BillingError, UnitsTotal};
use goldleaves_domain::Timestamp;
use parking_lot::Mutex;

use super::Pusher;

/// The time after its end for which an hour is still waited for.
const SETTLE_MICROS: i64 = 300_000_000;
/// Usage of so long ago can still come.
const LOOK_BACK: i64 = 40 * Timestamp::DAY_MICROS;

/// The point that sealing has reached.
#[derive(Debug, Default)]
pub(super) struct Sealing(Mutex<Done>);

#[derive(Debug, Default)]
struct Done {
    /// Every hour before this one was sealed.
    before: Option<Timestamp>,
    /// The day of the last nightly look.
    night: Option<i64>,
    /// The units that it found in no row.
    missed: i128,
    /// Hours that no row could be made of, as far as they were named.
    named: BTreeSet<(String, String, Timestamp)>,
}

impl Sealing {
    /// Every hour is looked at again.
    pub(super) fn begin_again(&self) {
        *self.0.lock() = Done::default();
    }
}

/// Returns the time until the next hour is settled.
fn until_settled(now: Timestamp) -> Duration {
    let settled = now.plus_micros(-SETTLE_MICROS).unwrap_or(now);
    let left = Timestamp::HOUR_MICROS - (settled.unix_micros() - settled.hour().unix_micros());
    Duration::from_micros(left.unsigned_abs())
}

impl Pusher {
    /// The pause before the next look. One comes just when an hour is settled: an hour of many tenants takes its time, and its
    /// rows are to be there within a minute.
    pub(super) async fn until_next_seal(&self) -> Duration {
        let longest = self.inner.pauses.seal;
        self.books().now().await.map_or(longest, |now| until_settled(now).min(longest))
    }

    /// Seals what is settled by now; what was made.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn seal_once(&self) -> Result<Sealed, BillingError> {
        let books = self.books();
        let now = books.now().await?;
        let settled = now.plus_micros(-SETTLE_MICROS).unwrap_or(now).hour();
        let first = settled.plus_micros(-LOOK_BACK).unwrap_or(settled);
        let (before, night) = {
            let done = self.inner.sealing.0.lock();
            (done.before, done.night)
        };
        let mut sealed = books.seal_hours(before.unwrap_or(first).max(first), settled).await?;
        self.inner.sealing.0.lock().before = Some(settled);
        let late = self.seal_late().await?;
        let left = late.left.clone();
        sealed.add(late);
        let day = now.unix_micros().div_euclid(Timestamp::DAY_MICROS);
        if night.is_some_and(|night| night < day) {
            sealed.add(self.look_at_all(first, settled).await?);
        }
        self.inner.sealing.0.lock().night = Some(day);
        self.note_left(&left);
        if sealed.rows > 0 {
            tracing::debug!(rows = sealed.rows, "rows for Stripe were made");
            self.wake();
        }
        Ok(sealed)
    }
}

impl Pusher {
    /// Looks again at what changed late; what is left is all among it.
    async fn seal_late(&self) -> Result<Sealed, BillingError> {
        let (mut sealed, mut after) = (Sealed::default(), None);
        loop {
            let (late, next) = self.books().seal_late(after).await?;
            sealed.add(late);
            after = next;
            if after.is_none() {
                return Ok(sealed);
            }
        }
    }

    /// The nightly look.
    async fn look_at_all(&self, first: Timestamp, settled: Timestamp) -> Result<Sealed, BillingError> {
        let missed = self.books().seal_hours(first, settled).await?;
        self.inner.sealing.0.lock().missed = missed.units_micro;
        if missed.rows > 0 {
            tracing::error!(rows = missed.rows, "usage was in no row for Stripe; it has rows now");
        }
        Ok(missed)
    }

    /// Shows the units that no row could be made of, and names once the hours that need a person.
    fn note_left(&self, left: &[LeftHour]) {
        let mut done = self.inner.sealing.0.lock();
        let before = std::mem::take(&mut done.named);
        for LeftHour { tenant_id, meter, hour, units_micro, why } in left {
            let name = (tenant_id.clone(), meter.clone(), *hour);
            let units = UnitsTotal(*units_micro);
            match why {
                _ if before.contains(&name) => {}
                LeftFor::TooMuch => tracing::error!(
                    tenant = tenant_id,
                    meter,
                    %hour,
                    %units,
                    "an hour has more usage than its meter can count; nothing is sent in its lane until another meter counts it"
                ),
                LeftFor::NoMinute => tracing::warn!(
                    tenant = tenant_id,
                    meter,
                    %hour,
                    %units,
                    "other rows of the same customer have every minute; this hour's row is made when one is free"
                ),
            }
            done.named.insert(name);
        }
        let in_left: i128 = left.iter().map(|left| left.units_micro.abs()).sum();
        self.metrics().unsealed(done.missed + in_left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_comes_when_an_hour_is_settled() {
        let seconds = |now: &str| until_settled(now.parse().unwrap()).as_secs_f64();
        let moments =
            ["2026-03-15T13:04:59.5Z", "2026-03-15T13:05:00Z", "2026-03-15T13:59:00Z", "2026-03-15T14:01:00Z"];
        assert_eq!(moments.map(seconds), [0.5, 3_600.0, 360.0, 240.0]);
    }
}
