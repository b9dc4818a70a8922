//! Judges the wall clock: it can't stand before the program was built. Nothing else is known of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When this build was made, seconds since 1970.
const BUILT: &str = env!("GOLDLEAVES_BUILT");

/// A clock that can't be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock stands {behind_days} days before this program was built ({built} seconds after 1970): calls would be billed to \
     a time that is over. Set the clock, then start again"
)]
pub struct ClockBehind {
    behind_days: u64,
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
    const DAY_SECS: u64 = 86_400;
    match (UNIX_EPOCH + Duration::from_secs(built)).duration_since(now) {
        Ok(behind) if !behind.is_zero() => Err(ClockBehind { behind_days: behind.as_secs().div_ceil(DAY_SECS), built }),
        _ => Ok(()),
    }
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
        assert_eq!(behind.behind_days, 2);
        assert!(behind.to_string().contains("Set the clock"), "{behind}");
        assert!(check_clock().is_ok(), "this machine's");
    }
}
