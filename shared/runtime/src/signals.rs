//! The signals that mean nothing to a program: from its first moment on they end none. What stops one is in `shutdown`.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

/// Hears HUP, USR1 and USR2, whose default is to end the process, with the calls it serves.
pub(crate) fn survive() {
    for signal in [SIGHUP, SIGUSR1, SIGUSR2] {
        // Only a forbidden signal can be refused, and none of these is.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
}

/// Returns whether somebody sits before this process. A hangup then says that the window was closed, and otherwise comes from a
/// service manager or a script. (`nohup` leaves none of the three on the terminal.)
pub(crate) fn on_a_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}
