//! Real servers for tests, as child processes. A dev-dependency only.

pub mod nats;
