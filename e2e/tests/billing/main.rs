//! Billing as its callers see it, over ledgers that workers wrote, on both databases.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]

mod again;
mod attacks;
mod breaking_off;
mod browsing;
mod carrying;
mod closing;
mod contract;
mod correcting;
mod histories;
mod inputs;
mod isolation;
mod paging;
mod plans;
mod push_attacks;
mod push_faults;
mod push_lanes;
mod push_large;
mod push_races;
mod push_shared;
mod push_sums;
mod push_trouble;
mod pushing;
mod rating;
mod reading;
mod stripe_desk;
mod stripe_guide;
mod stripe_judge;
mod stripe_model;
mod webhooks;
mod world;
