//! The wall clock, for what the ledger keeps. Durations are measured with `Instant`.

use std::time::{SystemTime, UNIX_EPOCH};

use goldleaves_domain::Timestamp;

/// Where time comes from; tests put their own.
pub type Clock = fn() -> Timestamp;

/// Now, cut to microseconds. A clock set outside the years 1 to 9999 counts as 1970.
pub fn now() -> Timestamp {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(0),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(0, |micros| -micros),
    };
    Timestamp::from_unix_micros(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
