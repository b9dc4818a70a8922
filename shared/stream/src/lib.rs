//! Everything Goldleaves says to NATS: the stream and its consumer, a publisher that takes nothing but a PubAck for a
//! receipt, a consumer that acknowledges after the commit, and a reader of what is stored that disturbs nobody.
//!
//! No other crate speaks NATS. What is published is [`goldleaves_domain::Delivery`], bytes already; what comes back is
//! bytes too. This crate neither reads events nor knows the database.

mod address;
mod api;
mod connection;
mod consumer;
mod footing;
mod publisher;
mod reader;
mod topology;

pub use address::{AddressError, Servers};
pub use api::ApiError;
pub use connection::{ConnectError, ConnectSettings, Connection, ca_file, credentials_file};
pub use consumer::{Batch, Consumer, ConsumerOptions, ConsumerState, Lag, Message, Next, StopHandle};
pub use footing::Footing;
pub use publisher::{PublisherOptions, PublisherStats, StreamPublisher};
pub use reader::{Mark, Position, PositionError, ReadError, Reader, ReaderOptions, Span};
pub use topology::{
    CONSUMER, Declared, Existence, MESSAGE_BYTES_MAX, Mismatch, Present, RECEIVER, STREAM, StreamRoom, Topology,
    TopologyError,
};
