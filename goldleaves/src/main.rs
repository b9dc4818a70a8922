//! The one-process program: gateway, meter and billing API together.

use std::process::ExitCode;

use goldleaves_runtime::process;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    process::end(goldleaves::main())
}
