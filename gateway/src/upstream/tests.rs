//! The choice between addresses, as a simulation of everything that takes part: no socket, no clock, every draw from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::clock::Moment;
use super::standing::{Answered, Choices, Standing, choose, judge};

/// The way in which an address serves a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answers {
        millis: u64,
        how: Answered,
    },
    /// Nothing is said until the client leaves.
    Abandoned {
        millis: u64,
    },
}

struct Addresses(Vec<Standing>);

impl Choices for Addresses {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn standing(&self, index: usize) -> Option<&Standing> {
        self.0.get(index)
    }

    fn is_tried(&self, _: usize) -> bool {
        false
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    began: u64,
    to: usize,
    fate: Fate,
}

impl Call {
    const fn took(&self) -> u64 {
        match self.fate {
            Fate::Answers { millis, .. } | Fate::Abandoned { millis } => millis,
        }
    }
}

struct Simulated {
    addresses: Addresses,
    random: SmallRng,
    calls: Vec<Call>,
    /// By the end of each, its place among all calls.
    under_way: BinaryHeap<Reverse<(u64, usize)>>,
    ejections: u64,
}

impl Simulated {
    fn new(addresses: usize, seed: u64) -> Self {
        Self {
            addresses: Addresses((0..addresses).map(|_| Standing::default()).collect()),
            random: SmallRng::seed_from_u64(seed),
            calls: Vec::new(),
            under_way: BinaryHeap::new(),
            ejections: 0,
        }
    }

    /// Sends so many calls per second between two moments in ms.
    fn ask(mut self, per_second: u64, millis: Range<u64>, fate: impl Fn(usize, &mut SmallRng) -> Fate) -> Self {
        for began in (0..).map(|call| millis.start + call * 1_000 / per_second).take_while(|at| *at < millis.end) {
            self.end_until(began);
            let now = Moment::new(began);
            let to = choose(&self.addresses, now, |below| self.random.random_range(0..below)).unwrap();
            self.addresses.0[to].begin();
            self.addresses.0[to].asked(now);
            let call = Call { began, to, fate: fate(to, &mut self.random) };
            self.under_way.push(Reverse((began + call.took(), self.calls.len())));
            self.calls.push(call);
        }
        self
    }

    fn end_until(&mut self, until: u64) {
        while let Some(&Reverse((end, place))) = self.under_way.peek()
            && end <= until
        {
            self.under_way.pop();
            let (now, call) = (Moment::new(end), self.calls[place]);
            let address = &self.addresses.0[call.to];
            match call.fate {
                Fate::Answers { millis, how } => {
                    address.waited();
                    address.answered(now, Duration::from_millis(millis), how);
                    let is_put_out = how == Answered::Badly && judge(&self.addresses, call.to, now);
                    self.ejections += u64::from(is_put_out);
                }
                Fate::Abandoned { .. } => address.left(now),
            }
            address.end();
        }
    }

    /// No connection to an address can be made from then on.
    fn kill(self, address: usize, now: u64) -> Self {
        self.addresses.0[address].outage.connect_failed(Moment::new(now));
        self
    }

    fn to(&self, address: usize, millis: Range<u64>) -> usize {
        self.calls.iter().filter(|call| millis.contains(&call.began) && call.to == address).count()
    }

    /// The share of the calls between two moments that an address got.
    fn share(&self, address: usize, millis: Range<u64>) -> f64 {
        let all = self.calls.iter().filter(|call| millis.contains(&call.began)).count();
        self.to(address, millis) as f64 / all as f64
    }

