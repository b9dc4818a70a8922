//! The facts of a call that are known when its head has come.

use std::time::Instant;

use goldleaves_domain::{RequestId, Timestamp};
use http::HeaderValue;

/// The facts that hold for the whole call.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The address of the socket's other end, ready to be sent.
    pub(crate) peer: HeaderValue,
    /// When the head arrived, for durations and for the ledger.
    pub(crate) arrived: Instant,
    pub(crate) arrived_at: Timestamp,
    pub(crate) request_id: RequestId,
    /// The same, ready to be sent.
    pub(crate) request_id_header: HeaderValue,
    pub(crate) client_chose_id: bool,
}
