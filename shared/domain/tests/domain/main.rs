//! The domain's tests, one program: each module is about one rule.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod batches;
mod classes;
mod common;
mod fields;
mod fingerprints;
mod golden;
mod metadata;
mod paths;
mod public;
mod repeats;
mod routes;
mod seals;
mod statuses;
mod subjects;
mod times;
mod units;
mod unreadable;
mod wire;
