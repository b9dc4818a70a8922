//! Sends a request to its upstream and brings back what it answers. Bodies stream both ways, never buffered.

mod answer;
mod exchange;
mod reach;
mod service;
mod tunnel;

pub(crate) use answer::{AnswerBody, AnswerError};
pub(crate) use service::{Proxy, Served};
pub(crate) use tunnel::Tunnel;
