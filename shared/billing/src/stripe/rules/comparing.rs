//! The rules of comparing both sides, as pure functions: whether Stripe has more in a lane than was ever sent, and whether the sum
//! of an hour says that each of its rows is there.

use super::RowState;

/// A row of an hour whose sum is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourRow {
    /// The point that it has reached.
    pub state: RowState,
    /// Its value.
    pub value: Option<i128>,
}

/// Returns whether an hour's sum says that each of its rows is there. Where all values are positive and Stripe took all
/// of them, one that is missing makes the sum smaller; with negative ones, two could make up for each other.
pub fn hour_is_there(rows: &[HourRow], theirs: Option<i128>) -> bool {
    let is_sure = |row: &HourRow| row.state == RowState::Pushed && row.value.is_some_and(|value| value >= 0);
    let ours: i128 = rows.iter().filter_map(|row| row.value).sum();
    rows.iter().all(is_sure) && theirs == Some(ours)
}

/// The sums of a lane's rows in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneSums {
    /// The positive values that were ever attempted and are not given up: Stripe can't have more.
    pub most: i128,
    /// The values that Stripe took.
    pub pushed: i128,
}

impl LaneSums {
    /// Adds a row, of which a call was ever begun or which says what Stripe has; or not.
    pub fn add(&mut self, state: RowState, value: i128, may_be_there: MayBeThere) {
        if state == RowState::Abandoned {
            return;
        }
        // A negative row that the summaries don't show yet must not look like somebody else's usage.
        if may_be_there == MayBeThere::Yes {
            self.most += value.max(0);
        }
        if state == RowState::Pushed {
            self.pushed += value;
        }
    }

    /// Returns whether Stripe has more than was ever sent: somebody else pushes, or rows were forgotten.
    pub const fn is_exceeded_by(&self, total: i128) -> bool {
        total > self.most
    }
}

/// Says whether Stripe can have a row: a call was begun, or it was made of what Stripe has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayBeThere {
    /// It can.
    Yes,
    /// Nothing of it ever went out.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_there_where_only_all_of_its_rows_make_its_sum() {
        let row = |state, value| HourRow { state, value: Some(value) };
        let (three, five) = (row(RowState::Pushed, 3), row(RowState::Pushed, 5));
        assert!(hour_is_there(&[three, five], Some(8)));
        for theirs in [None, Some(0), Some(3), Some(5), Some(7), Some(9)] {
            assert!(!hour_is_there(&[three, five], theirs), "{theirs:?}");
        }
        // 5 is there alone, or all of them are.
        assert!(!hour_is_there(&[three, five, row(RowState::Pushed, -3)], Some(5)));
        for state in [RowState::Pending, RowState::Held, RowState::Failed] {
            assert!(!hour_is_there(&[three, row(state, 5)], Some(8)), "{state:?}");
        }
        assert!(!hour_is_there(&[three, HourRow { state: RowState::Pushed, value: None }], Some(3)));
    }

    #[test]
    fn stripe_has_no_more_than_the_positive_values_that_were_sent() {
        let mut sums = LaneSums::default();
        sums.add(RowState::Pushed, 5, MayBeThere::Yes);
        sums.add(RowState::Pushed, -3, MayBeThere::Yes);
        sums.add(RowState::Pending, 4, MayBeThere::Yes);
        sums.add(RowState::Pending, 100, MayBeThere::No);
        sums.add(RowState::Abandoned, 100, MayBeThere::Yes);
        assert_eq!(sums, LaneSums { most: 9, pushed: 2 });
        assert_eq!([8, 9, 10].map(|total| sums.is_exceeded_by(total)), [false, false, true]);
    }
}
