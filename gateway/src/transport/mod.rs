//! The way of bytes to an upstream and back: written origins, TLS, connections of both HTTPs and the pools that keep them,
//! and the bodies of requests. Which upstream a call goes to, and what its answer means, is not decided here.

mod connection;
mod io;
mod origin;
mod pool;
mod short;
mod slots;
mod stall;
mod target;
mod tls;
mod two;
mod upload;
mod wire;

pub(crate) use connection::{ConnectError, Connection, Speaks};
pub use origin::{Origin, OriginError};
pub(crate) use pool::{Pool, PoolOptions};
pub(crate) use short::{Short, short, short_head};
pub(crate) use slots::Slots;
pub(crate) use stall::Stall;
pub(crate) use target::Target;
pub(crate) use tls::{Of, Tls, TlsFiles};
pub(crate) use two::{was_refused, was_reset};
pub(crate) use upload::{Upload, UploadFailure, UploadLimits, UploadWatch};
pub(crate) use wire::{Dial, Security};
