//! Leases of lanes: one that ended neither takes the lane from whoever has it now nor decides anything, and no call begins so
//! late in a lease that it may end after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use goldleaves_billing::stripe::rules::{RowState, Verdict};
use goldleaves_billing::stripe::{Books, BooksClock, Claim, LaneWork};
use goldleaves_billing_api::push::{Pacing, Pusher, StripeMetrics};
use goldleaves_domain::Timestamp;
use goldleaves_runtime::{Metrics, Secret};
use goldleaves_stripe::Stripe;
use goldleaves_testkit::stripe::{Faults, Garbling};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use crate::stripe_desk::{CUSTOMER, Desk, METER, seconds, text};
use crate::world::{Api, on_both};

const HOUR: i64 = 3_600;

on_both! {
    a_lease_that_ended_takes_nothing_from_the_next,
    a_lane_is_in_one_lease_at_a_time_in_any_course,
    rows_that_can_t_be_read_keep_none_from_being_sent,
}

/// A lane with something to send and something to read.
async fn busy_lane(api: Api) -> Desk {
    let desk = Desk::on(api).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2", "2026-03-15T12:31:00Z").await;
    desk.clock.set("2026-03-15T13:05:00Z");
    desk.settle().await;
    desk.api.used("acme", "/a", "3", "2026-03-15T13:31:00Z").await;
    desk.clock.set("2026-03-15T14:30:00Z");
    desk.pusher.seal_once().await.unwrap();
    desk
}

async fn claimed(desk: &Desk, work: LaneWork) -> Option<Claim> {
    desk.pusher.books().claim(work, 10, Timestamp::UNIX_EPOCH).await.unwrap().pop()
}

async fn a_lease_that_ended_takes_nothing_from_the_next(api: Api) {
    let desk = busy_lane(api).await;
    let books = desk.pusher.books();
    let old = claimed(&desk, LaneWork::Read).await.unwrap();
    let of_work = async |work| books.due_rows(&old.lane.key, work).await.unwrap().0.pop().unwrap();
    let (sent, waiting) = (of_work(LaneWork::Read).await, of_work(LaneWork::Send).await);
    assert_eq!((sent.progress.state, waiting.progress.state), (RowState::Pushed, RowState::Pending));
    assert!(claimed(&desk, LaneWork::Send).await.is_none());
    desk.clock.forward(61);
    let new = claimed(&desk, LaneWork::Send).await.unwrap();
    // A program that stood still finds its lease over.
    books.release(&old).await.unwrap();
    assert!(claimed(&desk, LaneWork::Send).await.is_none(), "the lane is the new lease's");
    assert!(books.attempt(&old, waiting.id).await.unwrap().is_none());
    let value = sent.value.unwrap();
    assert_eq!(books.read_back(&old, sent.id, value).await.unwrap(), Verdict::Undecided);
    assert!(books.read_first(&old, waiting.id).await.unwrap().is_none());
    books.block(&new.lane.key, "stripe_has_more").await.unwrap();
    books.unblock(&old).await.unwrap();
    assert_eq!(desk.lane().await["blocked"], "stripe_has_more");
    books.unblock(&new).await.unwrap();
    assert!(books.read_first(&new, waiting.id).await.unwrap().is_some());
    assert!(books.attempt(&new, waiting.id).await.unwrap().is_some());
    assert_eq!(books.read_back(&new, sent.id, value).await.unwrap(), Verdict::Confirmed);
    books.release(&new).await.unwrap();
    assert!(claimed(&desk, LaneWork::Send).await.is_none(), "what was attempted is not due yet");
}

/// More rows wait to be read than are looked at at once, and Stripe says nothing of them.
async fn rows_that_can_t_be_read_keep_none_from_being_sent(api: Api) {
    let desk = Desk::on(api).await;
    desk.map().await;
    let (first, hours) = (seconds("2026-03-15T12:31:00Z"), 210);
    for hour in 0..hours {
        desk.api.used("acme", "/a", "1", &text(first + hour * HOUR)).await;
    }
    desk.clock.forward(hours * HOUR);
    desk.settle().await;
    assert_eq!(desk.double.total(CUSTOMER, METER), i128::from(hours) * 1_000_000);
    desk.double.garble(Some(Garbling::Html));
    desk.api.used("acme", "/a", "1", &text(desk.clock.now())).await;
    desk.clock.forward(2 * HOUR);
    desk.pusher.seal_once().await.unwrap();
    desk.pusher.pass().await.unwrap();
    assert_eq!(desk.double.total(CUSTOMER, METER), i128::from(hours + 1) * 1_000_000);
}

