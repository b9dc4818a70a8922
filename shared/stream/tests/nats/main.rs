//! The publisher, the topology and the consumer against real nats-servers.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cluster;
mod connect;
mod consume;
mod faults;
mod loss;
mod publish;
mod read;
mod support;
mod topology;
