//! The wall clock, as a value that tests can replace.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use goldleaves_domain::{Timestamp, TimestampError};

/// The source of the time; tests put their own.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock of one's own, for tests.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Now in UTC, cut to microseconds.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn timestamp(&self) -> Result<Timestamp, TimestampError> {
        let micros = match self.now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()),
            Err(before) => i64::try_from(before.duration().as_nanos().div_ceil(1_000)).map(|micros| -micros),
        };
        micros.map_err(|_| TimestampError::OutOfRange).and_then(Timestamp::from_unix_micros)
    }

    /// Seconds since 1970; before it, 0.
    pub(crate) fn seconds(&self) -> f64 {
        self.now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("WallClock")
    }
}
