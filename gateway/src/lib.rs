//! The gateway: what stands between clients and the upstream, and meters what it lets through.
//!
//! [`Gateway`] serves; `stack.rs` is the whole request path on one page. `shared/record` is the only door from a request to
//! the spool. Invariants: one normalised path is matched, metered and forwarded; every announced call is settled
//! exactly once; nothing on the request path waits for NATS or a database.

mod call;
mod capture;
mod config;
mod core;
mod descriptors;
mod destination;
mod edge;
mod error;
mod facts;
mod gateway;
mod headers;
mod hints;
mod host;
mod identity;
mod layers;
mod limits;
mod metrics;
mod names;
mod open_calls;
mod proxy;
mod reload;
mod route_metrics;
mod snapshot;
mod spans;
mod stack;
mod stream;
mod transport;
mod upstream;
mod via;

pub mod program;
pub mod service;

pub use config::{Deployment, GatewayConfig, needs_restart};
pub use descriptors::TooFewDescriptors;
pub use edge::RouteShown;
pub use gateway::{Gateway, GatewayParts, StartError};
pub use layers::{AllowedOrigins, ExposedError, ExposedHeaders, OriginsError};
pub use limits::GatewayLimits;
pub use reload::{ReadAgain, Reloaded, Reloading, Taken};
pub use stream::StreamSettings;
pub use transport::{Origin, OriginError};
