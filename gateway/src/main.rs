//! The gateway as a program of its own.

use std::process::ExitCode;

use goldleaves_gateway::program::{self, Config};
use goldleaves_runtime::process;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    process::end(process::settings(Config::read).map_or_else(|exit| exit, |config| program::run(&config)))
}
