//! The push to Stripe: makes rows of hours, sends them, reads them back. The rules are `goldleaves_billing::stripe::rules`; here
//! is who calls when. Any number of programs do this beside each other: each works in lanes that it has taken for a minute.

mod adopt;
mod confirm;
mod hints;
mod lane;
pub(crate) mod metrics;
mod pace;
mod sealing;
mod sums;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use goldleaves_billing::BillingError;
use goldleaves_billing::stripe::{Books, Claim, LaneKey, LaneWork, StoredMeter};
use goldleaves_domain::Timestamp;
use goldleaves_runtime::Quiet;
use goldleaves_stripe::{Mode, ReadError, Stripe};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

pub(crate) use hints::is_heeded;
pub use lane::BLOCKED_FOR;
pub use metrics::StripeMetrics;
use pace::{Breaker, Pace};

/// The number of times the pause is doubled while Stripe can be reached and answers nothing of use.
const FRUITLESS_DOUBLINGS: u32 = 4;
/// The least time between two log lines about answers of no use.
const QUIET: Duration = Duration::from_secs(60);
/// The interval at which metrics are counted.
const SHOW_EVERY: Duration = Duration::from_secs(15);
/// Lanes that are taken at once.
const LANES: usize = 64;
/// Lanes in which calls are open at once.
const LANES_AT_ONCE: usize = 8;
/// Readings per second.
const READS_PER_SECOND: u32 = 5;
/// The interval at which a meter is read again.
const METER_CHECK_MICROS: i64 = Timestamp::DAY_MICROS;

/// The rate at which Stripe is called.
#[derive(Debug, Clone, Copy)]
pub struct Pacing {
    /// `STRIPE_CALLS_PER_SECOND`; `None` is as fast as can be, for tests.
    calls_per_second: Option<u32>,
    /// The pause when there is nothing to do.
    pauses: Pauses,
}

/// The pause when there is nothing to do.
#[derive(Debug, Clone, Copy)]
struct Pauses {
    /// Nothing is due.
    rest: Duration,
    /// The database refused.
    trouble: Duration,
    /// The longest between two looks for hours that can be sealed.
    seal: Duration,
}

impl Pacing {
    /// The fastest that can be, for tests.
    pub const UNLIMITED: Self = Self { calls_per_second: None, pauses: Pauses::USUAL };
    /// For a program whose clock a test drives, so that hours go by in moments: the pace of calls is kept by another clock.
    #[cfg(debug_assertions)]
    pub(crate) const HURRIED: Self = Self {
        calls_per_second: None,
        pauses: Pauses {
            rest: Duration::from_millis(20),
            trouble: Duration::from_millis(50),
            seal: Duration::from_millis(50),
        },
    };

    /// A pace of this many calls per second.
    pub const fn per_second(calls: u32) -> Self {
        Self { calls_per_second: Some(calls), pauses: Pauses::USUAL }
    }
}

impl Pauses {
    /// The pauses of a program.
    const USUAL: Self =
        Self { rest: Duration::from_secs(2), trouble: Duration::from_secs(5), seal: Duration::from_secs(60) };

    /// The pause after a pass, which was so many fruitless ones in a row: a Stripe that can be reached and answers nothing of use
    /// is not asked the same again and again.
    fn after(self, passed: Passed, fruitless: u32) -> Duration {
        match (passed.lanes, fruitless) {
            (0, _) => self.rest,
            (_, 0) => Duration::ZERO,
            (_, fruitless) => self.rest * (1 << fruitless.min(FRUITLESS_DOUBLINGS)),
        }
    }
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
    pauses: Pauses,
    calls: Pace,
    reads: Pace,
    breaker: Breaker,
    wake: Notify,
    wake_reader: Notify,
    /// Held by whoever works off webhooks.
    hints: tokio::sync::Mutex<()>,
    /// Comparisons of totals and readings of meters before this moment do not count.
    started_at: Mutex<Option<Timestamp>>,
    sealing: sealing::Sealing,
    lines: Mutex<Quiet>,
    lines_of_webhooks: Mutex<Quiet>,
    /// The last attempt that this program made: a database that does not have it went back.
    last: Mutex<Option<(Uuid, i32)>>,
}

