//! Days of usage pushed through faults of every kind by two programs that are killed at random: what Stripe has in the end is
//! what the ledger has, to the unit.
//!
//! The long form (`GOLDLEAVES_SOAK`) goes through 1,000 days, or as many as `SIMULATED_DAYS` says.

use std::time::Duration;

use goldleaves_billing::BillingError;
use goldleaves_testkit::stripe::Faults;
use serde_json::json;

use crate::stripe_desk::{CUSTOMER, Desk, METER, another_pusher, text};
use crate::world::Api;

const DAYS: i64 = 8;
const DAYS_OF_SOAK: i64 = 1_000;
const STEP: i64 = 1_800;
const HOUR: i64 = 3_600;

/// A course that is the same for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 >> 33).unwrap() % below
    }
}

/// Kinds of days: most with single faults, some with an outage.
fn faults(dice: &mut Dice) -> Faults {
    let outage = match dice.roll(12) {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    };
    Faults { share: 0.3, lag_max: 6 * HOUR, dropped: 0.004, outage, ..Faults::default() }
}

/// Has failed rows tried again, as a person would.
async fn retry_failed(desk: &Desk) {
    for row in desk.rows().await.iter().filter(|row| row["state"] == "failed") {
        let path = format!("pushes/{}/retry", row["id"].as_str().unwrap());
        assert_eq!(desk.post(&path, &json!({"reason": "looked at"})).await.status, 202);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stripe_has_is_what_the_ledger_has_after_any_faults() {
    let is_soak = std::env::var_os("GOLDLEAVES_SOAK").is_some();
    let wanted = std::env::var("SIMULATED_DAYS").ok().and_then(|days| days.parse().ok());
    let days = wanted.unwrap_or(if is_soak { DAYS_OF_SOAK } else { DAYS });
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| rand::random::<u64>() | 1);
    eprintln!("{days} days, seed {seed}");
    let desk = Desk::on(Api::start().await).await;
    desk.double.seed(seed);
    desk.map().await;
    let mut dice = Dice(seed);
    let mut pushers = [desk.pusher.clone(), another_pusher(&desk.api, &desk.double, &desk.clock, "rk_test_double")];
    let (start, mut used) = (desk.clock.now(), 0);
    while desk.clock.now() < start + days * 24 * HOUR {
        if dice.roll(24) == 0 {
            desk.double.set_faults(faults(&mut dice));
        }
        let now = desk.clock.now();
        let late = if dice.roll(10) == 0 { dice.roll(40) * HOUR } else { 0 };
        if dice.roll(3) > 0 && now - late >= start {
            let units = 1 + dice.roll(50);
            desk.api.used("acme", "/a", &units.to_string(), &text(now - late)).await;
            used += units;
        }
        // Now and then a clock jumps, as far as a lease does not reach.
        desk.clock.forward(STEP + if dice.roll(200) == 0 { 25 * HOUR } else { 0 });
        // A machine that is busy may make a statement too slow: the program tries again, too.
        while let Err(error) = pushers[0].seal_once().await {
            assert!(error.is_transient() || matches!(error, BillingError::TooSlow), "seed {seed}: {error:?}");
        }
        for pusher in &mut pushers {
            let patience = Duration::from_millis(if dice.roll(4) == 0 { dice.roll(15).unsigned_abs() } else { 60_000 });
            let killed = tokio::time::timeout(patience, pusher.pass()).await.is_err();
            if killed {
                *pusher = another_pusher(&desk.api, &desk.double, &desk.clock, "rk_test_double");
            }
        }
    }
    desk.double.set_faults(Faults::default());
    for _ in 0..4 {
        desk.pass_time(30 * HOUR, STEP).await;
        retry_failed(&desk).await;
    }
    desk.pass_time(4 * HOUR, STEP).await;
    assert_eq!(desk.double.violations(), [""; 0], "seed {seed}");
    let open: Vec<_> = desk
        .rows()
        .await
        .into_iter()
        .filter(|row| row["state"] != "abandoned" && (row["state"] != "pushed" || row["confirmed_at"].is_null()))
        .collect();
    assert!(open.is_empty(), "seed {seed}: {open:#?}");
    assert_eq!(desk.double.total(CUSTOMER, METER), i128::from(used) * 1_000_000, "seed {seed}");
    assert_eq!(desk.lane().await["drift_units"], 0, "seed {seed}");
}
