//! The push to Stripe: makes rows of hours, sends them, reads them back. The rules are `goldleaves_billing::stripe::rules`; here
//! is who calls when. Any number of programs do this beside each other: each works in lanes that it has taken for a minute.

mod adopt;
mod confirm;
mod hints;
mod lane;
pub(crate) mod metrics;
mod pace;
mod sealing;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use goldleaves_billing::BillingError;
use goldleaves_billing::stripe::{Books, Claim, LaneWork, StoredMeter};
use goldleaves_domain::Timestamp;
use goldleaves_stripe::{Mode, ReadError, Stripe};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

pub(crate) use hints::is_heeded;
pub use metrics::StripeMetrics;
use pace::{Breaker, Pace};

/// How long nothing is done when nothing is due.
const REST: Duration = Duration::from_secs(2);
/// The pause after the database refused.
const PAUSE: Duration = Duration::from_secs(5);
/// How often metrics are counted.
const SHOW_EVERY: Duration = Duration::from_secs(15);
/// How often hours are looked for that can be sealed.
const SEAL_EVERY: Duration = Duration::from_secs(60);
/// Lanes that are taken at once.
const LANES: usize = 64;
/// Lanes in which calls are open at once.
const LANES_AT_ONCE: usize = 8;
/// Readings per second.
const READS_PER_SECOND: u32 = 5;
/// How often a meter is read again.
const METER_CHECK_MICROS: i64 = Timestamp::DAY_MICROS;

/// How fast Stripe is called.
#[derive(Debug, Clone, Copy)]
pub struct Pacing {
    /// `STRIPE_CALLS_PER_SECOND`; `None` is as fast as can be, for tests.
    pub calls_per_second: Option<u32>,
}

/// Pushes what the books say. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pusher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    books: Books,
    stripe: Stripe,
    metrics: StripeMetrics,
    owner: Uuid,
    calls: Pace,
    reads: Pace,
    breaker: Breaker,
    wake: Notify,
    wake_reader: Notify,
    /// Comparisons of totals and readings of meters before this moment do not count.
    started_at: Mutex<Option<Timestamp>>,
    sealing: sealing::Sealing,
    /// The last attempt that this program made: a database that does not have it went back.
    last: Mutex<Option<(Uuid, i32)>>,
}

/// Why nothing goes on in a lane, or in any.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Billing(#[from] BillingError),
    #[error("Stripe is away")]
    Away,
}

impl Pusher {
    /// Pushes what these books say, when it is run.
    pub fn new(books: Books, stripe: Stripe, metrics: StripeMetrics, pacing: Pacing) -> Self {
        let reads = pacing.calls_per_second.map(|calls| calls.min(READS_PER_SECOND));
        let inner = Inner {
            books,
            stripe,
            metrics,
            owner: Uuid::new_v4(),
            calls: Pace::new(pacing.calls_per_second),
            reads: Pace::new(reads),
            breaker: Breaker::default(),
            wake: Notify::new(),
            wake_reader: Notify::new(),
            started_at: Mutex::new(None),
            sealing: sealing::Sealing::default(),
            last: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The books.
    pub fn books(&self) -> &Books {
        &self.inner.books
    }

    pub(crate) fn metrics(&self) -> &StripeMetrics {
        &self.inner.metrics
    }

    /// Looks at once for what is due.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
        self.inner.wake_reader.notify_one();
    }

    /// Sends and reads back, for as long as it is left running.
    pub async fn push(self) {
        tokio::join!(self.work_on(LaneWork::Send), self.work_on(LaneWork::Read));
    }

    async fn work_on(&self, work: LaneWork) {
        let wake = match work {
            LaneWork::Send => &self.inner.wake,
            LaneWork::Read => &self.inner.wake_reader,
        };
        let mut shown: Option<tokio::time::Instant> = None;
        loop {
            let pause = match self.pass_of(work).await {
                Ok(0) => REST,
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    tracing::warn!(
                        cause = &error as &dyn std::error::Error,
                        "rows for Stripe could not be worked on; retrying"
                    );
                    PAUSE
                }
            };
            if work == LaneWork::Send && shown.is_none_or(|at| at.elapsed() >= SHOW_EVERY) {
                shown = Some(tokio::time::Instant::now());
                self.show().await;
            }
            timeout(pause, wake.notified()).await.ok();
        }
    }

