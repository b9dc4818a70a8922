//! The gateway as a program of its own.

use std::process::ExitCode;

use goldleaves_gateway::program::{self, Config};
use goldleaves_runtime::{Program, process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRAM: Program =
    Program { name: "gateway", about: "Serves what is behind it, and records every billable call for the ledger." };

fn main() -> ExitCode {
    process::main(PROGRAM, Config::read, program::run)
}
