//! Whole histories of the rules against a small Stripe, faults included: what both sides have in the end is the same to the unit.
//!
//! Stripe here keeps keys and identifiers for a day, replays errors under a key, drops some of what it took, and shows what it
//! has up to six hours later. Calls are lost before and after it, answers are lost, programs die between two steps. It tests
//! the rules and no database; the same faults over real wires are among the whole-system tests.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_domain::Timestamp;
use proptest::prelude::*;

use super::rules::{Due, Outcome, Progress, Reading, RowState, Verdict, WITNESS_AFTER};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const STEP: i64 = 300;

struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: i64) -> i64 {
        (self.unit() * bound as f64) as i64
    }

    fn happens(&mut self, share: f64) -> bool {
        self.unit() < share
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Taken,
    Duplicate,
    Error,
}

/// A call: its key; and its row, minute and value.
type Call = (String, (usize, i64, i128));

/// A minute that Stripe counted: minute, value, and from when on a summary has it.
type Counted = (i64, i128, i64);

#[derive(Default)]
struct Stripe {
    keys: BTreeMap<String, (i64, Answer)>,
    identifiers: BTreeMap<usize, i64>,
    first: BTreeMap<usize, i64>,
    counted: Vec<Counted>,
    last_visible: i64,
    violations: Vec<String>,
}

impl Stripe {
    fn take(&mut self, now: i64, call: Call, dice: &mut Dice) -> Answer {
        let (key, row) = call;
        let identifier = row.0;
        let first = *self.first.entry(identifier).or_insert(now);
        if now - first > 23 * HOUR + 60 {
            self.violations.push(format!("{identifier} came again after {}", now - first));
        }
        if let Some((at, answer)) = self.keys.get(&key).filter(|(at, _)| now - at < DAY) {
            let _ = at;
            return *answer;
        }
        let answer = self.take_new(now, row, dice);
        self.keys.insert(key, (now, answer));
        answer
    }

    fn take_new(&mut self, now: i64, row: (usize, i64, i128), dice: &mut Dice) -> Answer {
        let (identifier, minute, value) = row;
        if self.identifiers.get(&identifier).is_some_and(|at| now - at < DAY) {
            return Answer::Duplicate;
        }
        if dice.happens(0.045) {
            return Answer::Error;
        }
        self.identifiers.insert(identifier, now);
        if !dice.happens(0.004) {
            self.last_visible = self.last_visible.max(now + (dice.unit().powi(3) * 6.0 * HOUR as f64) as i64);
            self.counted.push((minute, value, self.last_visible));
        }
        if dice.happens(0.045) { Answer::Error } else { Answer::Taken }
    }

    fn read(&self, now: i64, minute: i64) -> i128 {
        self.counted.iter().filter(|event| event.0 == minute && event.2 <= now).map(|event| event.1).sum()
    }
}

struct Row {
    hour: i64,
    minute: i64,
    value: i128,
    progress: Progress,
    failed_at: Option<i64>,
}

struct World {
    dice: Dice,
    stripe: Stripe,
    rows: Vec<Row>,
    used: BTreeMap<i64, i128>,
    minutes: BTreeSet<i64>,
    /// Answers that come after nobody waits for them any more.
    in_flight: Vec<(i64, Call)>,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * SECOND).unwrap()
}