    /// Makes rows of hours that are over, for as long as it is left running.
    pub async fn seal(self) {
        loop {
            if let Err(error) = self.seal_once().await {
                tracing::warn!(cause = &error as &dyn std::error::Error, "rows for Stripe could not be made; retrying");
            }
            sleep(SEAL_EVERY).await;
        }
    }

    async fn show(&self) {
        match (self.inner.books.gauges().await, self.inner.books.now().await) {
            (Ok(gauges), Ok(now)) => self.inner.metrics.show(&gauges, now),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(cause = &error as &dyn std::error::Error, "rows for Stripe could not be counted");
            }
        }
    }

    /// Works once in every lane that can be had; how many there were.
    ///
    /// # Errors
    /// A database that is away or refuses.
    pub async fn pass(&self) -> Result<usize, BillingError> {
        Ok(self.pass_of(LaneWork::Send).await? + self.pass_of(LaneWork::Read).await?)
    }

    async fn pass_of(&self, work: LaneWork) -> Result<usize, BillingError> {
        let now = self.inner.books.now().await?;
        let started_at = self.start(now).await?;
        if self.inner.breaker.is_open(now) {
            return Ok(0);
        }
        self.work_off_hints().await?;
        let meters = self.inner.books.meters().await?;
        if meters.is_empty() {
            return Ok(0);
        }
        let claims = self.inner.books.claim((self.inner.owner, work), LANES, started_at).await?;
        let count = claims.len();
        // What is under way ends with the set: whoever drops this drops its calls.
        let mut lanes = JoinSet::new();
        for claim in claims {
            if lanes.len() >= LANES_AT_ONCE {
                lanes.join_next().await;
            }
            let meter = meters.iter().find(|meter| meter.event_name == claim.lane.key.event_name).cloned();
            lanes.spawn(self.clone().take_on(claim, meter, work));
        }
        while lanes.join_next().await.is_some() {}
        Ok(count)
    }

    async fn take_on(self, claim: Claim, meter: Option<StoredMeter>, of: LaneWork) {
        if let Some(meter) = meter {
            // In a box, because the compiler can't see through so many closures that it may cross threads.
            let work: BoxFuture<'_, Result<(), Stop>> = Box::pin(self.work(&claim, &meter, of));
            if let Err(Stop::Billing(error)) = work.await {
                tracing::warn!(
                    cause = &error as &dyn std::error::Error,
                    "a lane to Stripe could not be worked on; retrying"
                );
            }
        }
        let release: BoxFuture<'_, Result<(), BillingError>> = Box::pin(self.inner.books.release(&claim));
        if let Err(error) = release.await {
            tracing::debug!(cause = &error as &dyn std::error::Error, "a lane's lease ends by itself");
        }
    }

    /// The moment before which nothing counts that was found out of Stripe's side: the start of this program, or of the
    /// database's second life.
    async fn start(&self, now: Timestamp) -> Result<Timestamp, BillingError> {
        let last = *self.inner.last.lock();
        if let Some((id, attempts)) = last
            && self.inner.books.attempts_of(id).await?.is_none_or(|there| there < attempts)
        {
            tracing::warn!("the database does not know the last call to Stripe: it went back; every lane is compared");
            (*self.inner.last.lock(), *self.inner.started_at.lock()) = (None, None);
            self.inner.sealing.begin_again();
        }
        let known = *self.inner.started_at.lock();
        if let Some(started_at) = known {
            return Ok(started_at);
        }
        let mode = self.inner.stripe.mode().map(|mode| mode == Mode::Live);
        let stored = self.inner.books.livemode(None).await?;
        if let (Some(mode), Some(stored)) = (mode, stored)
            && mode != stored
        {
            self.block_for_livemode(mode).await?;
        }
        *self.inner.started_at.lock() = Some(now);
        Ok(now)
    }

    async fn block_for_livemode(&self, found: bool) -> Result<(), BillingError> {
        let word = |live| if live { "live" } else { "test" };
        tracing::error!(
            "STRIPE_API_KEY is of {} mode, and the rows were pushed in {} mode; nothing is sent",
            word(found),
            word(!found)
        );
        self.inner.books.block_all("livemode").await
    }

    /// Returns whether the key's mode is that of the rows; blocks all lanes where it is not.
    async fn is_of_mode(&self, found: Option<bool>) -> Result<bool, BillingError> {
        let key = self.inner.stripe.mode().map(|mode| mode == Mode::Live);
        let stored = self.inner.books.livemode(found.or(key)).await?;
        let is_other = |mode: Option<bool>| mode.is_some() && stored.is_some() && mode != stored;
        if is_other(found) || is_other(key) {
            self.block_for_livemode(!stored.unwrap_or_default()).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Returns why a meter does not fit, from a check that is at most a day old; `None` when it fits.
    async fn fit(&self, meter: &StoredMeter, now: Timestamp) -> Result<Option<String>, Stop> {
        let started_at = self.inner.started_at.lock().unwrap_or(now);
        let fresh = now.plus_micros(-METER_CHECK_MICROS).unwrap_or(now).max(started_at);
        if meter.checked_at.is_some_and(|checked| checked >= fresh) {
            return Ok(meter.unfit.clone());
        }
        // Another lane may have had it read meanwhile.
        let stored = self.inner.books.meters().await?.into_iter().find(|other| other.meter == meter.meter);
        if let Some(stored) = stored.filter(|stored| stored.checked_at.is_some_and(|checked| checked >= fresh)) {
            return Ok(stored.unfit);
        }
        self.inner.calls.turn().await;
        let unfit = match self.heard("meter", self.inner.stripe.meter(&meter.stripe_meter_id).await).await? {
            Ok(found) => {
                if !self.is_of_mode(Some(found.livemode)).await? {
                    return Err(Stop::Away);
                }
                found.unfit(&meter.event_name)
            }
            Err(error) if error.is_missing() => Some("Stripe has no such meter".to_owned()),
            Err(_) => return Err(Stop::Away),
        };
        self.inner.books.meter_checked(&meter.meter, unfit.as_deref()).await?;
        Ok(unfit)
    }

    /// Counts a reading, and does what concerns all lanes.
    async fn heard<T>(&self, call: &str, read: Result<T, ReadError>) -> Result<Result<T, ReadError>, Stop> {
        let result = match &read {
            Ok(_) => "ok",
            Err(error) if error.is_limited() => "limited",
            Err(error) if error.is_of_the_key() => "refused",
            Err(error) if error.is_away() => "away",
            Err(_) => "refused",
        };
        self.inner.metrics.called(call, result);
        match &read {
            Err(error) if error.is_limited() => {
                self.inner.calls.slow_down();
                self.inner.reads.slow_down();
            }
            Err(error) if error.is_of_the_key() => self.inner.books.block_all("key_refused").await?,
            Err(ReadError::Away(error)) if error.is_before_sending() => {
                self.trip().await?;
                return Err(Stop::Away);
            }
            Err(ReadError::Away(_)) => {}
            _ => self.mend(),
        }
        Ok(read)
    }

    /// Reads a meter that somebody wants: why it does not fit, if so; `None` where it can't be read.
    pub(crate) async fn read_meter(&self, id: &str, event_name: &str) -> Result<Option<Option<String>>, BillingError> {
        self.inner.calls.turn().await;
        let found = match self.heard("meter", self.inner.stripe.meter(id).await).await {
            Ok(found) => found,
            Err(Stop::Billing(error)) => return Err(error),
            Err(Stop::Away) => return Ok(None),
        };
        match found {
            Ok(found) => {
                let key = self.inner.stripe.mode().map(|mode| mode == Mode::Live);
                let stored = self.inner.books.livemode(Some(found.livemode)).await?;
                if stored.or(key).is_some_and(|mode| mode != found.livemode) {
                    let what = "it is of another mode (live or test) than what was pushed so far";
                    return Ok(Some(Some(what.to_owned())));
                }
                Ok(Some(found.unfit(event_name)))
            }
            Err(error) if error.is_missing() => Ok(Some(Some("Stripe has no such meter".to_owned()))),
            Err(_) => Ok(None),
        }
    }

    async fn trip(&self) -> Result<(), BillingError> {
        if self.inner.breaker.trip(self.inner.books.now().await?) {
            tracing::warn!("Stripe can't be reached; one call per minute tries again");
        }
        Ok(())
    }

    fn mend(&self) {
        if self.inner.breaker.mend() {
            tracing::info!("Stripe can be reached again");
        }
    }
}
