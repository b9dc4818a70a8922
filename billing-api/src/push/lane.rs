//! The work in a lane that this program has taken: both sides are compared, rows are sent one after the other, minutes
//! are read.

use goldleaves_billing::stripe::rules::{Due, Outcome, RowState, Verdict};
use goldleaves_billing::stripe::{Claim, LaneWork, PushRow, StoredMeter};
use goldleaves_domain::Timestamp;
use goldleaves_stripe::{Block, NewEvent, Sent};

use super::pace::Pace;
use super::sums::Reader;
use super::{METER_CHECK_MICROS, Pusher, Stop};

const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
/// No call begins later in a lease: with the time that a call may take it ends before the lease does.
const CALLS_WITHIN: i64 = 30 * SECOND;

/// A call whose attempt was written down longer ago is not made.
const CALL_AFTER_ATTEMPT: i64 = 10 * SECOND;

/// The reason a lane is blocked, as the words that are stored and shown.
pub(super) mod reason {
    pub(crate) const NO_CUSTOMER: &str = "no_such_customer";
    pub(crate) const NO_METER: &str = "no_active_meter";
    pub(crate) const KEY: &str = "key_refused";
    pub(crate) const UNFIT: &str = goldleaves_billing::stripe::METER_UNFIT;
    pub(crate) const HAS_MORE: &str = "stripe_has_more";
    pub(crate) const DIFFERS: &str = "differs";
    pub(crate) const LIVEMODE: &str = "livemode";
}

/// Every reason for which a lane is blocked.
pub const BLOCKED_FOR: [&str; 7] = [
    reason::NO_CUSTOMER,
    reason::NO_METER,
    reason::KEY,
    reason::UNFIT,
    reason::HAS_MORE,
    reason::DIFFERS,
    reason::LIVEMODE,
];

impl Pusher {
    pub(super) async fn work(&self, claim: &Claim, meter: &StoredMeter, work: LaneWork) -> Result<(), Stop> {
        // Many lanes are taken at once, and this one may have waited for the others.
        self.is_in_time(claim).await?;
        let blocked = claim.lane.blocked.as_deref();
        let now = claim.claimed_at;
        if blocked == Some(reason::LIVEMODE) && !self.is_of_mode(None).await? {
            return Ok(());
        }
        if !self.inner.breaker.lets_through(now) {
            return Err(Stop::Away);
        }
        if self.fit(claim, meter).await?.is_some() {
            self.inner.books.block(&claim.lane.key, reason::UNFIT).await?;
            return Ok(());
        }
        let needs_compare = matches!(blocked, Some(reason::HAS_MORE | reason::DIFFERS));
        if (needs_compare || self.is_check_due(claim)) && !self.compare(claim, meter).await? {
            return Ok(());
        }
        if blocked.is_some_and(|blocked| blocked != reason::NO_CUSTOMER && blocked != reason::NO_METER) {
            self.inner.books.unblock(claim).await?;
        }
        self.work_rows(claim, meter, work).await
    }

    /// Waits for the turn of a call in a lane. None begins when the wait was so long that the lease may end before the call.
    pub(super) async fn turn(&self, pace: &Pace, claim: &Claim) -> Result<(), Stop> {
        pace.turn().await;
        self.is_in_time(claim).await.map(drop)
    }

    /// The moment, as long as calls may begin under a lease.
    async fn is_in_time(&self, claim: &Claim) -> Result<Timestamp, Stop> {
        let now = self.inner.books.now().await?;
        if now.unix_micros() - claim.claimed_at.unix_micros() > CALLS_WITHIN {
            return Err(Stop::Late);
        }
        Ok(now)
    }

    fn is_check_due(&self, claim: &Claim) -> bool {
        let Some(checked) = claim.lane.checked_at else { return true };
        let started_at = self.inner.started_at.lock().unwrap_or(claim.claimed_at);
        let day_ago = claim.claimed_at.plus_micros(-METER_CHECK_MICROS).unwrap_or(claim.claimed_at);
        checked < day_ago.max(started_at) || !claim.lane.is_even
    }

