//! The words in which the request path describes a call: when it starts, and when it ends.

use std::fmt;

use goldleaves_domain::{
    Action, EventId, Fingerprint, Outcome, RequestId, RoutePattern, TenantId, Timestamp, Units, UserId,
};

/// Everything known of a billable call before the upstream hears of it: all that an event of outcome `unknown` needs.
/// `T` is how its texts are held: borrowed from the request, or owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallIntent<T = String> {
    /// From [`Recorder::event_id`](super::Recorder::event_id), one per client request however often the upstream is
    /// tried.
    pub event_id: EventId,
    /// The tenant whose usage it is, from the verified token.
    pub tenant_id: TenantId,
    /// The user that called, from the verified token.
    pub user_id: UserId,
    /// When the request's head arrived.
    pub ts: Timestamp,
    /// The trace the call belongs to; it is cut from the event when it is longer than 255 bytes.
    pub traceparent: Option<T>,
    /// The `X-Request-ID` of the response.
    pub request_id: RequestId,
    /// The same, when the client chose it; anything else counts as not chosen.
    pub client_request_id: Option<RequestId>,
    /// The matched pattern.
    pub route: RoutePattern,
    /// The request's method.
    pub method: T,
    /// The client's `User-Agent`; `None` when not sent or not wanted.
    pub user_agent: Option<T>,
    /// The socket's peer; `None` when not wanted.
    pub client_ip: Option<T>,
}

/// The end of a call that is billed, or set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The way it ended.
    pub outcome: Outcome,
    /// The status the client got; 499 when it left before one came.
    pub status_code: u16,
    /// The units of the call. Outcomes that are not billable are recorded with 0 units whatever stands here.
    pub units: Units,
    /// The action that the upstream named; `None` is the method's own word.
    pub action: Option<Action>,
    /// Bytes of the response body handed over.
    pub response_bytes: u64,
    /// From the request's head to this settlement.
    pub processing_micros: u64,
    /// The fingerprint of the request; `None` when its body was not read to its end.
    pub fingerprint: Option<Fingerprint>,
}

/// The reason an announced call leaves no event. The number 5 stood for a reason that no program gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum VoidReason {
    /// The final status is not in `BILLABLE_STATUSES`.
    StatusNotBillable = 1,
    /// The gateway refused the call before it handed it over (a limit, a malformed request).
    Refused = 2,
    /// No connection to the upstream: the gateway answered 502 or 503.
    UpstreamUnreachable = 3,
    /// The upstream gave no head in time, or broke off before one: the gateway answered 502 or 504.
    UpstreamFailed = 4,
    /// `strict`: the INTENT could not be made durable, so the client got 503.
    NotDurable = 6,
    /// The gateway stopped before the call was handed over.
    Stopped = 7,
}

impl VoidReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::StatusNotBillable,
        Self::Refused,
        Self::UpstreamUnreachable,
        Self::UpstreamFailed,
        Self::NotDurable,
        Self::Stopped,
    ];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StatusNotBillable => "status_not_billable",
            Self::Refused => "refused",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamFailed => "upstream_failed",
            Self::NotDurable => "not_durable",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for VoidReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// The thing that a call waits for (`METER_DURABILITY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// For the kernel only. When the spool is full or broken, calls are still served and counted as unrecorded, and
    /// readiness is red.
    #[default]
    Available,
    /// For the disk: the response's head is held until the INTENT is durable, and 503 when it cannot be.
    Strict,
}