/// Leases are taken and given back in any order, by programs that stand still for as long as they like.
async fn a_lane_is_in_one_lease_at_a_time_in_any_course(api: Api) {
    let desk = busy_lane(api).await;
    desk.clock.forward(600);
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    let mut leases: Vec<Claim> = Vec::new();
    // The lease that has the lane, and the second until which it does.
    let mut held: Option<(usize, i64)> = None;
    for step in 0..150 {
        let now = desk.clock.now();
        match random.random_range(0..3) {
            // Clocks of databases go back, too.
            0 => desk.clock.forward(random.random_range(-20..40)),
            1 => {
                let work = if random.random_bool(0.5) { LaneWork::Send } else { LaneWork::Read };
                let taken = claimed(&desk, work).await;
                let is_free = held.is_none_or(|(_, until)| until <= now);
                assert_eq!(taken.is_some(), is_free, "seed {seed}, step {step}");
                if let Some(claim) = taken {
                    held = Some((leases.len(), now + 60));
                    leases.push(claim);
                }
            }
            _ if leases.is_empty() => {}
            _ => {
                let lease = random.random_range(0..leases.len());
                desk.pusher.books().release(&leases[lease]).await.unwrap();
                held = held.filter(|(holder, _)| *holder != lease);
            }
        }
    }
    assert!(leases.len() > 5, "seed {seed}");
}

#[tokio::test]
async fn no_call_begins_late_in_a_lease() {
    let desk = busy_lane(Api::start().await).await;
    let calls = || ["send", "summaries", "meter"].map(|call| desk.double.calls(call));
    let before = calls();
    // Late before the first call; and late after the wait for its turn.
    for (step, start) in [(31, "2026-03-15T14:40:00Z"), (16, "2026-03-15T15:00:00Z")] {
        let moment = Arc::new(AtomicI64::new(seconds(start)));
        let clock = BooksClock::Driven(Arc::new(move || {
            Timestamp::from_unix_micros(moment.fetch_add(step, Ordering::SeqCst) * 1_000_000).unwrap()
        }));
        assert!(pusher_with(&desk, clock).pass().await.unwrap() > 0, "it had the lane");
        assert_eq!(calls(), before, "{step} s between two looks at the clock");
    }
    desk.clock.set("2026-03-15T16:30:00Z");
    desk.settle().await;
    let states: Vec<_> = desk.rows().await.iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, [json!("pushed"), json!("pushed")], "the lane was left as it was");
}

/// A program stands still for two hours at each of its steps in turn, with a row that Stripe heard of 22 hours ago.
#[tokio::test]
async fn a_program_that_stood_still_sends_nothing_that_is_out_of_date() {
    let desk = Desk::on(Api::start().await).await;
    desk.map().await;
    desk.api.used("acme", "/a", "2", &text(desk.clock.now())).await;
    desk.pass_time(4 * HOUR, HOUR).await;
    let mut left = 0;
    for at_step in 0..20 {
        // The lane's total is compared, so that none is in the way.
        desk.clock.forward(25 * HOUR);
        desk.settle().await;
        desk.api.used("acme", "/a", "2", &text(desk.clock.now())).await;
        desk.clock.forward(2 * HOUR);
        desk.double.set_faults(Faults { outage: Some(false), ..Faults::default() });
        desk.settle().await;
        desk.clock.forward(22 * HOUR);
        desk.double.set_faults(Faults::default());
        let (tried, sent) = (attempts(&desk).await, desk.double.calls("send"));
        slow_pusher(&desk, at_step).pass().await.unwrap();
        left += u64::from(attempts(&desk).await > tried && desk.double.calls("send") == sent);
        desk.pass_time(30 * HOUR, 6 * HOUR).await;
    }
    assert_eq!(desk.double.violations(), [""; 0]);
    assert_eq!(left, 1, "one step lies between the attempt and its call");
}

/// A pusher whose clock, and everybody's, goes forward by two hours at the n-th look at it.
fn slow_pusher(desk: &Desk, at_step: i64) -> Pusher {
    let (clock, looks) = (desk.clock.clone(), AtomicI64::new(0));
    let moment = move || {
        if looks.fetch_add(1, Ordering::SeqCst) == at_step {
            clock.forward(2 * HOUR);
        }
        Timestamp::from_unix_micros(clock.now() * 1_000_000).unwrap()
    };
    pusher_with(desk, BooksClock::Driven(Arc::new(moment)))
}

fn pusher_with(desk: &Desk, clock: BooksClock) -> Pusher {
    let stripe = Stripe::new(desk.double.url().parse().unwrap(), Secret::new("rk_test_double".to_owned())).unwrap();
    let books = Books::new(desk.api.billing.clone(), clock);
    Pusher::new(books, stripe, StripeMetrics::register(&Metrics::new()), Pacing::UNLIMITED)
}

async fn attempts(desk: &Desk) -> i64 {
    desk.api.number("SELECT COALESCE(SUM(attempts), 0) FROM stripe_pushes").await
}
