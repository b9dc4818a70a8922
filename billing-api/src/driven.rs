//! A clock that a test drives, in programs that are built without optimisations: the file that `GOLDLEAVES_TEST_CLOCK` names
//! holds the moment, in seconds since 1970.
//!
//! A released program does not know of it. It is no setting: nobody who bills anybody wants another time than the database's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use goldleaves_billing::stripe::BooksClock;
use goldleaves_domain::Timestamp;

/// The variable that names the file.
const VARIABLE: &str = "GOLDLEAVES_TEST_CLOCK";

/// The test's clock, where there is one.
pub(crate) fn clock() -> Option<BooksClock> {
    let file = PathBuf::from(std::env::var_os(VARIABLE)?);
    tracing::warn!("the push to Stripe goes by the clock in {}, not by the database's", file.display());
    let last = AtomicI64::new(0);
    Some(BooksClock::Driven(Arc::new(move || {
        // Where the file can't be read, time stands still.
        let read = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<i64>().ok());
        if let Some(seconds) = read {
            last.store(seconds, Ordering::Relaxed);
        }
        let micros = last.load(Ordering::Relaxed).saturating_mul(1_000_000);
        Timestamp::from_unix_micros(micros).unwrap_or(Timestamp::UNIX_EPOCH)
    })))
}
