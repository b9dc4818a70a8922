//! When hours are sealed: each once it is settled, what changed later each minute, and every night all of the last 40 days,
//! which must find nothing.

use goldleaves_billing::BillingError;
use goldleaves_billing::stripe::Sealed;
use goldleaves_domain::Timestamp;
use parking_lot::Mutex;

use super::Pusher;

/// How long after its end an hour is still waited for.
const SETTLE_MICROS: i64 = 300_000_000;
/// Usage of so long ago can still come.
const LOOK_BACK: i64 = 40 * Timestamp::DAY_MICROS;

/// How far sealing has come.
#[derive(Debug, Default)]
pub(super) struct Sealing(Mutex<Done>);

#[derive(Debug, Default, Clone, Copy)]
struct Done {
    /// Every hour before this one was sealed.
    before: Option<Timestamp>,
    /// The day of the last nightly look.
    night: Option<i64>,
}

impl Sealing {
    /// Every hour is looked at again.
    pub(super) fn begin_again(&self) {
        *self.0.lock() = Done::default();
    }
}

impl Pusher {
    /// Seals what is settled by now; what was made.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn seal_once(&self) -> Result<Sealed, BillingError> {
        let books = self.books();
        let now = books.now().await?;
        let settled = now.plus_micros(-SETTLE_MICROS).unwrap_or(now).hour();
        let first = settled.plus_micros(-LOOK_BACK).unwrap_or(settled);
        let done = *self.inner.sealing.0.lock();
        let mut sealed = self.seal_hours((done.before.unwrap_or(first).max(first), settled)).await?;
        self.inner.sealing.0.lock().before = Some(settled);
        loop {
            let (late, more) = books.seal_late().await?;
            sealed.add(late);
            if !more {
                break;
            }
        }
        let day = now.unix_micros().div_euclid(Timestamp::DAY_MICROS);
        if done.night.is_some_and(|night| night < day) {
            let missed = self.seal_hours((first, settled)).await?;
            self.metrics().unsealed(missed.units_micro);
            if missed.rows > 0 {
                tracing::error!(rows = missed.rows, "usage was in no row for Stripe; it has rows now");
            }
            sealed.add(missed);
        }
        self.inner.sealing.0.lock().night = Some(day);
        if sealed.rows > 0 {
            tracing::debug!(rows = sealed.rows, "rows for Stripe were made");
            self.wake();
        }
        Ok(sealed)
    }

    async fn seal_hours(&self, (mut hour, until): (Timestamp, Timestamp)) -> Result<Sealed, BillingError> {
        let mut sealed = Sealed::default();
        while hour < until {
            sealed.add(self.books().seal_hour(hour).await?);
            hour = hour.plus_micros(Timestamp::HOUR_MICROS).unwrap_or(until);
        }
        Ok(sealed)
    }
}