fn seconds(moment: Timestamp) -> i64 {
    moment.unix_micros() / SECOND
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed | 1),
            stripe: Stripe::default(),
            rows: Vec::new(),
            used: BTreeMap::new(),
            minutes: BTreeSet::new(),
            in_flight: Vec::new(),
        }
    }

    fn seal(&mut self, hour: i64, now: i64) {
        let made = |row: &&Row| row.hour == hour && row.progress.state != RowState::Abandoned;
        let made: i128 = self.rows.iter().filter(made).map(|row| row.value).sum();
        let value = self.used.get(&hour).copied().unwrap_or_default() - made;
        if value == 0 {
            return;
        }
        let base = if now - hour < 34 * DAY { hour } else { now - now % HOUR - HOUR };
        let minute = (0..).map(|minute| base + minute * 60).find(|minute| self.minutes.insert(*minute)).unwrap();
        self.rows.push(Row { hour, minute, value, progress: Progress::new(), failed_at: None });
    }

    fn work(&mut self, at_row: usize, now: i64, outage: Option<bool>) {
        let row = &self.rows[at_row];
        match row.progress.due(at(row.minute), at(now)) {
            Due::Nothing => {
                // A person looks at what failed a day later.
                if row.progress.state == RowState::Failed && row.failed_at.is_some_and(|failed| now - failed > DAY) {
                    let held = row.progress.clone().held();
                    self.rows[at_row].progress = Progress { read_back_at: None, ..held };
                }
            }
            Due::Hold => self.rows[at_row].progress = row.progress.clone().held(),
            Due::ReadFirst if self.stripe.read(now, row.minute) == 0 => {
                self.rows[at_row].progress.read_back_at = Some(at(now));
            }
            Due::ReadFirst | Due::Read => self.read(at_row, now),
            Due::Send => self.send(at_row, now, outage),
        }
    }

    fn send(&mut self, at_row: usize, now: i64, outage: Option<bool>) {
        let row = &mut self.rows[at_row];
        row.progress = row.progress.clone().attempted(at(now));
        let suffix = row.progress.key_suffix;
        let call = (format!("{at_row}.{suffix}"), (at_row, row.minute, row.value));
        let silent = Outcome::Unanswered("no answer".to_owned());
        let later = Outcome::Later { error: "429".to_owned(), pause: None };
        let outcome = match (outage, self.dice.unit()) {
            (_, dice) if dice < 0.03 => return, // it dies before the call
            (Some(true), _) => {
                self.stripe.take(now, call, &mut self.dice);
                silent
            }
            (Some(false), _) => silent,
            (None, dice) if dice < 0.12 => silent,
            (None, dice) if dice < 0.21 => {
                self.stripe.take(now, call, &mut self.dice);
                silent
            }
            (None, dice) if dice < 0.24 => {
                self.in_flight.push((now + self.dice.below(20), call));
                silent
            }
            (None, dice) if dice < 0.33 => later,
            _ => {
                let answer = self.stripe.take(now, call, &mut self.dice);
                if self.dice.happens(0.03) {
                    return; // it dies before the answer is written down
                }
                match answer {
                    Answer::Taken | Answer::Duplicate => Outcome::Taken,
                    Answer::Error => later,
                }
            }
        };
        let jitter = self.dice.unit();
        let row = &mut self.rows[at_row];
        row.progress = row.progress.clone().answered(&outcome, at(now), jitter);
    }

    fn read(&mut self, at_row: usize, now: i64) {
        let row = &self.rows[at_row];
        let last = row.progress.last_attempt_at;
        let younger = |other: &Row| other.progress.first_attempt_at > last && other.progress.confirmed_at.is_some();
        let is_old = last.is_none_or(|last| (now - seconds(last)) * SECOND > WITNESS_AFTER);
        let has_witness = is_old || self.rows.iter().any(younger);
        let reading = Reading { value: row.value, read: self.stripe.read(now, row.minute), has_witness };
        let (progress, verdict) = row.progress.clone().read(&reading, at(now));
        let hour = row.hour;
        self.rows[at_row].progress = progress;
        match verdict {
            Verdict::Abandoned => self.seal(hour, now),
            Verdict::Missing => self.rows[at_row].failed_at = Some(now),
            Verdict::Differs => panic!("row {at_row} reads {}", reading.read),
            Verdict::Undecided | Verdict::Confirmed => {}
        }
    }

    fn run(&mut self, days: i64) {
        let (start, mut now) = (100 * DAY, 100 * DAY);
        let (end, mut next) = (start + days * DAY, start);
        let (mut outage, mut until) = (None, start);
        while now < end + 12 * DAY {
            if now >= until {
                outage = match self.dice.below(10) {
                    0 => Some(true),
                    1 => Some(false),
                    _ => None,
                };
                let length = self.dice.unit().powi(2) * 60.0 * HOUR as f64;
                until = now + if outage.is_some() { length as i64 } else { 12 * HOUR };
            }
            let arrived: Vec<_> = self.in_flight.extract_if(.., |(arrives, _)| *arrives <= now).collect();
            for (_, call) in arrived {
                self.stripe.take(now, call, &mut self.dice);
            }
            if now < end {
                *self.used.entry(now - now % HOUR).or_default() += i128::from(self.dice.below(50));
                if self.dice.happens(0.03) {
                    let hour = now - now % HOUR - (2 + self.dice.below(120)) * HOUR;
                    if hour >= start {
                        *self.used.entry(hour).or_default() +=
                            i128::from([-7, 3, 11, 100][self.dice.below(4) as usize]);
                        self.seal(hour, now);
                    }
                }
            }
            while next + HOUR + 300 <= now && next < end {
                self.seal(next, now);
                next += HOUR;
            }
            for row in 0..self.rows.len() {
                if self.rows[row].progress.confirmed_at.is_none() {
                    self.work(row, now, outage.filter(|_| now < end + DAY));
                }
            }
            now += STEP;
        }
    }
}

fn check(seed: u64, days: i64) {
    let mut world = World::new(seed);
    world.run(days);
    assert!(world.stripe.violations.is_empty(), "seed {seed}: {:?}", world.stripe.violations);
    let is_open = |row: &&Row| row.progress.state != RowState::Abandoned && row.progress.confirmed_at.is_none();
    let open: Vec<_> = world.rows.iter().filter(is_open).map(|row| &row.progress).collect();
    assert!(open.is_empty(), "seed {seed}: {open:#?}");
    let stripe: i128 = world.stripe.counted.iter().map(|event| event.1).sum();
    assert_eq!(stripe, world.used.values().sum::<i128>(), "seed {seed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// A thousand days in forty histories.
    #[test]
    fn both_sides_are_equal_in_the_end(seed: u64) {
        check(seed, 25);
    }
}
