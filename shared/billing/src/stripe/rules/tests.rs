//! The rules one by one: keys, deadlines, and what a reading decides.

use std::time::Duration;

use goldleaves_domain::Timestamp;

use super::*;

const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = Timestamp::HOUR_MICROS;

fn at(micros: i64) -> Timestamp {
    "2026-03-15T12:00:00Z".parse::<Timestamp>().unwrap().plus_micros(micros).unwrap()
}

fn sent() -> Progress {
    Progress::new().attempted(at(0))
}

fn later() -> Outcome {
    Outcome::Later { error: "500".to_owned(), pause: None }
}

/// A row that was sent at the start and then held.
fn held() -> Progress {
    sent().held()
}

fn reading(read: i128, has_witness: bool) -> Reading {
    Reading { value: 5, read, has_witness }
}

#[test]
fn the_key_changes_after_an_answer_and_not_after_silence() {
    let key_after = |outcome: &Outcome| sent().answered(outcome, at(0), 0.5).key_suffix;
    assert_eq!(key_after(&Outcome::Unanswered("cut".to_owned())), 0, "the answer may have been lost");
    assert_eq!(key_after(&later()), 1, "Stripe replays an error under the same key for a day");
    assert_eq!(key_after(&Outcome::Blocked("no such customer".to_owned())), 1);
    let twice = sent().answered(&later(), at(0), 0.5).attempted(at(MINUTE)).answered(&later(), at(MINUTE), 0.5);
    assert_eq!((twice.key_suffix, twice.attempts, twice.first_attempt_at), (2, 2, Some(at(0))));
}

#[test]
fn pauses_grow_to_a_quarter_of_an_hour_and_heed_what_stripe_asks() {
    let pause = |attempts, jitter| {
        let row = Progress { attempts, ..sent() }.answered(&later(), at(0), jitter);
        since(at(0), row.next_attempt_at.unwrap())
    };
    assert_eq!([1, 2, 5, 10, 40].map(|attempts| pause(attempts, 1.0) / SECOND), [2, 4, 32, 900, 900]);
    assert_eq!([1, 40].map(|attempts| pause(attempts, 0.0)), [SECOND, SECOND], "full jitter, and never at once");
    let asked = Outcome::Later { error: "429".to_owned(), pause: Some(Duration::from_secs(3_000)) };
    assert_eq!(sent().answered(&asked, at(0), 1.0).next_attempt_at, Some(at(3_000 * SECOND)));
}

#[test]
fn nothing_is_sent_23_hours_after_the_first_attempt_whatever_came_of_it() {
    for outcome in [later(), Outcome::Unanswered("cut".to_owned()), Outcome::Blocked("401".to_owned())] {
        let row = sent().answered(&outcome, at(0), 1.0).attempted(at(22 * HOUR)).answered(&outcome, at(22 * HOUR), 0.0);
        let due = |micros| row.due(at(0), at(micros));
        assert_eq!([22 * HOUR + 2 * SECOND, 23 * HOUR - 1].map(due), [Due::Send, Due::Send], "{outcome:?}");
        assert_eq!([23 * HOUR, 40 * HOUR].map(due), [Due::Hold, Due::Hold], "{outcome:?}");
        assert_eq!(row.held().due(at(0), at(23 * HOUR)), Due::Read);
    }
}

#[test]
fn an_old_minute_is_read_before_the_first_attempt_and_at_most_an_hour_before_it() {
    let row = Progress::new();
    assert_eq!([22 * HOUR, 23 * HOUR].map(|micros| row.due(at(0), at(micros))), [Due::Send, Due::Send]);
    assert_eq!(row.due(at(0), at(23 * HOUR + 1)), Due::ReadFirst);
    let read = Progress { read_back_at: Some(at(30 * HOUR)), ..row };
    let due = [30 * HOUR, 31 * HOUR - 1, 31 * HOUR].map(|micros| read.due(at(0), at(micros)));
    assert_eq!(due, [Due::Send, Due::Send, Due::ReadFirst]);
}

#[test]
fn a_reading_confirms_just_the_value_of_the_row() {
    let verdict = |row: Progress, read| row.read(&reading(read, true), at(2 * HOUR));
    for row in [held(), sent().answered(&Outcome::Taken, at(0), 0.0)] {
        let (confirmed, is) = verdict(row.clone(), 5);
        assert_eq!(
            (is, confirmed.state, confirmed.confirmed_at),
            (Verdict::Confirmed, RowState::Pushed, Some(at(2 * HOUR)))
        );
        for other in [4, 6, -5, 10] {
            let (after, is) = verdict(row.clone(), other);
            assert_eq!((is, after.confirmed_at), (Verdict::Differs, None), "{other}");
        }
        let (after, is) = verdict(row, 0);
        assert_eq!((is, after.confirmed_at), (Verdict::Undecided, None));
    }
}

#[test]
fn a_row_is_not_there_after_two_readings_with_a_witness_that_are_ten_minutes_apart() {
    let read = |row: Progress, (read, has_witness), micros| row.read(&reading(read, has_witness), at(micros));
    // Without a witness, or within an hour of the last attempt, nothing counts.
    let (row, verdict) = read(held(), (0, false), 2 * HOUR);
    assert_eq!((verdict, row.absent_since), (Verdict::Undecided, None));
    let (row, verdict) = read(row, (0, true), HOUR - 1);
    assert_eq!((verdict, row.absent_since), (Verdict::Undecided, None));
    // The first that counts, one that comes too soon, one without a witness: it begins again.
    let (row, verdict) = read(row, (0, true), 3 * HOUR);
    assert_eq!((verdict, row.absent_since), (Verdict::Undecided, Some(at(3 * HOUR))));
    let (row, verdict) = read(row, (0, true), 3 * HOUR + 10 * MINUTE - 1);
    assert_eq!(verdict, Verdict::Undecided);
    let (row, _) = read(row, (0, false), 3 * HOUR + 10 * MINUTE);
    assert_eq!(row.absent_since, None);
    let (row, _) = read(row, (0, true), 4 * HOUR);
    let (row, verdict) = read(row, (0, true), 4 * HOUR + 10 * MINUTE);
    assert_eq!((verdict, row.state), (Verdict::Abandoned, RowState::Abandoned));
    // What Stripe took and does not have is for a person.
    let taken = sent().answered(&Outcome::Taken, at(0), 0.0);
    let (row, _) = read(taken, (0, true), 2 * HOUR);
    let (row, verdict) = read(row, (0, true), 2 * HOUR + 10 * MINUTE);
    assert_eq!((verdict, row.state), (Verdict::Missing, RowState::Failed));
    assert!(row.last_error.unwrap().starts_with("not_in_summary"));
}

#[test]
fn what_was_decided_meanwhile_stays_decided() {
    let abandoned = Progress { state: RowState::Abandoned, ..sent() };
    for outcome in [later(), Outcome::Unanswered("cut".to_owned()), Outcome::Refused("400".to_owned())] {
        assert_eq!(abandoned.clone().answered(&outcome, at(HOUR), 0.5), abandoned);
        assert_eq!(held().answered(&outcome, at(HOUR), 0.5), held());
    }
    assert_eq!(held().answered(&Outcome::Taken, at(HOUR), 0.5).state, RowState::Pushed, "the answer was late");
    assert_eq!(abandoned.answered(&Outcome::Taken, at(HOUR), 0.5).state, RowState::Abandoned);
}