    /// Compares both sides of a lane; whether rows may be sent.
    async fn compare(&self, claim: &Claim, meter: &StoredMeter) -> Result<bool, Stop> {
        let lane = &claim.lane.key;
        let reader = Reader { claim, meter, pace: &self.inner.calls };
        let Some((total, window)) = self.total(reader).await? else { return Ok(false) };
        let ours = self.inner.books.lane_sums(lane, window).await?;
        self.inner.books.compared(lane, total, ours.pushed).await?;
        if ours.is_exceeded_by(total) {
            tracing::error!(
                customer = lane.stripe_customer_id,
                event_name = lane.event_name,
                stripe = %total,
                ours = %ours.most,
                "Stripe has more than was ever sent: somebody else pushes, or rows were lost by a restore; nothing is sent"
            );
            self.inner.books.block(lane, reason::HAS_MORE).await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn work_rows(&self, claim: &Claim, meter: &StoredMeter, work: LaneWork) -> Result<(), Stop> {
        loop {
            let (rows, now) = self.inner.books.due_rows(&claim.lane.key, work).await?;
            if work == LaneWork::Read && self.confirm_hours(claim, meter, &rows, now).await? > 0 {
                continue;
            }
            let mut done = 0;
            for row in &rows {
                let now = self.is_in_time(claim).await?.max(now);
                match self.step(claim, meter, row, Turn { work, now }).await? {
                    Step::Done => done += 1,
                    Step::Nothing => {}
                    Step::Leave => return Ok(()),
                }
            }
            if done == 0 {
                return Ok(());
            }
        }
    }

    async fn step(&self, claim: &Claim, meter: &StoredMeter, row: &PushRow, turn: Turn) -> Result<Step, Stop> {
        let Turn { work, now } = turn;
        match row.due(now) {
            Due::Nothing => Ok(Step::Nothing),
            Due::Hold => {
                self.inner.books.hold(row.id).await?;
                Ok(Step::Done)
            }
            Due::Send if work == LaneWork::Send => self.send(claim, row).await,
            Due::Read if work == LaneWork::Read => self.read(claim, meter, row).await,
            Due::ReadFirst => self.read(claim, meter, row).await,
            // Done by whoever takes the lane for it.
            Due::Send | Due::Read => Ok(Step::Nothing),
        }
    }

    async fn send(&self, claim: &Claim, row: &PushRow) -> Result<Step, Stop> {
        self.inner.calls.turn().await;
        // Written down before the bytes go out.
        let Some(row) = self.inner.books.attempt(claim, row.id).await? else { return Ok(Step::Leave) };
        *self.inner.last.lock() = Some((row.id, row.progress.attempts));
        let Some(event) = event_of(&row) else { return Ok(Step::Nothing) };
        if !self.is_fresh(&row).await? {
            return Ok(Step::Leave);
        }
        let sent = self.inner.stripe.send(&event).await;
        self.inner.metrics.called("send", word_of(&sent));
        if matches!(sent, Sent::NotConnected(_)) {
            self.trip().await?;
        } else if !matches!(sent, Sent::Unanswered(_)) {
            self.mend();
        }
        self.after(claim, &row, sent).await
    }

    /// Returns whether an attempt was written down just now. A program that stood still since then would send what another may have
    /// sent meanwhile, and after the last hour in which Stripe still knows its identifier.
    async fn is_fresh(&self, row: &PushRow) -> Result<bool, Stop> {
        let now = self.inner.books.now().await?;
        let since = row.progress.last_attempt_at.map_or(0, |last| now.unix_micros() - last.unix_micros());
        if since > CALL_AFTER_ATTEMPT {
            tracing::warn!(id = %row.id, "the program stood still before a call to Stripe; the row is sent later");
        }
        Ok(since <= CALL_AFTER_ATTEMPT)
    }

    async fn after(&self, claim: &Claim, row: &PushRow, sent: Sent) -> Result<Step, Stop> {
        let books = &self.inner.books;
        let (outcome, step) = match &sent {
            Sent::Taken | Sent::Duplicate => (Outcome::Taken, Step::Done),
            Sent::NotConnected(error) => (Outcome::Unanswered(error.clone()), Step::Leave),
            Sent::Unanswered(error) => (Outcome::Unanswered(error.clone()), Step::Done),
            Sent::Later { error, pause, is_limited } => {
                if *is_limited {
                    self.inner.calls.slow_down();
                }
                (Outcome::Later { error: error.to_string(), pause: *pause }, Step::Done)
            }
            Sent::Blocked(_, error) => (Outcome::Blocked(error.to_string()), Step::Leave),
            Sent::Refused(error) => (Outcome::Refused(error.to_string()), Step::Done),
        };
        books.answered(row.id, &outcome, rand::random::<f64>()).await?;
        match &sent {
            Sent::Blocked(Block::Key, error) => {
                tracing::error!(%error, "Stripe refuses STRIPE_API_KEY; nothing is sent");
                books.block_all(reason::KEY).await?;
            }
            Sent::Blocked(block, error) => {
                let word = if *block == Block::NoCustomer { reason::NO_CUSTOMER } else { reason::NO_METER };
                tracing::error!(%error, customer = claim.lane.key.stripe_customer_id, "a lane to Stripe is blocked");
                books.block(&claim.lane.key, word).await?;
            }
            Sent::Taken | Sent::Duplicate => match claim.lane.blocked.as_deref() {
                Some(reason::KEY) => books.unblock_all(reason::KEY).await?,
                Some(_) => books.unblock(claim).await?,
                None => {}
            },
            _ => {}
        }
        Ok(step)
    }

    async fn read(&self, claim: &Claim, meter: &StoredMeter, row: &PushRow) -> Result<Step, Stop> {
        let Some(minute) = row.event_timestamp.map(minute_of) else { return Ok(Step::Nothing) };
        let reader = Reader { claim, meter, pace: &self.inner.reads };
        let Some(read) = self.sum_of_minute(reader, minute).await? else { return Ok(Step::Leave) };
        if row.progress.state == RowState::Pending && read == 0 {
            self.inner.books.read_first(claim, row.id).await?;
            return Ok(Step::Done);
        }
        let verdict = self.inner.books.read_back(claim, row.id, read).await?;
        match verdict {
            Verdict::Differs if row.progress.state != RowState::Pushed => {
                self.inner.books.block(&claim.lane.key, reason::DIFFERS).await?;
                return Ok(Step::Leave);
            }
            Verdict::Missing | Verdict::Differs => {
                tracing::error!(id = %row.id, tenant = row.tenant_id, "Stripe took usage and does not have it");
            }
            Verdict::Undecided | Verdict::Confirmed | Verdict::Abandoned => {}
        }
        Ok(Step::Done)
    }
}

/// A row's turn: what is done in the lane, and the time.
#[derive(Debug, Clone, Copy)]
struct Turn {
    work: LaneWork,
    now: Timestamp,
}

/// The result of a row's turn in this lease.
enum Step {
    /// It was worked on.
    Done,
    /// It was not due.
    Nothing,
    /// Nothing more is done in the lane.
    Leave,
}

/// The start of a moment's minute.
pub(super) fn minute_of(moment: Timestamp) -> Timestamp {
    moment.plus_micros(-moment.unix_micros().rem_euclid(MINUTE)).unwrap_or(moment)
}

fn event_of(row: &PushRow) -> Option<NewEvent> {
    let lane = row.lane.as_ref()?;
    Some(NewEvent {
        event_name: lane.event_name.clone(),
        stripe_customer_id: lane.stripe_customer_id.clone(),
        value: row.value?.to_string(),
        identifier: row.identifier.clone()?,
        timestamp: row.event_timestamp?.unix_micros() / SECOND,
        key: row.key(),
    })
}

const fn word_of(sent: &Sent) -> &'static str {
    match sent {
        Sent::Taken => "ok",
        Sent::Duplicate => "duplicate",
        Sent::NotConnected(_) => "not_connected",
        Sent::Unanswered(_) => "unanswered",
        Sent::Later { is_limited: true, .. } => "limited",
        Sent::Later { .. } => "later",
        Sent::Blocked(..) => "blocked",
        Sent::Refused(_) => "refused",
    }
}
