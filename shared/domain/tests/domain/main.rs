//! The domain's tests, one program: each module is about one rule.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod wire;
