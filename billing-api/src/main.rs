//! The billing API as a program of its own.

use std::process::ExitCode;

use goldleaves_billing_api::program::{self, Config};
use goldleaves_runtime::{Program, process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRAM: Program =
    Program { name: "billing-api", about: "Answers what a tenant used and what it costs, from the ledger." };

fn main() -> ExitCode {
    process::main(PROGRAM, Config::read, program::run)
}
