//! The meter-worker as a program of its own.

use std::process::ExitCode;

use goldleaves_meter_worker::program::{self, Config};
use goldleaves_runtime::process;

fn main() -> ExitCode {
    process::end(process::settings(Config::read).map_or_else(|exit| exit, |config| program::run(&config)))
}
