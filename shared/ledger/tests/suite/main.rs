//! One suite for both databases: every test runs on SQLite and on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod cards;
mod concurrent;
mod events;
mod fields;
mod giving_way;
mod harness;
mod letters;
mod money;
mod orders;
mod pooled;
mod prices;
mod proof;
mod record;
mod remembered;
mod repeats;
mod reports;
mod rolled_back;
mod schema;
mod upgrade;
