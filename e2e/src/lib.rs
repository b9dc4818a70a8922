//! Equipment of the whole-system tests: the built programs as one deployment or the other, the ledger's tables read with
//! plain SQL, load that writes down what it saw, and answers compared byte by byte.
//!
//! The tests themselves are in `tests/whole_system`. Nothing here calls the product's own code: it is looked at from
//! outside, through sockets, files and tables.

pub mod account;
pub mod compare;
pub mod curl;
pub mod deployment;
pub mod fleet;
pub mod h2_wire;
pub mod load;
pub mod metrics;
pub mod nats_wire;
pub mod patience;
pub mod process;
pub mod seals;
pub mod tables;
