//! The meter: from messages to the ledger, exactly once, wherever the messages come from.
//!
//! [`Meter`] takes payloads, reads them and has the ledger record them in one transaction a batch. In the one-process
//! deployment it is the relay's own [`Publisher`](goldleaves_domain::Publisher); in the distributed one the worker's
//! loop feeds it from JetStream, and `goldleaves replay` with what was there before. It knows no broker, no HTTP and no SQL.

mod handed;
mod meter;
mod metrics;
pub mod program;
mod publisher;
mod spans;
mod worker;

pub use meter::Meter;
pub use worker::{ConsumerSettings, StreamMetrics, StreamWatch, UnrecordedBatch, WatchPace, Worker, WorkerHealth};
