//! Equipment for tests, a dev-dependency only: real servers as child processes on free ports, our own programs, a fake
//! upstream, a browser, a collector of traces, a proxy whose wire can be cut, a client that counts bytes, and tokens.
//!
//! Every process dies with the value that stands for it, and with the test's process. Data of a failed test is kept.

pub mod callgrind;
pub mod checkers;
pub mod child;
pub mod chromium;
pub mod client;
pub mod collector;
pub mod disk;
pub mod h2_upstream;
pub mod h2load;
pub mod haproxy;
pub mod http1;
pub mod httpbin;
pub mod lent_disk;
pub mod nats;
pub mod nginx;
pub mod peers;
pub mod pgbouncer;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod scratch;
pub mod secure;
pub mod stripe;
pub mod stripe_client;
pub mod token;
pub mod upstream;
pub mod usage;

pub use goldleaves_migrations as migrations;
