//! Judges the wall clock: it can't stand before the program was built. Nothing else is known of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When this build was made, seconds since 1970.
const BUILT: &str = env!("GOLDLEAVES_BUILT");

/// A clock that can't be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock stands {} before this program was built ({built} seconds after 1970): calls would be billed to a time that is \
     over. Set the clock, then start again",
    in_words(*.behind)
)]
pub struct ClockBehind {
    behind: Duration,
    built: u64,
}

/// Returns whether the machine's clock can be right.
///
/// # Errors
/// It stands before the moment this program was built.
pub fn check_clock() -> Result<(), ClockBehind> {
    check(SystemTime::now(), BUILT.parse().unwrap_or(0))
}

fn check(now: SystemTime, built: u64) -> Result<(), ClockBehind> {
    match (UNIX_EPOCH + Duration::from_secs(built)).duration_since(now) {
        Ok(behind) if !behind.is_zero() => Err(ClockBehind { behind, built }),
        _ => Ok(()),
    }
}

/// A length of time in the largest unit of which it has one at least, rounded down.
fn in_words(length: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let secs = length.as_secs().max(1);
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| secs >= *unit).unwrap_or((1, "second"));
    let count = secs / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_build_is_wrong_and_one_after_it_may_be_right() {
        let built = 1_800_000_000;
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        assert_eq!(check(at(built), built), Ok(()));
        assert_eq!(check(at(built + 1_000_000_000), built), Ok(()));
        let behind = check(at(built - 86_401), built).unwrap_err();
        assert!(behind.to_string().contains("Set the clock"), "{behind}");
        assert!(check_clock().is_ok(), "this machine's");
    }

    #[test]
    fn how_far_behind_is_said_in_the_unit_that_fits() {
        let built = 1_800_000_000;
        for (secs, words) in [
            (0.2, "stands 1 second before"),
            (1.0, "stands 1 second before"),
            (59.0, "stands 59 seconds before"),
            (60.0, "stands 1 minute before"),
            (1_380.0, "stands 23 minutes before"),
            (7_199.0, "stands 1 hour before"),
            (86_400.0, "stands 1 day before"),
            (1_000_000_000.0, "stands 11574 days before"),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(built) - Duration::from_secs_f64(secs);
            let behind = check(now, built).unwrap_err().to_string();
            assert!(behind.contains(words), "{secs}: {behind}");
        }
    }
}
