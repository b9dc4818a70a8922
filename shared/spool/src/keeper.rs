//! The part of the shared state that wakes the keeper, and lets it rest. What it does is in `keep.rs`.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

const TICK: Duration = Duration::from_millis(200);
pub(crate) const TICK_IDLE: Duration = Duration::from_secs(1);

/// The findings of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Quiet,
    /// Something could not be done and wants another round.
    Unfinished,
}

/// Wakes the keeping thread.
#[derive(Default)]
pub(crate) struct Keeper {
    signal: Mutex<Signal>,
    wake: Condvar,
}

#[derive(Default)]
struct Signal {
    wanted: bool,
    cursor_moved: bool,
    stop: bool,
}

impl Keeper {
    /// Wants a round now.
    pub(crate) fn wake(&self) {
        self.signal.lock().wanted = true;
        self.wake.notify_one();
    }

    /// An acknowledgement: the keeper is told, but need not hurry.
    pub(crate) fn cursor_moved(&self) {
        let mut signal = self.signal.lock();
        if !signal.cursor_moved {
            signal.cursor_moved = true;
            signal.wanted = true;
            self.wake.notify_one();
        }
    }

    /// Ends the thread after its round.
    pub(crate) fn stop(&self) {
        {
            let mut signal = self.signal.lock();
            signal.stop = true;
            signal.wanted = true;
        }
        self.wake.notify_all();
    }

    /// Rests after a round until the next one is wanted. Returns `false` when there shall be none.
    pub(crate) fn rest(&self, round: Round) -> bool {
        let mut signal = self.signal.lock();
        if signal.stop {
            return false;
        }
        match round {
            Round::Quiet if signal.wanted => {}
            Round::Quiet => {
                self.wake.wait_for(&mut signal, TICK_IDLE);
            }
            // However many ask: a disk that just refused is not asked again at once.
            Round::Unfinished => {
                self.wake.wait_while_for(&mut signal, |signal| !signal.stop, TICK);
            }
        }
        signal.wanted = false;
        let busy = std::mem::take(&mut signal.cursor_moved);
        drop(signal);
        if busy {
            // Many acknowledgements become one write of the cursor.
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}
