//! The worker between a real nats-server and a real PostgreSQL.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod faults;
mod packed;
mod program;
mod support;
mod traces;
mod went_back;
