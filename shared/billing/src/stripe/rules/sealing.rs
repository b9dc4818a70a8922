//! The rules of making a row, as pure functions: which rows an hour lacks, the value of each, and the minutes that one may have.

use goldleaves_domain::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::RowState;
use crate::PeriodState;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// The largest value that Stripe takes.
pub(crate) const VALUE_MAX: i128 = 999_999_999_999_999;
/// A row has a minute of its own.
const ROWS_AT_ONCE: usize = 60;
/// Stripe takes what is at most 35 days old.
const OWN_HOUR_FOR: i64 = 34 * Timestamp::DAY_MICROS;

/// Units of the smallest step that a meter counts.
pub(crate) const fn step(places: i16) -> i128 {
    if places == 0 { 1_000_000 } else { 1 }
}

/// The sum of the rows of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// The number of the next one.
    next: i64,
    /// The units of those that are not given up.
    units_micro: i128,
}

impl Made {
    /// All that is used and in no row, as if one row could say it.
    pub(crate) const fn rest(self, used_micro: i128) -> Revision {
        Revision { number: self.next, units_micro: used_micro - self.units_micro }
    }

    /// Adds a row.
    pub fn add(&mut self, number: i64, state: RowState, units_micro: i128) {
        self.next = self.next.max(number + 1);
        // Not there, and never will be: its units are to be told anew.
        if state != RowState::Abandoned {
            self.units_micro += units_micro;
        }
    }
}

/// A row that an hour lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// Its number among the hour's rows.
    pub number: i64,
    /// Its units.
    pub units_micro: i128,
}

/// The rows that an hour lacks, each of a value that Stripe takes; `None` where they are more than an hour has minutes, so that
/// no meter with these places can count it.
pub fn lacking(used_micro: i128, made: Made, places: i16) -> Option<Vec<Revision>> {
    let most = (VALUE_MAX - 1) * step(places);
    let (mut left, mut lacking) = (used_micro - made.units_micro, Vec::new());
    for number in made.next.. {
        if left == 0 {
            break;
        }
        if lacking.len() == ROWS_AT_ONCE {
            return None;
        }
        let units_micro = left.clamp(-most, most);
        lacking.push(Revision { number, units_micro });
        left -= units_micro;
    }
    Some(lacking)
}

/// The value of a row, and what of its units goes over to the next row of its lane.
pub fn value_of(carried: &mut i128, units_micro: i128, places: i16) -> i128 {
    let total = *carried + units_micro;
    let value = total.div_euclid(step(places));
    *carried = total - value * step(places);
    value
}

/// The things that name a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowName<'a> {
    /// The tenant whose usage it is.
    pub tenant: &'a str,
    /// The name of the meter.
    pub meter: &'a str,
    /// The hour whose usage it is.
    pub hour: Timestamp,
    /// The number among the hour's rows.
    pub revision: i64,
}

/// The identifier of a row's event at Stripe: another one for each generation, so that what a restore forgot never comes again.
pub fn identifier(generation: Uuid, row: &RowName<'_>) -> String {
    let RowName { tenant, meter, hour, revision } = row;
    let name = format!("{generation}\n{tenant}\n{meter}\n{hour}\n{revision}");
    let digest = Sha256::digest(name.as_bytes());
    let digits: String = digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    format!("gl1-{digits}")
}

/// The moments that a row may have, the best first, each at the half of its minute: of its own hour, and where Stripe would
/// not take that or its period is closed or full, of the previous and the current hour as far as they have passed.
pub fn minutes_for(hour: Timestamp, period: PeriodState, now: Timestamp) -> impl Iterator<Item = i64> {
    let age = now.unix_micros() - hour.unix_micros() - Timestamp::HOUR_MICROS;
    let own = (period == PeriodState::Open && age <= OWN_HOUR_FOR).then(|| minutes_of(hour));
    own.into_iter().flatten().chain(minutes_before(now))
}

/// The minutes of an hour, each at its half.
fn minutes_of(hour: Timestamp) -> impl Iterator<Item = i64> {
    (0..60).map(move |minute| hour.unix_micros() + minute * MINUTE + 30 * SECOND)
}

/// The minutes of the previous and the current hour that have passed.
fn minutes_before(now: Timestamp) -> impl Iterator<Item = i64> {
    let first = now.hour().plus_micros(-Timestamp::HOUR_MICROS).unwrap_or(now);
    let until = now.unix_micros() - 30 * SECOND;
    minutes_of(first).chain(minutes_of(now.hour())).filter(move |micros| *micros <= until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_values_that_stripe_takes() {
        for (units, places) in [(1, 6), (-5, 0), (10_i128.pow(16), 6), (-(10_i128.pow(22)), 0), (0, 6)] {
            let rows = lacking(units, Made::default(), places).unwrap();
            assert_eq!(rows.iter().map(|row| row.units_micro).sum::<i128>(), units);
            assert!(rows.iter().all(|row| row.units_micro.abs() <= VALUE_MAX * step(places)));
        }
    }

    #[test]
    fn an_hour_has_no_more_rows_than_minutes() {
        for places in [0, 6] {
            let most = 60 * (VALUE_MAX - 1) * step(places);
            for units in [most, -most] {
                assert_eq!(lacking(units, Made::default(), places).unwrap().len(), 60);
                assert_eq!(lacking(units + units.signum(), Made::default(), places), None);
            }
        }
        let mut made = Made::default();
        (0..200).for_each(|number| made.add(number, RowState::Pushed, 1));
        assert_eq!(lacking(201, made, 6).unwrap().len(), 1, "what came late, a little at a time, is no reason");
    }

    #[test]
    fn values_add_up_to_the_units_but_for_less_than_a_step() {
        for places in [0_i16, 6] {
            let (mut carried, mut units, mut values) = (0, 0, 0);
            for part in [1_500_000_i128, 700_000, -2_000_000, 1, 999_999, -200_001, 5_000_000_000_000] {
                units += part;
                values += value_of(&mut carried, part, places);
                let rest = units - values * step(places);
                assert!((0..step(places)).contains(&rest), "{places}: {rest}");
            }
        }
    }

    #[test]
    fn minutes_that_have_passed_lie_in_two_hours() {
        let now: Timestamp = "2026-05-05T10:02:29Z".parse().unwrap();
        let minutes: Vec<i64> = minutes_before(now).collect();
        assert_eq!(minutes.len(), 62, "60 of the last hour and the first two of this one");
        assert!(minutes.iter().all(|micros| *micros <= now.unix_micros()));
    }
}
