//! Sends a request to its upstream and brings back what it answers. Bodies stream both ways, never buffered.

mod answer;
mod connection;
mod exchange;
mod headers;
mod io;
mod origin;
mod pool;
mod reach;
mod service;
mod slots;
mod stall;
mod tls;
mod tunnel;
mod two;
mod upload;
mod wire;

pub(crate) use answer::{AnswerBody, AnswerError};
pub(crate) use connection::{ConnectError, Speaks};
pub(crate) use headers::{has_foreign_coding, is_grpc, is_hop_by_hop_trailer, list, wanted_upgrade};
pub use origin::{Origin, OriginError};
pub(crate) use pool::{Pool, PoolOptions};
pub(crate) use service::{Proxy, Served};
pub(crate) use slots::Slots;
pub(crate) use tls::{Tls, TlsFiles};
pub(crate) use tunnel::Tunnel;
pub(crate) use upload::{UploadFailure, UploadLimits, UploadWatch};
pub(crate) use wire::{Dial, Security};
