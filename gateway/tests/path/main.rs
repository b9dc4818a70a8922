//! The request path from a client's socket to the upstream's and back, with a real spool behind it.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")
)]

mod world;

mod aborts;
mod bodies;
mod chaos;
mod cors;
mod early;
mod errors;
mod headers;
mod identity;
mod lifecycle;
mod limits;
mod malformed;
mod metering;
mod pool;
mod protocol;
mod recording;
mod routes;
mod routing;
mod secure;
mod short;
mod skipped;
mod smuggling;
mod tokens;
mod traces;
mod tunnels;
mod two;
mod upstreams;