    /// The time in ms within which 99 of 100 calls were over.
    fn p99(&self) -> u64 {
        let mut took: Vec<u64> = self.calls.iter().map(Call::took).collect();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

const fn well(millis: u64) -> Fate {
    Fate::Answers { millis, how: Answered::Well }
}

/// Some 20 ms, and one of 300 up to a hundred: fewer than what 99 of 100 calls leave out.
fn usual(random: &mut SmallRng) -> u64 {
    let more = if random.random_range(0..300) == 0 { random.random_range(20..80) } else { 0 };
    random.random_range(15..25) + more
}

const MINUTE: u64 = 60_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slow_address_gets_few_calls(seed: u64) {
        let simulated = Simulated::new(4, seed).ask(400, 0..20_000, |index, random| {
            let millis = random.random_range(10..50);
            well(if index == 0 { millis * 10 } else { millis })
        });
        let share = simulated.share(0, 0..20_000);
        prop_assert!(share < 0.004, "the slow one got {share}");
        prop_assert!((1..4).all(|index| simulated.share(index, 0..20_000) > 0.2));
    }

    /// The three addresses of the whole-system test, at 1,000 calls per second: one dies after half a minute, one is ten times slower.
    #[test]
    fn of_three_addresses_a_dead_and_a_slow_one_are_not_noticed(seed: u64) {
        let healthy = Simulated::new(3, seed).ask(1_000, 0..MINUTE, |_, random| well(usual(random)));
        let serve = |index, random: &mut SmallRng| well(usual(random) * if index == 1 { 10 } else { 1 });
        let half = MINUTE / 2;
        let simulated = Simulated::new(3, seed).ask(1_000, 0..half, serve).kill(0, half).ask(1_000, half..MINUTE, serve);
        let shares = (simulated.share(1, 0..half), simulated.share(1, half..MINUTE));
        prop_assert!(shares.0 < 0.006 && shares.1 < 0.006, "the slow one got {shares:?}");
        let p99 = (simulated.p99(), healthy.p99());
        prop_assert!(p99.0 <= 2 * p99.1, "99 of 100 took {p99:?}");
    }

    #[test]
    fn an_address_that_becomes_slow_is_left_and_found_again(seed: u64) {
        let simulated = Simulated::new(3, seed)
            .ask(1_000, 0..MINUTE, |_, random| well(usual(random)))
            .ask(1_000, MINUTE..2 * MINUTE, |index, random| well(usual(random) * if index == 0 { 10 } else { 1 }))
            .ask(1_000, 2 * MINUTE..4 * MINUTE, |_, random| well(usual(random)));
        let share = |from: u64, until: u64| simulated.share(0, from * 1_000..until * 1_000);
        prop_assert!(share(60, 65) < 0.03 && share(65, 120) < 0.004, "{} and {}", share(60, 65), share(65, 120));
        prop_assert!(share(150, 240) > 0.2, "{}", share(150, 240));
    }

    /// It is as quick as the others for whoever looks at its last answers, and nobody waits long enough to see that there are no more.
    #[test]
    fn an_address_that_stops_answering_gets_few_calls(seed: u64) {
        let simulated = Simulated::new(3, seed)
            .ask(1_000, 0..MINUTE / 2, |_, random| well(usual(random)))
            .ask(1_000, MINUTE / 2..MINUTE, |index, random| {
                if index == 0 { Fate::Abandoned { millis: 1_000 } } else { well(usual(random)) }
            });
        let abandoned = simulated.to(0, MINUTE / 2..MINUTE);
        prop_assert!(abandoned < 60, "{abandoned} of 30,000");
    }

    #[test]
    fn an_unknown_address_is_not_given_every_call_until_its_first_answer(seed: u64) {
        let simulated = Simulated::new(3, seed).ask(1_000, 0..2_000, |index, random| {
            if index == 0 { Fate::Abandoned { millis: 1_000 } } else { well(usual(random)) }
        });
        let abandoned = simulated.to(0, 0..2_000);
        prop_assert!(abandoned < 40, "{abandoned}");
    }

    /// Some calls take long wherever they go, as reports do: that moves no load from one address to another for long.
    #[test]
    fn slow_calls_leave_no_address_without_work(seed: u64) {
        let simulated = Simulated::new(3, seed).ask(1_000, 0..2 * MINUTE, |_, random| {
            well(if random.random_range(0..2_000) == 0 { 5_000 } else { usual(random) })
        });
        for index in 0..3 {
            let share = simulated.share(index, MINUTE..2 * MINUTE);
            prop_assert!(share > 0.08, "{index} got {share}");
        }
    }

    #[test]
    fn an_address_that_fails_at_once_is_put_out(seed: u64) {
        let simulated = Simulated::new(4, seed).ask(400, 0..20_000, |index, random| match index {
            0 => Fate::Answers { millis: 1, how: Answered::Badly },
            _ => well(random.random_range(10..50)),
        });
        prop_assert!(simulated.ejections >= 1);
        let share = simulated.share(0, 0..20_000);
        prop_assert!(share < 0.02, "{share}");
    }

    #[test]
    fn a_tenant_whose_calls_fail_everywhere_puts_nobody_out(seed: u64, percent in 5_u32..=80) {
        let simulated = Simulated::new(4, seed).ask(400, 0..20_000, |_, random| {
            let how = if random.random_range(0..100) < percent { Answered::Badly } else { Answered::Well };
            Fate::Answers { millis: random.random_range(10..50), how }
        });
        // At the very beginning the ten answers that count may all be bad by chance.
        prop_assert!(simulated.ejections <= 1, "{}", simulated.ejections);
    }
}

#[test]
fn never_more_than_half_are_out_for_their_answers() {
    let all = Simulated::new(4, 0).addresses;
    let now = Moment::new(5_000);
    for (index, is_bad) in [(0, true), (1, true), (2, true), (3, false)] {
        // Ever fewer good answers of others are left to compare with.
        for _ in 0..1_000 {
            all.0[3].answers.count(now, false);
        }
        for _ in 0..20 {
            all.0[index].answers.count(now, is_bad);
        }
    }
    assert_eq!([0, 1, 2, 3].map(|index| judge(&all, index, now)), [true, true, false, false]);
    for index in 0..4 {
        all.0[index].outage.healthy(Moment::new(1_000 + index as u64), false);
    }
    assert_eq!(choose(&all, Moment::new(6_000), |_| 0), Some(0), "all are out: the longest ago is tried");
}