/// The reason nothing goes on in a lane, or in any.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Billing(#[from] BillingError),
    #[error("Stripe is away")]
    Away,
    #[error("Stripe does not say what it has")]
    Unheard,
    #[error("a lane's lease is nearly over")]
    Late,
}

/// The share of a lane's work that there was an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Enough,
    Nothing,
}

/// The lanes of one pass.
#[derive(Debug, Clone, Copy, Default)]
struct Passed {
    lanes: usize,
    /// The rounds in which Stripe did not answer the first question.
    unheard: usize,
}

impl Passed {
    fn add(&mut self, ended: Option<Result<Heard, JoinError>>) {
        self.unheard += usize::from(matches!(ended, Some(Ok(Heard::Nothing))));
    }

    const fn is_fruitless(&self) -> bool {
        self.lanes > 0 && self.unheard == self.lanes
    }
}

impl Pusher {
    /// Pushes what these books say, when it is run.
    pub fn new(books: Books, stripe: Stripe, metrics: StripeMetrics, pacing: Pacing) -> Self {
        let reads = pacing.calls_per_second.map(|calls| calls.min(READS_PER_SECOND));
        let inner = Inner {
            books,
            stripe,
            metrics,
            pauses: pacing.pauses,
            calls: Pace::new(pacing.calls_per_second),
            reads: Pace::new(reads),
            breaker: Breaker::default(),
            wake: Notify::new(),
            wake_reader: Notify::new(),
            hints: tokio::sync::Mutex::new(()),
            started_at: Mutex::new(None),
            sealing: sealing::Sealing::default(),
            lines: Mutex::new(Quiet::new(QUIET)),
            lines_of_webhooks: Mutex::new(Quiet::new(QUIET)),
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

    /// Returns whether a line may be logged of calls of the webhook that are not Stripe's: anybody can make many of them.
    pub(crate) fn may_speak_of_webhooks(&self) -> bool {
        self.inner.lines_of_webhooks.lock().may_speak(Instant::now())
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
        let mut fruitless: u32 = 0;
        loop {
            let passed = self.pass_of(work).await;
            fruitless = if passed.as_ref().is_ok_and(Passed::is_fruitless) { fruitless + 1 } else { 0 };
            let pause = match passed {
                Ok(passed) => self.inner.pauses.after(passed, fruitless),
                Err(error) => {
                    tracing::warn!(
                        cause = &error as &dyn std::error::Error,
                        "rows for Stripe could not be worked on; retrying"
                    );
                    self.inner.pauses.trouble
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
            sleep(self.until_next_seal().await).await;
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
        Ok(self.pass_of(LaneWork::Send).await?.lanes + self.pass_of(LaneWork::Read).await?.lanes)
    }

    async fn pass_of(&self, work: LaneWork) -> Result<Passed, BillingError> {
        let now = self.inner.books.now().await?;
        let started_at = self.start(now).await?;
        if self.inner.breaker.is_open(now) {
            return Ok(Passed::default());
        }
        self.work_off_hints().await?;
        let meters = self.inner.books.meters().await?;
        if meters.is_empty() {
            return Ok(Passed::default());
        }
        let claims = self.inner.books.claim(work, LANES, started_at).await?;
        let mut passed = Passed { lanes: claims.len(), unheard: 0 };
        // What is under way ends with the set: whoever drops this drops its calls.
        let mut lanes = JoinSet::new();
        for claim in claims {
            if lanes.len() >= LANES_AT_ONCE {
                passed.add(lanes.join_next().await);
            }
            let meter = meters.iter().find(|meter| meter.event_name == claim.lane.key.event_name).cloned();
            lanes.spawn(self.clone().take_on(claim, meter, work));
        }
        while let Some(ended) = lanes.join_next().await {
            passed.add(Some(ended));
        }
        Ok(passed)
    }

    async fn take_on(self, claim: Claim, meter: Option<StoredMeter>, of: LaneWork) -> Heard {
        let mut heard = Heard::Enough;
        if let Some(meter) = meter {
            // In a box, because the compiler can't see through so many closures that it may cross threads.
            let work: BoxFuture<'_, Result<(), Stop>> = Box::pin(self.work(&claim, &meter, of));
            match work.await {
                Ok(()) => {}
                Err(Stop::Billing(error)) => tracing::warn!(
                    cause = &error as &dyn std::error::Error,
                    "a lane to Stripe could not be worked on; retrying"
                ),
                Err(Stop::Away | Stop::Unheard) => heard = Heard::Nothing,
                Err(Stop::Late) => {}
            }
        }
        let release: BoxFuture<'_, Result<(), BillingError>> = Box::pin(self.inner.books.release(&claim));
        if let Err(error) = release.await {
            tracing::debug!(cause = &error as &dyn std::error::Error, "a lane's lease ends by itself");
        }
        heard
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
        self.inner.books.block_all(lane::reason::LIVEMODE).await
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
    async fn fit(&self, claim: &Claim, meter: &StoredMeter) -> Result<Option<String>, Stop> {
        let now = claim.claimed_at;
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
        self.turn(&self.inner.calls, claim).await?;
        let unfit = match self.heard("meter", self.inner.stripe.meter(&meter.stripe_meter_id).await).await? {
            Ok(found) => {
                if !self.is_of_mode(Some(found.livemode)).await? {
                    return Err(Stop::Away);
                }
                found.unfit(&meter.event_name)
            }
            Err(error) if error.is_missing() => Some("Stripe has no such meter".to_owned()),
            Err(error) => return Err(self.unheard(claim, &error)),
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
            Err(error) if error.is_of_the_key() => self.inner.books.block_all(lane::reason::KEY).await?,
            Err(ReadError::Away(error)) if error.is_before_sending() => {
                self.trip().await?;
                return Err(Stop::Away);
            }
            Err(ReadError::Away(_)) => {}
            _ => self.mend(),
        }
        Ok(read)
    }

    /// Says, but not at every call, that Stripe was reached and answered nothing of use.
    fn unheard(&self, claim: &Claim, cause: &(dyn std::error::Error + 'static)) -> Stop {
        if self.inner.lines.lock().may_speak(Instant::now()) {
            let LaneKey { stripe_customer_id, event_name } = &claim.lane.key;
            tracing::warn!(
                cause,
                %stripe_customer_id,
                %event_name,
                "Stripe does not say what it has; nothing is sent in this lane meanwhile, and it is asked again"
            );
        }
        Stop::Unheard
    }

    /// Reads a meter that somebody wants: why it does not fit, if so; `None` where it can't be read.
    pub(crate) async fn read_meter(&self, id: &str, event_name: &str) -> Result<Option<Option<String>>, BillingError> {
        self.inner.calls.turn().await;
        let found = match self.heard("meter", self.inner.stripe.meter(id).await).await {
            Ok(found) => found,
            Err(Stop::Billing(error)) => return Err(error),
            Err(Stop::Away | Stop::Unheard | Stop::Late) => return Ok(None),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_stripe_says_nothing() {
        let passed = |lanes, unheard| Passed { lanes, unheard };
        assert_eq!(
            [(0, 0), (3, 3), (3, 2)].map(|(lanes, unheard)| passed(lanes, unheard).is_fruitless()),
            [false, true, false]
        );
        let seconds = |fruitless| Pauses::USUAL.after(passed(3, 3), fruitless).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 40].map(seconds), [0, 4, 8, 16, 32, 32, 32]);
        assert_eq!(Pauses::USUAL.after(Passed::default(), 0), Pauses::USUAL.rest);
    }
}
