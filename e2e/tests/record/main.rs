//! The record side and the meter together: whatever a gateway lets through ends as one row, whatever is killed when.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod child;
mod crash;
mod database;
mod let_through;
mod meter;
