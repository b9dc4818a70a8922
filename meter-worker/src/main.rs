//! The meter-worker as a program of its own.

use std::process::ExitCode;

use goldleaves_meter_worker::program::{self, Config};
use goldleaves_runtime::{Program, process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRAM: Program = Program { name: "meter-worker", about: "Takes usage events from JetStream into the ledger." };

fn main() -> ExitCode {
    process::main(PROGRAM, Config::read, program::run)
}
