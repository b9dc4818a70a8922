//! The product from outside: the built programs, real applications behind them, real clients before them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]

mod applications;
mod bad_input;
mod crash;
mod first_start;
mod full_disk;
