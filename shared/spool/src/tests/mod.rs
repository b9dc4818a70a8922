//! Tests of the whole spool; see each file for what it asks.

mod backlog;
mod basics;
mod bounds;
mod damage;
mod disk;
mod faults;
mod full_start;
mod model;
mod private;
mod random;
mod settling;
mod still;
mod threads;
mod waiting;

use std::cell::Cell;

thread_local! {
    static CLOCK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What this thread's clock says, where a test moved it.
pub(crate) fn clock() -> Option<u64> {
    CLOCK.get()
}

fn set_clock(unix_secs: u64) {
    CLOCK.set(Some(unix_secs));
}
