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
mod stages;
mod still;
mod threads;
mod waiting;

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::keeper::Round;
use crate::sync::SyncStep;
use crate::{Lsn, Record, Spool, SpoolError};

thread_local! {
    static CLOCK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Returns what this thread's clock says, where a test moved it.
pub(crate) fn clock() -> Option<u64> {
    CLOCK.get()
}

fn set_clock(unix_secs: u64) {
    CLOCK.set(Some(unix_secs));
}

/// Syncs what there is and keeps one round.
fn step(spool: &Spool) -> Round {
    while spool.shared.sync_step() == SyncStep::Done {}
    spool.shared.keep_round()
}

/// Everything that is not acknowledged.
fn read_all(spool: &Spool) -> Vec<Record> {
    let (mut reader, mut all) = (spool.reader(), Vec::new());
    loop {
        let batch = reader.next_batch(50, usize::MAX).unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits in this thread until the record is durable; a spool without threads is synced by somebody else.
fn wait_durable(spool: &Spool, lsn: Lsn) -> Result<(), SpoolError> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut wait = pin!(spool.durable(lsn));
    loop {
        match wait.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => std::thread::park(),
        }
    }
}
