//! The tests of money, one program: each module is about one rule.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bills;
mod cards;
mod models;
mod rates;
